"""What is known of refusals, found out anew only on the nodes on which something has changed since."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count

import numpy as np
from numpy.typing import NDArray

from scheduler.planning import explain
from scheduler.planning.admission import Admission
from scheduler.planning.footprint import Sizing
from scheduler.planning.holds import Ask, union
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
    """

    ask: Ask
    since: float
    edition: int = -1
    is_stale: bool = True
    is_open: bool = False
    begin: float = 0.0
    until: float = FOREVER
    near: tuple[int, ...] = ()
    versions: NDArray[np.int64] | None = None
    first: Found = None
    longest: Found = None
    answers: dict[int, tuple[int, NodeAnswer]] = field(default_factory=dict)
    ways: dict[int, tuple[int, frozenset[str] | None]] = field(default_factory=dict)
    helps: tuple[Help, ...] = ()
    earliest: float | None = None


class Refusals:
    """Explains refusals; keeps what it found for the next time."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._asked: set[str] = set()
        self._editions = count()

    def begin(self, admission: Admission, altered: Collection[str] | None) -> None:
        """Forget what was not asked for since the last time, and what is not true any more.

        Args:
            altered: the bookings that are others than the last time, in any way; None where that is unknown.
        """
        self._known = {key: one for key, one in self._known.items() if key in self._asked}
        self._asked.clear()
        if altered is None:
            self._known.clear()
        windows = union(admission.shifted) if self._known else []
        admission.shifted.clear()
        # They are named as what holds the room, or is in the way.
        windows += [(hold.start, hold.end) for key in altered or () for hold in admission.of_booking(key)]
        for one in self._known.values():
            one.is_stale |= any(start <= one.until and end >= one.begin for start, end in windows)

    def edition(self, admission: Admission, ask: Ask) -> int:
        """Another number whenever something else may be found out about a booking."""
        known = self._of(admission, ask)
        if known.is_stale:
            known.edition, known.is_stale, known.is_open = next(self._editions), False, False
            known.begin, known.until = max(ask.start, admission.at), ask.end
            known.near = explain.nearest(admission, ask.need, known.begin, ask.end)
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
        return explain.answers(admission, known.near, ask.need, start, ask.end, booked, known.answers)

    def refusal(
        self, admission: Admission, ask: Ask, one: Booked, booked: Mapping[str, Booked], sizing: Sizing
    ) -> Refusal:
        """What is in a booking's way, when it would fit, for how long it does, and what else would help.

        Of what no node could ever take only the last is told.
        """
        known, start = self._of(admission, ask), max(ask.start, admission.at)
        now = replace(ask, start=start)
        possible = admission.book.possible(ask.need)
        if not known.is_open:
            known.is_open = True
            known.helps = tuple(explain.helps(admission, now, one, sizing))
            if possible:
                self._open(admission, known, start)
        if not possible:
            return Refusal(helps=known.helps)
        until = known.longest[0] if known.longest and ask.replicas == 1 else None
        return Refusal(
            in_the_way=explain.in_the_way(admission, known.near, now, booked, known.ways),
            earliest=_moment(known.earliest),
            longest_until=_moment(until) if until and start < until < ask.end else None,
            helps=known.helps,
        )

    def _of(self, admission: Admission, ask: Ask) -> _Known:
        since = admission.book.edge_before(ask.start)
        known = self._known.get(ask.key)
        if known is None or known.ask is not ask or known.since != since:
            known = self._known[ask.key] = _Known(ask, since)
        self._asked.add(ask.key)
        return known

    def _open(self, admission: Admission, known: _Known, start: float) -> None:
        """When it would fit, and how long it does: of nodes that are as they were, that is known."""
        book, ask = admission.book, known.ask
        seconds = ask.end - ask.start
        dirty: set[int] | None = None
        if known.versions is not None:
            dirty = set(np.flatnonzero(known.versions != admission.versions).tolist())
        winners = {found[1] for found in (known.first, known.longest) if found}
        if dirty is not None and len(dirty) <= FEW_NODES and not winners & dirty:
            openings = book.openings(ask.need, start, dirty)
            first, longest = openings.first(seconds), openings.longest()
            known.first = min((one for one in (known.first, first) if one), default=None)
            known.longest = max((one for one in (known.longest, longest) if one), default=None)
        else:
            openings = book.openings(ask.need, start)
            known.first, known.longest = openings.first(seconds), openings.longest()
        known.earliest = known.first[0] if known.first else None
        if ask.replicas > 1:
            known.earliest = explain.earliest(admission, ask, start, known.earliest)
        known.versions = admission.versions.copy()
        known.until = FOREVER if known.earliest is None else max(known.until, known.earliest + seconds)
        if known.earliest == start > ask.start:
            # It moves on with the present.
            known.is_stale, known.versions = True, None


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None or seconds == FOREVER else datetime.fromtimestamp(seconds, UTC)
