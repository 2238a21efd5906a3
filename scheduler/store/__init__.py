"""What is kept on disk beside the calendars and Ray: history (SQLite) and the operator's orders (JSON).

``history`` is for people and for reckoning how long loading takes: it may be deleted at any time, and no
decision needs it. ``orders`` is what the operator wants until told otherwise. Nothing here decides, and
nothing here stops the daemon: what cannot be written is said once and counted.
"""
