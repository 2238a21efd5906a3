"""What a booking asks for, and what is held for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from scheduler.cluster.node import Node
from scheduler.planning.book import Seat
from scheduler.planning.needs import Need, units_on
from scheduler.types import Deployment

NO_SEAT = Seat(0, None, 0)
"""Of what has none yet."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One booking as the book sees it; ``start``, ``end`` and ``lead`` in seconds (since the epoch).

    ``lead`` is how long before its start loading begins.
    """

    key: str
    model: str
    need: Need
    replicas: int
    start: float
    end: float
    lead: float = 0.0
    priority: int = 0
    booked_at: float = 0.0

    @property
    def claim(self) -> tuple[int, float, str]:
        """Who comes first: the smaller one."""
        return (-self.priority, self.booked_at, self.key)


@dataclass(frozen=True, slots=True)
class Hold:
    """A replica of a model that has a seat during ``[start, end)``, for the bookings in ``keys``.

    ``settled``: it has started or is being loaded, and is not moved. ``kept_until``: nobody may
    displace it before.
    """

    number: int
    model: str
    need: Need
    seat: Seat
    start: float
    end: float
    keys: frozenset[str]
    priority: int
    settled: bool = False
    kept_until: float = 0.0
    _rank: tuple[object, ...] | None = field(default=None, init=False, compare=False, repr=False)

    @property
    def rank(self) -> tuple[object, ...]:
        """The order in which holds are told; no two that differ have the same."""
        if self._rank is None:
            lane = -1 if self.seat.lane is None else self.seat.lane
            keys, is_pending = sorted(self.keys), not self.settled
            rank = (self.start, self.end, self.model, self.seat.node, lane, keys, is_pending)
            object.__setattr__(self, "_rank", rank)
        return cast(tuple[object, ...], self._rank)

    def seated(self, number: int, seat: Seat) -> Hold:
        """The same, by another number or on another seat."""
        return Hold(
            number,
            self.model,
            self.need,
            seat,
            self.start,
            self.end,
            self.keys,
            self.priority,
            self.settled,
            self.kept_until,
        )

    @property
    def volume(self) -> float:
        """What moving it would move: memory and time."""
        return self.need.footprint_bytes * (self.end - self.start)


def wanted_by(ask: Ask, need: Need, start: float, end: float, settled: bool = False) -> Hold:
    """A hold that has no seat yet."""
    return Hold(-1, ask.model, need, NO_SEAT, start, end, frozenset({ask.key}), ask.priority, settled)


def shared(needs: Iterable[Need]) -> Need:
    """What a replica takes that several share, the strongest claim first.

    That one decides. On which kind of GPU it is, the first decides that names one.
    """
    first, *others = needs
    if not others:
        return first
    accelerator = next((need.accelerator for need in (first, *others) if need.accelerator), None)
    return first if accelerator == first.accelerator else replace(first, accelerator=accelerator)


def alike(node: Node, one: Need, other: Need) -> bool:
    """Whether replicas of a model on a node can be one application: all take the same, at one precision."""
    if one is other or one == other:
        return True
    same = one.footprint_bytes == other.footprint_bytes
    return same and units_on(node, one) == units_on(node, other)


def runs_with(one: Deployment) -> Need:
    """What a replica of what runs takes."""
    return Need(one.footprint_bytes, round(one.num_gpus) if one.num_gpus >= 1 else None)


def union(windows: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Windows joined where they touch or overlap."""
    joined: list[tuple[float, float]] = []
    for start, end in sorted(windows):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
