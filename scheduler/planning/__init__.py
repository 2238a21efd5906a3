"""Decides: from reservations, what is known of models and what was observed, to a plan.

Pure: no IO, no clock, no randomness; the same input gives the same plan. Imports only
``calendars.reservation``, ``scheduler.types`` and ``scheduler.cluster.node``. In the order of the data:
``footprint``, ``targets`` and ``wishes`` (what is wanted), ``rules`` (who may), ``book`` over ``profile`` and
``openings`` (what is free when), ``holds``, ``ledger``, ``incumbents`` and ``admission`` (who is promised
what), ``exact`` (second opinions), ``schedule``, ``placing`` and ``upcoming`` (what runs now and later),
``explain``, ``refusals``, ``verdicts``, ``directory`` and ``diff`` (what is told and done); ``plan`` calls
them all, and ``memory`` is what one plan leaves to the next, which is the same without, but made later.
Apart from them ``improve`` packs by weight, which is what promises are measured against.
"""
