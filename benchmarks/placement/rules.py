"""Which node, among those with room: the three rules of the baselines."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from benchmarks.placement.instance import Bools, Instance, Ints

FAR = np.iinfo(np.int64).max


class Rule(StrEnum):
    """How a node is chosen."""

    RANDOM = "random"
    BEST = "best fit"
    FIRST = "first fit"


class Needs:
    """What each booking takes on each node; those that need the same share one answer."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._whole = instance.whole
        self._shared = instance.shared
        self._known: dict[tuple[int, int, str], tuple[Ints, Bools]] = {}

    def of(self, booking: int) -> tuple[Ints, Bools]:
        """Whole GPUs by node, 0 where none, and whether it shares a GPU there."""
        one = self._instance
        need = (int(one.footprint[booking]), int(one.asked[booking]), one.accelerator[booking])
        if need not in self._known:
            self._known[need] = (
                self._whole[booking][one.node_class],
                self._shared[booking][one.node_class],
            )
        return self._known[need]


@dataclass(frozen=True)
class Gpus:
    """The GPUs of all nodes in one row: ``first`` and ``count`` by node, ``node`` and ``bytes`` by GPU."""

    first: Ints
    count: Ints
    node: Ints
    bytes: Ints

    @staticmethod
    def of(instance: Instance) -> Gpus:
        """Those of an instance."""
        count = instance.node_gpus
        node = np.repeat(np.arange(instance.nodes), count)
        return Gpus(np.cumsum(count) - count, count, node, instance.node_gpu_bytes[node])


@dataclass(frozen=True)
class Chosen:
    """A node, and the GPUs on it; ``shares`` if only a part of the one is taken."""

    node: int
    gpus: list[int]
    shares: bool


def choose(
    gpus: Gpus, free: Ints, need: tuple[Ints, Bools], footprint: int, rule: Rule, rng: np.random.Generator
) -> Chosen | None:
    """GPUs for a booking, or None.

    Best fit is where it draws the least memory (all of its whole GPUs, or its share), on the smallest
    kind of GPU, and then where the least is left: idle GPUs of the node, or memory of the GPU.

    Args:
        free: bytes free on each GPU, for as long as the booking lasts.
    """
    whole, shared = need
    idle = np.add.reduceat((free == gpus.bytes).astype(np.int64), gpus.first)
    room = (free >= footprint) & shared[gpus.node]
    fits = (whole > 0) & (idle >= whole) | np.logical_or.reduceat(room, gpus.first)
    found = np.flatnonzero(fits)
    if not len(found):
        return None
    if rule is Rule.RANDOM:
        node = int(rng.choice(found))
    elif rule is Rule.FIRST:
        node = int(found[0])
    else:
        tightest = np.minimum.reduceat(np.where(room, free, FAR), gpus.first)
        memory = gpus.bytes[gpus.first[found]]
        drawn = np.where(shared[found], footprint, whole[found] * memory)
        left = np.where(shared[found], tightest[found], (idle - whole)[found])
        node = int(found[np.lexsort((left, memory, drawn))[0]])
    own = slice(int(gpus.first[node]), int(gpus.first[node] + gpus.count[node]))
    if shared[node]:
        rooms = np.where(room[own], free[own], FAR)
        best = int(rooms.argmin() if rule is Rule.BEST else room[own].argmax())
        return Chosen(node, [own.start + best], True)
    unused = np.flatnonzero(free[own] == gpus.bytes[own])[: int(whole[node])]
    return Chosen(node, [own.start + int(one) for one in unused], False)
