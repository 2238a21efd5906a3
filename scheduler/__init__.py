"""The daemon: from reservations to what Ray Serve runs, and the commands around it.

``calendars`` and ``cluster`` say what is wanted and what is there, ``planning`` (pure) decides,
``controller`` carries out through ``serve``, ``render`` shows. Nothing flows back except through
what is observed.
"""
