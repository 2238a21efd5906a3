"""What the gateway is told: which models can be reached, and which bookings are to come or refused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from calendars.reservation import Reservation
from scheduler.planning.running import Identity
from scheduler.planning.targets import Booked
from scheduler.planning.upcoming import same
from scheduler.types import Announcement, Directory, Placement, Route, Verdict, VerdictState

MAX_ANNOUNCEMENTS = 200
"""The gateway is told of so many bookings at most, the nearest first."""


class Signpost:
    """Tells the gateway what there is; what is as it was the last time is told with the same objects."""

    def __init__(self) -> None:
        self._told = Directory()
        self._nodes_of: defaultdict[str, dict[str, Placement]] = defaultdict(dict)
        """Where a model is placed, by its key and the name of the node."""
        self._routes: dict[str, Route] = {}
        self._announced: dict[str, tuple[Verdict, Booked, Announcement]] = {}

    def directory(
        self,
        placed: Mapping[Identity, Placement],
        others: Collection[Identity],
        verdicts: Iterable[Verdict],
        booked: Mapping[str, Booked],
        given: Mapping[str, Reservation],
        at: datetime,
    ) -> Directory:
        """Routes to all placements, and the bookings clients may ask about.

        Args:
            placed: what shall run, by model key and node.
            others: the identities of what of it is another than the last time, came or went.
            verdicts: in the order of their starts.
            given: everything that was read, by key, with what has ended: a model that lingers is no less
                private than it was.
        """
        for model in self._take_in(others, placed):
            self._route(model, given)
        self._announced = {one.event: self._announce(one, booked) for one in _nearest(verdicts, booked, at)}
        announcements = tuple(announcement for _, _, announcement in self._announced.values())
        if others or not same(announcements, self._told.announcements):
            routes = tuple(self._routes[model] for model in sorted(self._routes))
            self._told = Directory(routes=routes, announcements=announcements)
        return self._told

    def _take_in(self, others: Iterable[Identity], placed: Mapping[Identity, Placement]) -> set[str]:
        """Note what is placed otherwise than before; returns the keys of the models."""
        for model, node in others:
            self._nodes_of[model].pop(node, None)
            if (one := placed.get((model, node))) is not None:
                self._nodes_of[model][node] = one
        return {model for model, _ in others}

    def _route(self, model: str, given: Mapping[str, Reservation]) -> None:
        """Make the route to a model anew; while its placements are the same, so are the people it is for."""
        group = [one for _, one in sorted(self._nodes_of[model].items())]
        if not group:
            del self._nodes_of[model], self._routes[model]
            return
        target = group[0].target
        self._routes[model] = Route(
            model=target.model,
            names=target.names,
            nodes=tuple(one.node for one in group),
            until=max(one.target.until for one in group),
            private_to=_together(
                [given[name].private_to for one in group for name in one.target.reservations if name in given]
            ),
        )

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
