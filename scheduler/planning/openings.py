"""When a need finds room, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Openings:
    """When a need would find room: ``free`` by instant and column, each column on the node in ``on``."""

    instants: NDArray[np.float64]
    free: NDArray[np.bool_]
    on: NDArray[np.intp]

    def _until(self) -> NDArray[np.float64]:
        """Until when each column stays free from each instant on."""
        ends = np.where(self.free, len(self.instants), np.arange(len(self.instants))[:, None])
        until = np.minimum.accumulate(ends[::-1], axis=0)[::-1]
        return np.append(self.instants, FOREVER)[until]

    def first(self, seconds: float) -> float | None:
        """The first instant from which some node is free that long."""
        if not self.free.size:
            return None
        long_enough = (self._until() - self.instants[:, None] >= seconds) & self.free
        found = np.flatnonzero(long_enough.any(axis=1))
        return float(self.instants[found[0]]) if len(found) else None

    def longest(self) -> tuple[int, float] | None:
        """The node that stays free longest from the first instant on, and until when."""
        if not self.free.size or not self.free[0].any():
            return None
        until = np.where(self.free[0], self._until()[0], 0.0)
        best = int(until.argmax())
        return int(self.on[best]), float(until[best])
