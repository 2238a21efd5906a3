"""Instances small enough to be judged by hand or by trying everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.placement.instance import REFUSED, WHOLE, Instance, NodeClass, Result, nothing_placed

GB = 10**9


@dataclass(frozen=True)
class Booking:
    """One booking, in slots and GB; ``gpus`` 0 shares a GPU if it is small enough."""

    start: int
    end: int
    gb: float = 10
    gpus: int = 1
    priority: int = 1
    kind: str = ""
    booked: float = -1.0


def instance(nodes: Sequence[tuple[int, int]], *bookings: Booking, slots: int = 16) -> Instance:
    """Nodes as (GPUs, GB of each), whose kind of GPU is named by its GB: ``80G``."""
    known = sorted(set(nodes))
    return Instance(
        name="small",
        slots=slots,
        classes=tuple(NodeClass(f"{gb}G", gpus, gb * GB) for gpus, gb in known),
        node_class=np.array([known.index(one) for one in nodes]),
        start=np.array([one.start for one in bookings], dtype=np.int64),
        end=np.array([one.end for one in bookings], dtype=np.int64),
        footprint=np.array([int(one.gb * GB) for one in bookings], dtype=np.int64),
        asked=np.array([one.gpus for one in bookings], dtype=np.int64),
        accelerator=tuple(one.kind for one in bookings),
        priority=np.array([one.priority for one in bookings], dtype=np.int64),
        booked=np.array([one.booked for one in bookings], dtype=np.float64),
    )


def result(given: Instance, *seats: tuple[int, int] | None) -> Result:
    """Seats as (node, lane), None where refused."""
    found = nothing_placed(given)
    for number, seat in enumerate(seats):
        found.node[number], found.lane[number] = seat or (REFUSED, WHOLE)
    return found
