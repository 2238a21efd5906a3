"""What is there: nodes, their devices and memory, and who holds them, as Ray reports it.

``node`` and ``cluster`` are values; ``observe`` alone talks to Ray. Decides nothing.
"""
