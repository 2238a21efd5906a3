"""Serve as we see it: naming of applications, and plans to and from its configuration.

``config`` is pure; what it makes is handed over by ``scheduler.controller``.
"""
