"""Replays what a policy answered, GPU by GPU; knows nothing of how it came to it."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from benchmarks.placement.instance import REFUSED, SLOT_SECONDS, WHOLE, Floats, Instance, Result

LEAD_BASE_SECONDS = 30.0
LOAD_BYTES_PER_SECOND = 200 * 2**20


class Overbooked(AssertionError):
    """A placement that cannot be."""


@dataclass
class _Lane:
    """A GPU that is shared: what each booking has of it, and what was taken of it from when on."""

    gpu: int
    on: dict[int, int] = field(default_factory=dict)
    history: list[tuple[float, int]] = field(default_factory=list)

    def note(self, slot: float) -> None:
        self.history.append((slot, sum(self.on.values())))

    def roomy_since(self, room: int) -> float:
        """Since when no more than that was taken, without a break."""
        since = math.inf
        for slot, taken in reversed(self.history):
            if taken > room:
                break
            since = slot
        return since


@dataclass
class _Node:
    """The GPUs of one node at an instant of the replay; an idle one with the slot since when it is."""

    number: int
    gpu_bytes: int
    idle: dict[int, float]
    held: dict[int, list[int]] = field(default_factory=dict)
    lanes: dict[int, _Lane] = field(default_factory=dict)

    def _draw(self, booking: int, gpus: int) -> tuple[list[int], float]:
        """The GPUs that were idle longest, and since when all of them are."""
        if len(self.idle) < gpus:
            raise Overbooked(
                f"booking {booking} needs {gpus} GPUs of node {self.number}, {len(self.idle)} are idle"
            )
        drawn = sorted(self.idle, key=lambda gpu: (self.idle[gpu], gpu))[:gpus]
        return drawn, max(self.idle.pop(gpu) for gpu in drawn)

    def begin(self, booking: int, gpus: int) -> float:
        """Whole GPUs; returns since when they were free."""
        self.held[booking], since = self._draw(booking, gpus)
        return since

    def share(self, booking: int, name: int, bytes_: int, slot: float) -> float:
        """A part of one GPU; returns since when it was free."""
        if name not in self.lanes:
            (gpu,), since = self._draw(booking, 1)
            self.lanes[name] = _Lane(gpu, history=[(since, 0)])
        lane = self.lanes[name]
        since = lane.roomy_since(self.gpu_bytes - bytes_)
        lane.on[booking] = bytes_
        lane.note(slot)
        if lane.history[-1][1] > self.gpu_bytes:
            raise Overbooked(
                f"{lane.history[-1][1]} bytes on lane {name} of node {self.number}, not {self.gpu_bytes}"
            )
        return since

    def end(self, booking: int, name: int, slot: float) -> None:
        if name == WHOLE:
            self.idle.update(dict.fromkeys(self.held.pop(booking), slot))
            return
        lane = self.lanes[name]
        del lane.on[booking]
        lane.note(slot)
        if not lane.on:
            # its GPU has had room for anything since now only
            self.idle[self.lanes.pop(name).gpu] = slot


def check(instance: Instance, result: Result) -> Floats:
    """Give every booking that was placed its GPUs at its start, and take them back at its end.

    GPUs are named here: a booking keeps the same ones from its start to its end, and so does a lane while
    anything is on it. Any idle GPU will do, since stays are intervals: if their number fits at each
    instant, whichever are given out first, the rest have enough.

    Returns:
        How late each booking is, in seconds: what of its loading time its room was not free before
        its start. All of it where nothing was decided before. Nothing is told of what began with the
        instance.

    Raises:
        Overbooked: a GPU is short at some instant, or a booking is where it can never be.
    """
    events: dict[int, list[tuple[int, bool, int]]] = defaultdict(list)
    for booking in np.flatnonzero(result.node != REFUSED).tolist():
        node = int(result.node[booking])
        if not 0 <= node < instance.nodes:
            raise Overbooked(f"booking {booking} is on node {node}, there are {instance.nodes}")
        # what ends at an instant goes before what starts: windows are half-open
        events[node].append((int(instance.start[booking]), True, booking))
        events[node].append((int(instance.end[booking]), False, booking))
    late = np.zeros(len(instance))
    lead = LEAD_BASE_SECONDS + instance.footprint / LOAD_BYTES_PER_SECOND
    for number, found in events.items():
        for booking, free_seconds in _replay(instance, result, number, sorted(found)):
            ahead = 0.0 if result.decided_at_start else free_seconds
            late[booking] = max(0.0, lead[booking] - ahead)
    late[instance.start == 0] = 0.0
    return late


def _replay(
    instance: Instance, result: Result, number: int, events: list[tuple[int, bool, int]]
) -> list[tuple[int, float]]:
    """How long before its start the room of each booking was free, in seconds."""
    kind = int(instance.node_class[number])
    one = instance.classes[kind]
    node = _Node(number, one.gpu_bytes, dict.fromkeys(range(one.gpus), -math.inf))
    found = []
    for slot, begins, booking in events:
        lane = int(result.lane[booking])
        if not begins:
            node.end(booking, lane, slot)
            continue
        if lane == WHOLE:
            gpus = int(instance.whole[booking, kind])
            if not gpus:
                raise Overbooked(f"booking {booking} has whole GPUs of node {number}, where it takes none")
            since = node.begin(booking, gpus)
        else:
            if not instance.shared[booking, kind]:
                raise Overbooked(f"booking {booking} shares a GPU of node {number}, where it cannot")
            since = node.share(booking, lane, int(instance.footprint[booking]), slot)
        found.append((booking, (slot - since) * SLOT_SECONDS))
    return found
