"""What can be seen without a solver: an instant at which more is needed than there is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scheduler.planning.book import WHOLE
from scheduler.planning.exact.words import Option

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
MAX_GROUPS = 24
"""Sets of nodes that are looked at; bounds the work."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Something that is needed during slots ``[first, last)``, in one of the rooms of its ``options``."""

    first: int
    last: int
    options: tuple[Option, ...]
    asked: bool


def full_at(
    demands: Sequence[Demand],
    pool: Sequence[Ints],
    free: Sequence[Sequence[Ints]],
    drawn: Sequence[Sequence[Bools]],
) -> int | None:
    """The slot at which some nodes lack most for what can only be on them, or None.

    Args:
        demands: what is needed.
        pool: whole GPUs that are left, by room and slot.
        free: units that are left on lanes, by room, lane and slot.
        drawn: whether a lane has a device already, by room, lane and slot.
    """
    slots = len(pool[0]) if pool else 0
    best: tuple[float, int] | None = None
    for group in _groups(demands):
        bound = [demand for demand in demands if group.issuperset(o.room for o in demand.options)]
        for needed, there_is in _measures(bound, sorted(group), pool, free, drawn, slots):
            lack = needed - there_is
            slot = int(lack.argmax()) if slots else 0
            if slots and lack[slot] > 1e-9 and (best is None or lack[slot] > best[0]):
                best = float(lack[slot]), slot
    return best[1] if best else None


def _groups(demands: Sequence[Demand]) -> list[frozenset[int]]:
    """Sets of rooms that what is asked for cannot leave, the smallest first."""
    asked = frozenset(o.room for demand in demands if demand.asked for o in demand.options)
    sets = {asked} | {asked | {o.room for o in demand.options} for demand in demands}
    sets.add(frozenset().union(*sets))
    return sorted(map(frozenset, sets), key=lambda rooms: (len(rooms), sorted(rooms)))[:MAX_GROUPS]


def _measures(
    bound: Sequence[Demand],
    rooms: Sequence[int],
    pool: Sequence[Ints],
    free: Sequence[Sequence[Ints]],
    drawn: Sequence[Sequence[Bools]],
    slots: int,
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """What is needed and what there is, slot by slot, by measures of which none may be exceeded."""
    nothing = np.zeros(slots)
    gpus = sum((np.maximum(pool[room], 0) for room in rooms), nothing)
    parts, halves = nothing.copy(), nothing.copy()
    for room in rooms:
        for units, there in zip(free[room], drawn[room], strict=True):
            parts += np.where(there, units / WHOLE, 0.0)
            halves += there & (units > WHOLE // 2)
    yield _over_time(bound, [_least(demand) for demand in bound], slots), gpus + parts
    large = [float(all(not o.shared or 2 * o.units > WHOLE for o in demand.options)) for demand in bound]
    counted = [
        max(min((o.units if not o.shared else 1) for o in demand.options), 1) * one if demand.options else 1.0
        for demand, one in zip(bound, large, strict=True)
    ]
    yield _over_time(bound, counted, slots), gpus + halves
    whole = [_least(demand) if not any(o.shared for o in demand.options) else 0.0 for demand in bound]
    for size in sorted({int(gpus) for gpus in whole if gpus > 1}):
        together = sum((np.maximum(pool[room], 0) // size for room in rooms), nothing)
        yield _over_time(bound, [float(gpus // size) for gpus in whole], slots), together


def _least(demand: Demand) -> float:
    """GPUs it takes wherever it takes least."""
    return min((option.gpus for option in demand.options), default=1.0)


def _over_time(bound: Sequence[Demand], amounts: Sequence[float], slots: int) -> NDArray[np.float64]:
    steps = np.zeros(slots + 1)
    for demand, amount in zip(bound, amounts, strict=True):
        steps[demand.first] += amount
        steps[demand.last] -= amount
    return np.cumsum(steps[:-1])
