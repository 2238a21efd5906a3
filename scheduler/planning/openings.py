"""When a need finds room, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

FOREVER = float("inf")


@dataclass(frozen=True)
class Openings:
    """When a need would find room: ``free`` by column and instant, each column on the node in ``on``."""

    instants: NDArray[np.float64]
    free: NDArray[np.bool_]
    on: NDArray[np.intp]

    @cached_property
    def _spells(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
        """When columns begin to be free and cease to be, and which; column by column."""
        columns, count = self.free.shape
        # one instant more at which none is free, and one before all
        free = np.zeros(1 + columns * (count + 1), dtype=np.bool_)
        free[1:].reshape(columns, count + 1)[:, :count] = self.free
        turns = np.flatnonzero(free[1:] != free[:-1])
        begins, ends = turns[::2], turns[1::2]
        instants = np.append(self.instants, FOREVER)
        return instants[begins % (count + 1)], instants[ends % (count + 1)], begins // (count + 1)

    def first(self, seconds: float) -> tuple[float, int] | None:
        """The first instant from which some node is free that long, and the node."""
        begins, ends, columns = self._spells
        found = np.flatnonzero(ends >= begins + seconds)
        if not len(found):
            return None
        best = found[begins[found].argmin()]
        return float(begins[best]), int(self.on[columns[best]])

    def longest(self) -> tuple[float, int] | None:
        """Until when some node stays free from the first instant on, the longest there is, and the node."""
        begins, ends, columns = self._spells
        found = np.flatnonzero(begins == self.instants[0])
        if not len(found):
            return None
        best = found[ends[found].argmax()]
        return float(ends[best]), int(self.on[columns[best]])
