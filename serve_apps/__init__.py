"""Runs on Ray: the application that serves one model, and the gateway in front of them all.

Stands alone: never imports ``scheduler`` or ``calendars``. What both sides must agree on is in
``serve_apps.contract``.
"""
