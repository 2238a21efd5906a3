"""What will be done later: models that come, and models that go."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import is_

from scheduler.planning.admission import Admission
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
        late = self.ready - self.hold.start
        return late if late >= PUNCTUAL_SECONDS else 0.0


@dataclass(frozen=True, slots=True)
class _Coming:
    """Replicas of a model that come to a node (``loadings``), or go from it (``holds``)."""

    at: float
    kind: ActionKind
    node: str
    model: str
    start: float
    loadings: tuple[Loading, ...] = ()
    holds: tuple[Hold, ...] = ()

    @property
    def order(self) -> tuple[object, ...]:
        return (self.at, self.kind, self.node, self.model, self.start)


class Agenda:
    """Tells the nearest steps; those it has told before are the same."""

    def __init__(self) -> None:
        self._told: dict[tuple[object, ...], tuple[tuple[object, ...], Step]] = {}

    def steps(
        self,
        admission: Admission,
        booked: Mapping[str, Booked],
        active: Iterable[Hold],
        loadings: Mapping[int, Loading],
        early: set[int],
    ) -> tuple[Step, ...]:
        """What comes and goes, the nearest first.

        Args:
            active: what is held now.
            early: the numbers of what is loaded already.
        """
        found = heapq.nsmallest(
            MAX_STEPS, _coming(admission, active, loadings, early), key=lambda one: one.order
        )
        told: dict[tuple[object, ...], tuple[tuple[object, ...], Step]] = {}
        for one in found:
            keys = {key for hold in one.holds for key in hold.keys}
            keys |= {key for loading in one.loadings for key in (*loading.hold.keys, *loading.behind)}
            basis = (*one.holds, *one.loadings, *(booked[key] for key in sorted(keys)))
            known = self._told.get(one.order)
            if known is None or not same(known[0], basis):
                known = (basis, _arrival(one, booked) if one.loadings else _departure(one, booked))
            told[one.order] = known
        self._told = told
        return tuple(step for _, step in told.values())


def same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Whether two tuples are of the very same objects."""
    return len(one) == len(other) and all(map(is_, one, other))


def _coming(
    admission: Admission, active: Iterable[Hold], loadings: Mapping[int, Loading], early: set[int]
) -> Iterator[_Coming]:
    nodes = admission.book.nodes
    coming: dict[tuple[str, int, float], list[Loading]] = defaultdict(list)
    stays: dict[tuple[str, int], list[Hold]] = defaultdict(list)
    for loading in loadings.values():
        hold = loading.hold
        stays[hold.model, hold.seat.node].append(hold)
        if hold.number not in early and loading.lead_seconds:
            coming[hold.model, hold.seat.node, hold.start].append(loading)
    for hold in active:
        stays[hold.model, hold.seat.node].append(hold)
    for (model, node, start), group in coming.items():
        first = min(group, key=lambda one: one.hold.rank)
        yield _Coming(
            first.not_before, ActionKind.DEPLOY, nodes[node].name, model, start, loadings=tuple(group)
        )
    for (model, node), holds in stays.items():
        ends = [holds[0].end]
        if len(holds) > 1:
            ends = [end for _, end in union([(hold.start, hold.end) for hold in holds])]
        for end in ends:
            last = tuple(hold for hold in holds if hold.end == end)
            yield _Coming(end, ActionKind.UNDEPLOY, nodes[node].name, model, end, holds=last)


def _arrival(one: _Coming, booked: Mapping[str, Booked]) -> Step:
    first = min(one.loadings, key=lambda loading: loading.hold.rank)
    keys = sorted({key for loading in one.loadings for key in loading.hold.keys})
    return Step(
        kind=one.kind,
        model=booked[keys[0]].model,
        node=one.node,
        replicas=len(one.loadings),
        at=_moment(one.at),
        done_by=_moment(one.start),
        until=_moment(max(loading.hold.end for loading in one.loadings)),
        titles=_titles(keys, booked),
        late_seconds=first.late_seconds,
        held_by=_titles(first.behind, booked) if first.late_seconds else (),
    )


def _departure(one: _Coming, booked: Mapping[str, Booked]) -> Step:
    keys = sorted({key for hold in one.holds for key in hold.keys})
    return Step(
        kind=one.kind,
        model=booked[keys[0]].model,
        node=one.node,
        replicas=len(one.holds),
        at=_moment(one.at),
        done_by=_moment(one.at),
        titles=_titles(keys, booked),
    )


def _titles(keys: Iterable[str], booked: Mapping[str, Booked]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(booked[key].reservation.title for key in keys))


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
