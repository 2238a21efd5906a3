"""What can be told of bookings before they begin: whether there will be room for them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from scheduler.cluster.node import Cluster
from scheduler.planning.placement import Unplaced, place
from scheduler.planning.targets import Booked, targets_at

MAX_INSTANTS = 60
"""So many starts are looked at, the nearest first: bounds the work, whatever is booked."""


def foresee(booked: Iterable[Booked], cluster: Cluster, at: datetime) -> dict[str, Unplaced]:
    """The bookings to come that find no room, by the key of their reservation.

    Room can only become short when something starts, so each start after ``at`` is looked at by
    itself: everything booked for that instant is laid out on the empty cluster in the order of the
    claims. Packing in another order might still find a way; a booking that is refused here is judged
    anew with every plan.
    """
    booked = tuple(booked)
    starts = sorted({one.reservation.start for one in booked if one.reservation.start > at})
    short: dict[str, Unplaced] = {}
    for instant in starts[:MAX_INSTANTS]:
        targets = [target for target in targets_at(booked, instant) if not target.early]
        found = {one.target.model.key: one for one in place(targets, cluster).unplaced}
        for one in booked:
            unplaced = found.get(one.model.key)
            if unplaced is None or one.reservation.key not in unplaced.target.reservations:
                continue
            if one.replicas > unplaced.target.replicas - unplaced.replicas:
                short.setdefault(one.reservation.key, unplaced)
    return short
