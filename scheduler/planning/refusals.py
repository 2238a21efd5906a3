"""What is known of refusals, found out anew only on the nodes on which something has changed since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from scheduler.planning import explain
from scheduler.planning.admission import Admission
from scheduler.planning.footprint import Sizing
from scheduler.planning.holds import Ask
from scheduler.planning.openings import FOREVER
from scheduler.planning.targets import Booked
from scheduler.types import Help, NodeAnswer, Refusal

FEW_NODES = 64
"""Where more have changed, all are looked at anew."""

Found = tuple[float, int] | None
"""An instant, and the node it was found on."""


@dataclass(slots=True)
class _Known:
    """What was found out about a booking as the book was at some ``change``.

    ``since`` is the edge before its window began, or begins by now: what is free after it is the same
    until the next one. ``answers`` and ``ways`` are by node, each with the version of the node it is of.
    """

    ask: Ask
    since: float
    change: int = -1
    versions: list[int] = field(default_factory=list)
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

    def begin(self) -> None:
        """Forget what was not asked for since the last time."""
        self._known = {key: one for key, one in self._known.items() if key in self._asked}
        self._asked.clear()

    def answers(self, admission: Admission, ask: Ask, booked: Mapping[str, Booked]) -> tuple[NodeAnswer, ...]:
        """What each node could offer one replica."""
        known, start = self._of(admission, ask), max(ask.start, admission.at)
        return explain.answers(admission, ask.need, start, ask.end, booked, known.answers)

    def refusal(
        self, admission: Admission, ask: Ask, one: Booked, booked: Mapping[str, Booked], sizing: Sizing
    ) -> Refusal:
        """What is in a booking's way, when it would fit, for how long it does, and what else would help.

        Of what no node could ever take only the last is told.
        """
        known, start = self._of(admission, ask), max(ask.start, admission.at)
        now = replace(ask, start=start)
        possible = admission.book.possible(ask.need)
        if known.change != admission.change:
            known.helps = tuple(explain.helps(admission, now, one, sizing))
            if possible:
                self._open(admission, known, start)
            known.change, known.versions = admission.change, list(admission.versions)
            if known.earliest == start > ask.start:
                # It moves on with the present.
                known.change, known.versions = -1, []
        if not possible:
            return Refusal(helps=known.helps)
        until = known.longest[0] if known.longest and ask.replicas == 1 else None
        return Refusal(
            in_the_way=explain.in_the_way(admission, now, booked, known.ways),
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
        dirty = [node for node, version in enumerate(known.versions) if version != admission.versions[node]]
        winners = {found[1] for found in (known.first, known.longest) if found}
        if known.versions and len(dirty) <= FEW_NODES and not winners & set(dirty):
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


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None or seconds == FOREVER else datetime.fromtimestamp(seconds, UTC)
