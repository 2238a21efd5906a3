"""How the service starts and stops: the Ray node beneath it, its ports, its token, and the verbs.

``local``, ``head`` and ``worker`` are what ``start.sh`` hands over to. Starts processes and stops
exactly those; never decides what serves. Imports ``scheduler.settings`` and ``errors``, and the
daemon only where a verb runs it. Nothing else of the scheduler imports this package, the command
line excepted.
"""
