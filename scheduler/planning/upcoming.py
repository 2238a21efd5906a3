"""What will be done later: models that come, and models that go."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import is_, itemgetter

from scheduler.planning.admission import Admission
from scheduler.planning.book import LAST
from scheduler.planning.holds import Hold, union
from scheduler.planning.targets import Booked
from scheduler.types import ActionKind, Step

MAX_STEPS = 500
"""So many later steps are told, the nearest first."""
PUNCTUAL_SECONDS = 1.0
"""A plan is made some milliseconds after the instant it was due at; that is no lateness."""


@dataclass(frozen=True, slots=True)
class Loading:
    """When loading for a hold begins, and how much too late that is.

    ``not_before`` is the start less the lead, or when the room is free if that is later; ``behind``
    are the keys of the bookings that hold the room until then.
    """

    hold: Hold
    lead_seconds: float
    not_before: float
    behind: tuple[str, ...] = ()

    @property
    def ready(self) -> float:
        """When it will serve."""
        return self.not_before + self.lead_seconds

    @property
    def late_seconds(self) -> float:
        """How long after its start that is."""
        return self.late_after(self.hold.start)

    def late_after(self, start: float) -> float:
        """How long after an instant that is."""
        late = self.ready - start
        return late if late >= PUNCTUAL_SECONDS else 0.0


Place = tuple[str, int]
"""A model's key and the number of a node."""


class Active:
    """What is held at the present, by place and in the order of its ends."""

    def __init__(self) -> None:
        self._holds: dict[int, Hold] = {}
        self._groups: defaultdict[Place, dict[int, Hold]] = defaultdict(dict)
        self._ends: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._holds)

    def __iter__(self) -> Iterator[int]:
        return iter(list(self._holds))

    def get(self, number: int) -> Hold | None:
        """What is held by a number."""
        return self._holds.get(number)

    def at(self, place: Place) -> Iterable[Hold]:
        """What is held of a model on a node."""
        return self._groups[place].values() if place in self._groups else ()

    def count(self, place: Place) -> int:
        """How much is held of a model on a node."""
        return len(self._groups[place]) if place in self._groups else 0

    def add(self, hold: Hold) -> Place:
        """Something is held; returns where."""
        place = (hold.model, hold.seat.node)
        self._holds[hold.number] = self._groups[place][hold.number] = hold
        insort(self._ends, (hold.end, hold.number))
        return place

    def remove(self, number: int) -> Place | None:
        """Something is not held any more; returns where it was, if it was."""
        hold = self._holds.pop(number, None)
        if hold is None:
            return None
        place = (hold.model, hold.seat.node)
        del self._groups[place][number], self._ends[bisect_left(self._ends, (hold.end, number))]
        if not self._groups[place]:
            del self._groups[place]
        return place

    def ended(self, now: float) -> list[int]:
        """The numbers of what ends by then."""
        return [number for _, number in self._ends[: bisect_right(self._ends, (now, LAST))]]

    def ending(self, stays: int) -> Iterator[Place]:
        """Where the first of these stays end."""
        for _, number in self._ends[:stays]:
            hold = self._holds[number]
            yield hold.model, hold.seat.node

    def end_after(self, stays: int) -> float | None:
        """When the first ends after so many."""
        return self._ends[stays][0] if stays < len(self._ends) else None


_Order = tuple[float, ActionKind, str, str, float]
"""When a step begins, what it is, on which node, of which model (its key), and when it must be done."""
_Coming = tuple[_Order, tuple[Loading, ...], tuple[Hold, ...]]
"""Replicas of a model that come to a node, or go from it."""


