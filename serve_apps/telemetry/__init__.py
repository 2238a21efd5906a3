"""What is told to servers beside the work: log lines, points and metrics. Nothing here is ever waited for.

Also used by the daemon, so it imports neither Ray nor torch where it is imported.
"""
