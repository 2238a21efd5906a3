"""What a need comes to on each node, whatever else is there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from calendars.reservation import MAX_GPUS
from scheduler.cluster.node import DeviceKind, Node
from scheduler.planning.footprint import SHARE_STEPS, gpus_needed
from scheduler.planning.profile import Units

NO_SHARE = np.int32(SHARE_STEPS + 1)
"""More than any device has."""
NOWHERE = 1 << 30
"""The cost of what cannot be."""
SIGNS = re.compile(r"[^a-z0-9]")


@dataclass(frozen=True, slots=True)
class Need:
    """What one replica takes: bytes, and what it insists on.

    ``gpus`` are whole GPUs asked for, ``accelerator`` a kind of GPU (any part of its name will do).
    """

    footprint_bytes: int
    gpus: int | None = None
    accelerator: str | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """What one kind of need comes to, by node: whole GPUs, or units of a share; 0 where neither.

    ``drawn`` is the memory of the whole GPUs it takes, in bytes, and for each of them that of the largest
    there is: fewer GPUs come before less memory. ``cost`` ranks the open nodes by that, for a share by the
    one GPU that must be free for it, ``NOWHERE`` where it cannot be; its lower bits are left to what is free.
    ``takes`` are the GPUs that must be. ``on_gpu`` and ``on_cpu`` are the shares on open nodes of that kind,
    ``NO_SHARE`` where there is none, and None if there is none at all.
    ``possible``: some node could seat it if nothing of anybody ran; ``shares``: on some it takes a share,
    ``wholes``: on some whole GPUs.
    """

    whole: Units
    share: Units
    takes: Units
    cost: NDArray[np.uint32]
    drawn: NDArray[np.float64]
    on_gpu: Units | None
    on_cpu: Units | None
    possible: bool
    shares: bool
    wholes: bool

    def best(self, pool: Units) -> int | None:
        """The open node where it draws least of what is free there of GPUs that nobody uses yet, of such the
        fullest; or None.
        """
        # without a sign, less than none is more than anything
        ranks = (pool - self.takes).view(np.uint32) | self.cost
        best = int(ranks.argmin())
        return best if ranks[best] < NOWHERE else None


class Kinds:
    """The nodes of a cluster, of which those that are alike to any need are one kind.

    By node: ``memory`` of one device in bytes, the number of ``devices``, whether it is a ``cpu``, and
    whether it is ``open`` to what is new.

    Args:
        most: the most GPUs that are free on any node.
    """

    def __init__(self, nodes: Sequence[Node], most: int) -> None:
        self.memory = np.array([_device_bytes(node) for node in nodes], dtype=np.float64)
        self.cpu = np.array([node.kind is DeviceKind.CPU for node in nodes], dtype=np.bool_)
        self.open = np.array([not node.closed for node in nodes], dtype=np.bool_)
        self.devices = np.array([len(node.devices) for node in nodes], dtype=np.int32)
        alike = [
            (len(one.devices), _device_bytes(one), one.kind, one.accelerator, one.closed) for one in nodes
        ]
        firsts: dict[tuple[object, ...], int] = {}
        for number, kind in enumerate(alike):
            firsts.setdefault(kind, number)
        kinds = {kind: number for number, kind in enumerate(firsts)}
        self._of_node = np.array([kinds[kind] for kind in alike], dtype=np.intp)
        self._samples = [nodes[number] for number in firsts.values()]
        self._firsts = np.array([*firsts.values()], dtype=np.intp)
        self._free_bits = most.bit_length()

    def fit(self, need: Need) -> Fit:
        """What a need comes to on each."""
        on_kinds = [units_on(node, need) for node in self._samples]
        whole, share = np.array(on_kinds, dtype=np.int32).reshape(-1, 2).T
        is_open, cpu = self.open[self._firsts], self.cpu[self._firsts]
        takes = np.maximum(whole, share > 0)
        # fewer GPUs come before less memory
        worth = takes * (self.memory[self._firsts] + self.memory.max(initial=0.0))
        rank = np.searchsorted(np.sort(worth), worth)
        cost = np.where((takes > 0) & is_open, rank << self._free_bits, NOWHERE)
        on_gpu, on_cpu = (np.where((share > 0) & is_open & here, share, NO_SHARE) for here in (~cpu, cpu))
        by_kind = np.array((whole, share, takes, cost, on_gpu, on_cpu), dtype=np.int32)
        by_node = by_kind.take(self._of_node, axis=1)
        return Fit(
            whole=by_node[0],
            share=by_node[1],
            takes=by_node[2],
            cost=by_node[3].view(np.uint32),
            drawn=np.where(whole > 0, worth, 0.0)[self._of_node],
            on_gpu=by_node[4] if (on_gpu < NO_SHARE).any() else None,
            on_cpu=by_node[5] if (on_cpu < NO_SHARE).any() else None,
            possible=bool(((takes > 0) & (whole <= self.devices[self._firsts])).any()),
            shares=bool((share > 0).any()),
            wholes=bool((whole > 0).any()),
        )


def units_on(node: Node, need: Need) -> tuple[int, int]:
    """What a replica takes on a node: whole GPUs, or ten-thousandths of one device; ``(0, 0)`` if neither."""
    memory = _device_bytes(node)
    if memory <= 0 or need.footprint_bytes < 0:
        return 0, 0
    if need.accelerator is not None and not _is_a(node.accelerator, need.accelerator):
        return 0, 0
    if node.kind is DeviceKind.CPU:
        share = ceil(need.footprint_bytes / memory * SHARE_STEPS)
        return 0, max(share, 1) if need.gpus is None and share <= SHARE_STEPS else 0
    gpus = gpus_needed(need.footprint_bytes, memory, need.gpus)
    if gpus < 1:
        return 0, max(round(gpus * SHARE_STEPS), 1)
    return min(int(gpus), MAX_GPUS), 0


def _is_a(accelerator: str | None, wanted: str) -> bool:
    """Whether a kind of GPU is the one asked for; ``A100 80GB`` is an ``NVIDIA-A100-80G``."""
    has, asked = (SIGNS.sub("", name.casefold()).replace("gb", "g") for name in (accelerator or "", wanted))
    return asked in has


def _device_bytes(node: Node) -> int:
    return node.devices[0].memory_bytes if node.devices else 0
