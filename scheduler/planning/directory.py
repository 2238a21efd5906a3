"""What the gateway is told: which models can be reached, and which bookings are to come or refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import groupby

from calendars.reservation import Reservation
from scheduler.planning.targets import Booked
from scheduler.planning.upcoming import same
from scheduler.types import Announcement, Directory, Placement, Route, Verdict, VerdictState

MAX_ANNOUNCEMENTS = 200
"""The gateway is told of so many bookings at most, the nearest first."""


class Signpost:
    """Tells the gateway what there is; what is as it was the last time is told with the same objects."""

    def __init__(self) -> None:
        self._told = Directory()
        self._placements: tuple[Placement, ...] = ()
        self._routes: dict[str, tuple[tuple[Placement, ...], Route]] = {}
        self._announced: dict[str, tuple[Verdict, Booked, Announcement]] = {}

    def directory(
        self,
        placements: Iterable[Placement],
        verdicts: Iterable[Verdict],
        booked: Mapping[str, Booked],
        given: Mapping[str, Reservation],
        at: datetime,
    ) -> Directory:
        """Routes to all placements, and the bookings clients may ask about.

        Args:
            placements: those of one model after each other.
            verdicts: in the order of their starts.
            given: everything that was read, by key, with what has ended: a model that lingers is no less
                private than it was.
        """
        placements = tuple(placements)
        routes = self._routes
        if not same(placements, self._placements):
            self._placements = placements
            by_model = groupby(placements, key=_model)
            routes = {key: self._route(key, tuple(group), given) for key, group in by_model}
        announced = {one.event: self._announce(one, booked) for one in _nearest(verdicts, booked, at)}
        self._routes, self._announced = routes, announced
        told = Directory(
            routes=tuple(route for _, route in routes.values()),
            announcements=tuple(announcement for _, _, announcement in announced.values()),
        )
        if told != self._told:
            self._told = told
        return self._told

    def _route(
        self, key: str, group: tuple[Placement, ...], given: Mapping[str, Reservation]
    ) -> tuple[tuple[Placement, ...], Route]:
        known = self._routes.get(key)
        if known is not None and same(known[0], group):
            # What it was made from is the same, and so are the people of its bookings.
            return known
        private = _together(
            [given[name].private_to for one in group for name in one.target.reservations if name in given]
        )
        target = group[0].target
        route = Route(
            model=target.model,
            names=target.names,
            nodes=tuple(placement.node for placement in group),
            until=max(placement.target.until for placement in group),
            private_to=private,
        )
        return group, route

    def _announce(
        self, verdict: Verdict, booked: Mapping[str, Booked]
    ) -> tuple[Verdict, Booked, Announcement]:
        one, known = booked[verdict.event], self._announced.get(verdict.event)
        if known is not None and known[0] is verdict and known[1] is one:
            return known
        is_refused = verdict.state is VerdictState.REFUSED
        announcement = Announcement(
            names=one.names,
            start=one.reservation.start,
            end=one.reservation.end,
            refused=verdict.reason if is_refused else None,
            earliest=verdict.earliest if is_refused else None,
            private_to=one.reservation.private_to,
        )
        return verdict, one, announcement


def _model(one: Placement) -> str:
    return one.target.model.key


def _nearest(verdicts: Iterable[Verdict], booked: Mapping[str, Booked], at: datetime) -> list[Verdict]:
    """The first that are to come or refused."""
    found: list[Verdict] = []
    told = (one for one in verdicts if one.state is VerdictState.REFUSED or (one.start and one.start > at))
    for one in told:
        if one.event in booked:
            if len(found) >= MAX_ANNOUNCEMENTS and one.start != found[-1].start:
                break
            found.append(one)
    found.sort(key=lambda one: (one.start or at, booked[one.event].names, one.end or at))
    return found[:MAX_ANNOUNCEMENTS]


def _together(allowed: list[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    """Who may use a model that these bookings share: everybody, as soon as one of them is not private."""
    private = [people for people in allowed if people is not None]
    if not private or len(private) < len(allowed):
        return None
    return tuple(sorted({mail for people in private for mail in people}))
