"""The page of the daemon, and the JSON API behind it.

It reads what the daemon shows on its board and what the history remembers, and decides nothing. What is
private, or not for this reader, is taken out in ``veil`` and ``shown``, before anything is rendered. The loop
never waits for it: the server has threads of its own, and “would this fit?” a process of its own.
"""
