"""Decides: from reservations, what is known of models and what was observed, to a plan.

Pure: no IO, no clock, no randomness; the same input gives the same plan. Imports only
``calendars.reservation``, ``scheduler.types`` and ``scheduler.cluster.node``. In the order of the
data: ``footprint``, ``targets``, ``placement``, ``diff``, and ``plan`` that calls them all.
"""
