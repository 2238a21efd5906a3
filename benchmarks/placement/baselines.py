"""What others do: decide when a booking starts; fix the node when it is booked; look ahead greedily."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from benchmarks.placement.desk import promised
from benchmarks.placement.instance import (
    WHOLE,
    Floats,
    Instance,
    Ints,
    Policy,
    Result,
    Setting,
    nothing_placed,
)
from benchmarks.placement.rules import Chosen, Gpus, Needs, Rule, choose


def baseline(rule: Rule, seed: int = 0) -> Policy:
    """Decides at the start where the setting is free, and fixes the node at booking where it promises.

    At the start it is the largest first, and at random among the nodes with room, that is NDIF's way; best
    fit goes by priority and then by size, first fit by the order of booking.
    """

    def policy(instance: Instance, setting: Setting) -> Result:
        rng = np.random.default_rng(seed)
        if setting is Setting.FREE:
            return _at_start(instance, rule, rng)
        return promised(instance, Timeline(instance, rule, rng))

    return policy


def look_ahead(instance: Instance, setting: Setting) -> Result:
    """The heaviest first, on the first node that is free for all of its window; knows all that comes."""
    timeline = Timeline(instance, Rule.FIRST, np.random.default_rng(0))
    for booking in np.argsort(-instance.weight, kind="stable").tolist():
        timeline.book(booking)
    return timeline.result


def _at_start(instance: Instance, rule: Rule, rng: np.random.Generator) -> Result:
    result, gpus, needs = nothing_placed(instance), Gpus.of(instance), Needs(instance)
    result.decided_at_start = True
    free = gpus.bytes.copy()
    ending: dict[int, list[tuple[Chosen, int]]] = defaultdict(list)
    starting: dict[int, list[int]] = defaultdict(list)
    for booking in _order(instance, rule, rng):
        starting[int(instance.start[booking])].append(booking)
    for instant in sorted({*starting, *instance.end.tolist()}):
        for chosen, taken in ending.pop(instant, ()):
            free[chosen.gpus] += taken
        for booking in starting.get(instant, ()):
            footprint = int(instance.footprint[booking])
            found = choose(gpus, free, needs.of(booking), footprint, rule, rng)
            if found is not None:
                taken = footprint if found.shares else int(gpus.bytes[found.gpus[0]])
                free[found.gpus] -= taken
                ending[int(instance.end[booking])].append((found, taken))
                _note(result, gpus, booking, found)
    return result


def _order(instance: Instance, rule: Rule, rng: np.random.Generator) -> Iterable[int]:
    keys: tuple[Floats | Ints, ...] = (instance.booked,)
    if rule is Rule.RANDOM:
        keys = (rng.random(len(instance)), -instance.footprint)
    elif rule is Rule.BEST:
        keys = (-instance.footprint, -instance.priority)
    order: list[int] = np.lexsort(keys).tolist()
    return order


def _note(result: Result, gpus: Gpus, booking: int, found: Chosen) -> None:
    result.node[booking] = found.node
    result.lane[booking] = found.gpus[0] - gpus.first[found.node] if found.shares else WHOLE


class Timeline:
    """Memory free on each GPU in each slot; a booking is put on its GPUs once and for all."""

    def __init__(self, instance: Instance, rule: Rule, rng: np.random.Generator) -> None:
        self.instance, self.rule, self.rng = instance, rule, rng
        self.result = nothing_placed(instance)
        self.gpus, self._needs = Gpus.of(instance), Needs(instance)
        self.free = np.tile(self.gpus.bytes, (instance.slots, 1))

    def book(self, booking: int) -> bool:
        """The verdict."""
        one = self.instance
        window = slice(int(one.start[booking]), int(one.end[booking]))
        footprint = int(one.footprint[booking])
        least = self.free[window].min(axis=0)
        found = choose(self.gpus, least, self._needs.of(booking), footprint, self.rule, self.rng)
        if found is None:
            return False
        taken = footprint if found.shares else int(self.gpus.bytes[found.gpus[0]])
        for gpu in found.gpus:
            self.free[window, gpu] -= taken
        _note(self.result, self.gpus, booking, found)
        return True

    def seat(self, booking: int) -> tuple[int, int]:
        """The node and the lane it is on."""
        return int(self.result.node[booking]), int(self.result.lane[booking])
