"""When a need finds room, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

FOREVER = float("inf")


@dataclass(frozen=True)
class Openings:
    """When a need would find room: ``free`` by instant and column, each column on the node in ``on``."""

    instants: NDArray[np.float64]
    free: NDArray[np.bool_]
    on: NDArray[np.intp]

    @cached_property
    def _ends(self) -> NDArray[np.int32]:
        """Until which instant, by its number, each column stays free from each instant on."""
        rows = np.arange(len(self.instants), dtype=np.int32)[:, None]
        ends = np.where(self.free, np.int32(len(self.instants)), rows)
        np.minimum.accumulate(ends[::-1], axis=0, out=ends[::-1])
        return ends

    def first(self, seconds: float) -> tuple[float, int] | None:
        """The first instant from which some node is free that long, and the node."""
        if not self.free.size:
            return None
        needed = np.searchsorted(np.append(self.instants, FOREVER), self.instants + seconds)
        found = np.flatnonzero(self._ends.max(axis=1) >= needed)
        if not len(found):
            return None
        return float(self.instants[found[0]]), int(self.on[self._ends[found[0]].argmax()])

    def longest(self) -> tuple[float, int] | None:
        """Until when some node stays free from the first instant on, the longest there is, and the node."""
        if not self.free.size or not self.free[0].any():
            return None
        best = int(self._ends[0].argmax())
        until = int(self._ends[0, best])
        return float(self.instants[until]) if until < len(self.instants) else FOREVER, int(self.on[best])
