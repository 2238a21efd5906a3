"""What is known of refusals, found out anew only where something has changed since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count

import numpy as np
from numpy.typing import NDArray

from scheduler.planning import explain, helping, obstacles
from scheduler.planning.admission import Admission
from scheduler.planning.footprint import Sizing
from scheduler.planning.holds import Ask
from scheduler.planning.ledger import Released
from scheduler.planning.needs import Need
from scheduler.planning.openings import FOREVER
from scheduler.planning.targets import Booked
from scheduler.types import Help, NodeAnswer, Refusal

FEW_NODES = 64
"""Where more have changed, all are looked at anew."""

Found = tuple[float, int] | None
"""An instant, and the node it was found on."""


@dataclass(slots=True)
class _Known:
    """What was found out about a booking, which is as true until something changes during ``[begin, until)``.

    ``since`` is the edge before its window began, or begins by now: what is free after it is the same
    until the next one. ``answers`` and ``ways`` are by node, each with the version of the node it is of.
    ``told`` are the nodes on which it was found: what changes on another one is of no matter to a booking
    that is alone with its model, unless that one comes before these now.
    """

    ask: Ask
    since: float
    edition: int = -1
    is_stale: bool = True
    is_open: bool = False
    is_alone: bool = False
    told: set[int] = field(default_factory=set)
    begin: float = 0.0
    until: float = FOREVER
    near: tuple[int, ...] | None = None
    most_free: int | None = None
    versions: NDArray[np.int64] | None = None
    first: Found = None
    longest: Found = None
    answers: dict[int, tuple[int, NodeAnswer]] = field(default_factory=dict)
    helps: tuple[Help, ...] = ()
    tried: dict[Need, int | None] = field(default_factory=dict)
    ways: dict[int, tuple[object, obstacles.Found]] = field(default_factory=dict)
    in_the_way: frozenset[str] = frozenset()
    earliest: float | None = None
    longest_until: float | None = None


class Refusals:
    """Explains refusals; keeps what it found for the next time."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._asked: set[str] = set()
        self._editions = count()
        self._altered = Counter[int]()

    def begin(self, admission: Admission, altered: Collection[str] | None) -> None:
        """Forget what was not asked for since the last time, and what is not true any more.

        Args:
            altered: the bookings that are others than the last time, in any way; None where that is unknown.
        """
        self._known = {key: one for key, one in self._known.items() if key in self._asked}
        self._asked.clear()
        if altered is None:
            self._known.clear()
        if not self._known:
            admission.shifted.clear()
            return
        # They are named as what holds the room, or is in the way.
        theirs = [hold for key in altered or () for hold in admission.of_booking(key)]
        self._altered.update(hold.seat.node for hold in theirs)
        windows = {*admission.shifted, *((hold.seat.node, hold.start, hold.end) for hold in theirs)}
        admission.shifted.clear()
        many = len({node for node, _, _ in windows}) > FEW_NODES
        for one in self._known.values():
            if many:
                one.is_stale = True
            elif not one.is_stale:
                there = [window for window in windows if window[1] <= one.until and window[2] >= one.begin]
                one.is_stale = bool(there) and self._concern(admission, one, there)

    def _concern(self, admission: Admission, known: _Known, changes: Iterable[Released]) -> bool:
        """Whether something else may be told of a booking for what is otherwise on some nodes."""
        ask, start, nodes = known.ask, max(known.ask.start, admission.at), {node for node, _, _ in changes}
        if not known.is_alone or not helping.is_alone(admission, ask, start):
            return True
        if not known.told.isdisjoint(nodes):
            return True
        during = {node for node, begin, _ in changes if begin < ask.end}
        if during and any(self._comes_before(admission, known, start, during)):
            return True
        if not known.is_open or not admission.book.possible(ask.need):
            return False
        return self._opens(admission, known, start, nodes) != (known.first, known.longest)

    def _comes_before(
        self, admission: Admission, known: _Known, start: float, nodes: set[int]
    ) -> Iterator[bool]:
        """Whether one of some nodes is before those that are told of, in one respect after the other."""
        book, need, end = admission.book, known.ask.need, known.ask.end
        if known.near and book.possible(need):
            last = known.near[-1]
            yield next(book.nearly(need, start, end, {last, *nodes})) != last
        if (most := known.most_free) is not None:
            yield book.most_free(need, start, end, {most, *nodes}) != most
        lacking = [other for other, on in known.tried.items() if on is None]
        for node in nodes:
            if book.open[node]:
                yield any(book.room_on(node, other, start, end) for other in lacking)

    def edition(self, admission: Admission, ask: Ask) -> int:
        """Another number whenever something else may be found out about a booking."""
        known = self._of(admission, ask)
        is_past = known.earliest is not None and known.earliest < max(ask.start, admission.at)
        if known.is_stale or is_past:
            known.edition, known.is_stale, known.is_open = next(self._editions), False, False
            known.begin, known.until = max(ask.start, admission.at), ask.end
            known.near = known.most_free = None
            known.is_alone = helping.is_alone(admission, ask, known.begin)
            known.told.clear()
            if ask.replicas > 1:
                known.until = FOREVER
            for hold in admission.of_model(ask.model):
                # It could share these.
                if hold.start <= ask.end and hold.end >= known.begin:
                    known.begin, known.until = min(known.begin, hold.start), max(known.until, hold.end)
        return known.edition

    def answers(self, admission: Admission, ask: Ask, booked: Mapping[str, Booked]) -> tuple[NodeAnswer, ...]:
        """What each node could offer one replica."""
        known, start = self._of(admission, ask), max(ask.start, admission.at)
        near = self._near(admission, known)
        found = explain.answers(admission, near, ask.need, start, ask.end, booked, known.answers)
        known.told.update(admission.book.index[one.node] for one in found)
        more_from = (one.free_from.timestamp() for one in found if one.free_from)
        known.until = max((known.until, *more_from))
        return found

    def most_free(self, admission: Admission, ask: Ask) -> int | None:
        """The node that has most of what it takes."""
        known = self._of(admission, ask)
        if known.most_free is None:
            start = max(ask.start, admission.at)
            known.most_free = admission.book.most_free(ask.need, start, ask.end)
            known.told.update(() if known.most_free is None else (known.most_free,))
        return known.most_free

    def refusal(
        self, admission: Admission, ask: Ask, one: Booked, booked: Mapping[str, Booked], sizing: Sizing
    ) -> Refusal:
        """What is in a booking's way, when it would fit, for how long it does, and what else would help.

        Of what no node could ever take only the last is told.
        """
        known = self._of(admission, ask)
        possible = admission.book.possible(ask.need)
        if not known.is_open:
            known.is_open = True
            now = replace(ask, start=max(ask.start, admission.at))
            known.tried.clear()
            tried = known.tried if known.is_alone else None
            known.helps = tuple(helping.helps(admission, now, one, sizing, tried))
            known.told.update(node for node in known.tried.values() if node is not None)
            if possible:
                self._open(admission, known, now)
                near = self._near(admission, known)
                ways = obstacles.in_the_way(admission, near, now, known.ways, self._altered)
                known.in_the_way = ways
        if not possible:
            return Refusal(helps=known.helps)
        return Refusal(
            in_the_way=tuple(sorted({booked[key].reservation.title for key in known.in_the_way})),
            short_replicas=ask.replicas - admission.covered(ask),
            earliest=_moment(known.earliest),
            longest_until=_moment(known.longest_until),
            helps=known.helps,
        )

    def _near(self, admission: Admission, known: _Known) -> tuple[int, ...]:
        if known.near is None:
            start = max(known.ask.start, admission.at)
            known.near = explain.nearest(admission, known.ask.need, start, known.ask.end)
        return known.near

    def _of(self, admission: Admission, ask: Ask) -> _Known:
        since = admission.book.edge_before(ask.start)
        known = self._known.get(ask.key)
        if known is None or known.ask is not ask or known.since != since:
            known = self._known[ask.key] = _Known(ask, since)
        self._asked.add(ask.key)
        return known

    def _open(self, admission: Admission, known: _Known, now: Ask) -> None:
        """When it would fit, and how long it does."""
        seconds, start = known.ask.end - known.ask.start, now.start
        if not known.is_alone:
            stays = helping.stays_after(admission, now, start)
            # What of its model it could share is tried as it is at the present.
            known.is_stale = True
            known.versions = known.first = known.longest = None
            known.earliest = helping.earliest(admission, replace(now, end=start + seconds), start)
            known.longest_until = helping.longest(admission, now)
            known.begin = min((known.begin, *(hold.start for hold in stays)))
            known.until = max((known.until, *(hold.end for hold in stays)))
        else:
            self._open_alone(admission, known, start)
        known.until = FOREVER if known.earliest is None else max(known.until, known.earliest + seconds)
        if known.earliest == start > known.ask.start:
            # It moves on with the present.
            known.is_stale, known.versions = True, None

    def _open_alone(self, admission: Admission, known: _Known, start: float) -> None:
        """The same for one replica that can share no stay: of nodes that are as they were, it is known."""
        dirty: set[int] | None = None
        if known.versions is not None:
            dirty = set(np.flatnonzero(known.versions != admission.versions).tolist())
            winners = {found[1] for found in (known.first, known.longest) if found}
            dirty = None if len(dirty) > FEW_NODES or winners & dirty else dirty
        known.first, known.longest = self._opens(admission, known, start, dirty)
        known.told.update(found[1] for found in (known.first, known.longest) if found)
        known.versions = admission.versions.copy()
        known.earliest = known.first[0] if known.first else None
        until = known.longest[0] if known.longest else start
        known.longest_until = until if start < until < known.ask.end else None

    def _opens(
        self, admission: Admission, known: _Known, start: float, nodes: set[int] | None
    ) -> tuple[Found, Found]:
        """On which node one replica has room first and longest, of all or of some and those known."""
        openings = admission.book.openings(known.ask.need, start, nodes)
        first, longest = openings.first(known.ask.end - known.ask.start), openings.longest()
        if nodes is not None:
            first = min((one for one in (known.first, first) if one), default=None)
            longest = max((one for one in (known.longest, longest) if one), default=None)
        return first, longest


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None or seconds == FOREVER else datetime.fromtimestamp(seconds, UTC)
