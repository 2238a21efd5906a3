"""What goes wrong on a real Ray, and how long it takes until it is right again; docs/faults.md is the matrix.

``bench`` starts daemons as production does, beside the session's cluster or one of their own; ``soak`` runs
for half an hour. Everything here is marked ``ray``.
"""
