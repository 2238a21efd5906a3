"""What can be told of bookings before they begin: whether there will be room for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from scheduler.cluster.node import Cluster
from scheduler.planning.placement import Unplaced, place, place_alone
from scheduler.planning.targets import Booked, targets_at

MAX_INSTANTS = 60
"""So many starts are looked at, the nearest first: bounds the work, whatever is booked."""

MAX_TRIALS = 60
"""So many instants are laid out in the search for later slots, for all bookings together."""


def foresee(booked: Iterable[Booked], cluster: Cluster, at: datetime) -> dict[str, Unplaced]:
    """The bookings to come that find no room, by the key of their reservation.

    Room can only become short when something starts, so each start after ``at`` is looked at by
    itself: everything booked for that instant is laid out on the empty cluster in the order of the
    claims. Packing in another order might still find a way; a booking that is refused here is judged
    anew with every plan. What is too large for any node is found however far ahead it is.
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
    return _never(booked, cluster, at) | short


def _never(booked: Iterable[Booked], cluster: Cluster, at: datetime) -> dict[str, Unplaced]:
    """The bookings to come, however far ahead, that no node could take even if nothing else ran."""
    large: dict[tuple[int, int | None], bool] = {}
    found: dict[str, Unplaced] = {}
    for one in booked:
        if one.reservation.start <= at:
            continue
        need = (one.footprint_bytes, one.gpus)
        (target,) = targets_at((one,), one.reservation.start)
        if need not in large:
            large[need] = not place_alone(target, cluster)
        if large[need]:
            found[one.reservation.key] = place((target,), cluster).unplaced[0]
    return found


def earliest_slots(
    refused: Iterable[Booked], booked: Sequence[Booked], cluster: Cluster, at: datetime
) -> dict[str, datetime]:
    """When each refused booking would fit for as long as it lasts, by the key of its reservation.

    Room is gained when something ends, so the ends of the other bookings are tried in turn. A booking
    is missing here if none of them helps, or if ``MAX_TRIALS`` was used up before one was found.
    """
    found: dict[str, datetime] = {}
    trials = 0
    for one in refused:
        reservation = one.reservation
        others = [other for other in booked if other.reservation.key != reservation.key]
        after = max(at, reservation.start)
        for start in sorted({other.reservation.end for other in others if other.reservation.end > after}):
            window = {"start": start, "end": start + (reservation.end - reservation.start)}
            moved = replace(one, reservation=reservation.model_copy(update=window))
            instants = [start, *_starts_within(others, start, moved.reservation.end)]
            trials += len(instants)
            if trials > MAX_TRIALS:
                return found
            if all(_fits(moved, others, cluster, instant) for instant in instants):
                found[reservation.key] = start
                break
    return found


def _starts_within(booked: Iterable[Booked], start: datetime, end: datetime) -> list[datetime]:
    return sorted({one.reservation.start for one in booked if start < one.reservation.start < end})


def _fits(one: Booked, others: Sequence[Booked], cluster: Cluster, instant: datetime) -> bool:
    targets = [target for target in targets_at((*others, one), instant) if not target.early]
    return all(unplaced.target.model.key != one.model.key for unplaced in place(targets, cluster).unplaced)