class Agenda:
    """Tells the nearest steps; those it has told before are the same."""

    def __init__(self) -> None:
        self.steps: tuple[Step, ...] = ()
        self.keys: set[str] = set()
        """The bookings of which something is told in them."""
        self._told: dict[_Order, tuple[tuple[object, ...], Step]] = {}

    def note(
        self,
        admission: Admission,
        booked: Mapping[str, Booked],
        active: Active,
        loadings: Mapping[int, Loading],
        early: Collection[int],
    ) -> None:
        """Tell what comes and goes, the nearest first.

        Args:
            early: the numbers of what is loaded already, or runs still.
        """
        ends = (MAX_STEPS + 1) // 2
        found = _nearest(admission, active, ends, loadings, early)
        # there may be steps between the last of these and the next end
        while (cut := active.end_after(ends)) is not None and (
            len(found) < MAX_STEPS or found[-1][0][0] >= cut
        ):
            ends *= 2
            found = _nearest(admission, active, ends, loadings, early)
        told: dict[_Order, tuple[tuple[object, ...], Step]] = {}
        self.keys = set()
        for order, coming, going in found:
            keys = [key for hold in going for key in sorted(hold.keys)]
            keys += [key for loading in coming for key in (*sorted(loading.hold.keys), *loading.behind)]
            basis = (*going, *coming, *[booked[key] for key in keys])
            known = self._told.get(order)
            if known is None or not same(known[0], basis):
                step = _arrival(order, coming, booked) if coming else _departure(order, going, booked)
                known = (basis, step)
            told[order] = known
            self.keys.update(keys)
        self._told = told
        self.steps = tuple(step for _, step in told.values())


def same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Whether two tuples are of the very same objects."""
    return len(one) == len(other) and all(map(is_, one, other))


def _nearest(
    admission: Admission, active: Active, ends: int, loadings: Mapping[int, Loading], early: Collection[int]
) -> list[_Coming]:
    """What comes and goes first, if no more than so many ends of stays come before it."""
    return sorted(_coming(admission, active, ends, loadings, early), key=itemgetter(0))[:MAX_STEPS]


def _coming(
    admission: Admission, active: Active, ends: int, loadings: Mapping[int, Loading], early: Collection[int]
) -> Iterator[_Coming]:
    nodes = admission.book.nodes
    coming: dict[tuple[float, str, int, float], list[Loading]] = defaultdict(list)
    stays: dict[Place, list[Hold]] = defaultdict(list)
    for loading in loadings.values():
        hold = loading.hold
        stays[hold.model, hold.seat.node].append(hold)
        if hold.number not in early and loading.lead_seconds:
            coming[loading.not_before, hold.model, hold.seat.node, hold.start].append(loading)
    for (at, model, node, start), group in coming.items():
        yield (at, ActionKind.DEPLOY, nodes[node].name, model, start), tuple(group), ()
    for place in dict.fromkeys((*stays, *active.ending(ends))):
        model, node = place
        holds = [*stays.get(place, ()), *active.at(place)]
        gone = [holds[0].end]
        if len(holds) > 1:
            gone = [end for _, end in union([(hold.start, hold.end) for hold in holds])]
        for end in gone:
            last = tuple(hold for hold in holds if hold.end == end)
            yield (end, ActionKind.UNDEPLOY, nodes[node].name, model, end), (), last


def _arrival(order: _Order, loadings: tuple[Loading, ...], booked: Mapping[str, Booked]) -> Step:
    at, kind, node, _, start = order
    first = min(loadings, key=lambda loading: loading.hold.rank)
    keys = sorted({key for loading in loadings for key in loading.hold.keys})
    return Step(
        kind=kind,
        model=booked[keys[0]].model,
        node=node,
        replicas=len(loadings),
        at=_moment(at),
        done_by=_moment(start),
        until=_moment(max(loading.hold.end for loading in loadings)),
        titles=_titles(keys, booked),
        late_seconds=first.late_seconds,
        held_by=_titles(first.behind, booked) if first.late_seconds else (),
    )


def _departure(order: _Order, holds: tuple[Hold, ...], booked: Mapping[str, Booked]) -> Step:
    at, kind, node, _, _ = order
    keys = sorted({key for hold in holds for key in hold.keys})
    return Step(
        kind=kind,
        model=booked[keys[0]].model,
        node=node,
        replicas=len(holds),
        at=_moment(at),
        done_by=_moment(at),
        titles=_titles(keys, booked),
    )


def _titles(keys: Iterable[str], booked: Mapping[str, Booked]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(booked[key].reservation.title for key in keys))


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
