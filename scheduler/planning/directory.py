"""What the gateway is told: which models can be reached, and which bookings are to come or refused."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from datetime import datetime

from calendars.reservation import Reservation
from scheduler.planning.targets import Booked
from scheduler.types import Announcement, Directory, Placement, Route, Verdict, VerdictState

MAX_ANNOUNCEMENTS = 200
"""The gateway is told of so many bookings at most, the nearest first."""


def directory(
    placements: Iterable[Placement],
    verdicts: Iterable[Verdict],
    booked: Mapping[str, Booked],
    reservations: Iterable[Reservation],
    at: datetime,
) -> Directory:
    """Routes to all placements, and the bookings clients may ask about.

    Args:
        reservations: everything that was read, with what has ended: a model that lingers is no less
            private than it was.
    """
    allowed = {one.key: one.private_to for one in reservations}
    by_model: dict[str, list[Placement]] = {}
    for placement in placements:
        by_model.setdefault(placement.target.model.key, []).append(placement)
    routes = tuple(_route(group, allowed) for _, group in sorted(by_model.items()))
    nearest = heapq.nsmallest(
        MAX_ANNOUNCEMENTS,
        (one for one in verdicts if (_is_refused(one) or _is_to_come(one, at)) and one.event in booked),
        key=lambda one: (one.start or at, booked[one.event].names, one.end or at),
    )
    return Directory(routes=routes, announcements=tuple(_announce(one, booked) for one in nearest))


def _is_to_come(verdict: Verdict, at: datetime) -> bool:
    return verdict.start is not None and verdict.start > at


def _is_refused(verdict: Verdict) -> bool:
    return verdict.state is VerdictState.REFUSED


def _announce(verdict: Verdict, booked: Mapping[str, Booked]) -> Announcement:
    one = booked[verdict.event]
    return Announcement(
        names=one.names,
        start=one.reservation.start,
        end=one.reservation.end,
        refused=verdict.reason if _is_refused(verdict) else None,
        private_to=one.reservation.private_to,
    )


def _route(group: list[Placement], allowed: Mapping[str, tuple[str, ...] | None]) -> Route:
    target = group[0].target
    return Route(
        model=target.model,
        names=target.names,
        nodes=tuple(placement.node for placement in group),
        until=max(placement.target.until for placement in group),
        private_to=_together(
            [allowed[key] for one in group for key in one.target.reservations if key in allowed]
        ),
    )


def _together(allowed: list[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    """Who may use a model that these bookings share: everybody, as soon as one of them is not private."""
    private = [people for people in allowed if people is not None]
    if not private or len(private) < len(allowed):
        return None
    return tuple(sorted({mail for people in private for mail in people}))
