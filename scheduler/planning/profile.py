"""Free units over time, and the least of them over any window: the arithmetic below the book."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Units = NDArray[np.int32]

BLOCK = 32
"""Slots of which the least is kept. A window is at most two parts of blocks, and whole ones between."""
NO_SLOT = np.int32(1 << 30)
"""Stands where no slot is yet, and is never the least."""


class Profile:
    """What is free in each column during each slot of time, with minima over ranges of slots.

    A table of slots by columns, and a smaller one of what is least in each block of slots: a query
    reduces few rows, a change touches one column.
    """

    def __init__(self, slots: int, free: Units) -> None:
        self.slots = slots
        blocks = slots // BLOCK + 1
        self._free = np.full((blocks * BLOCK, len(free)), NO_SLOT, dtype=np.int32)
        self._free[:slots] = free
        self._least = self._reduced(0)

    @property
    def columns(self) -> int:
        """How many there are."""
        return self._free.shape[1]

    def rows(self, first: int) -> Units:
        """What is free from a slot on, by slot and column."""
        return self._free[first : self.slots]

    def least(self, first: int, last: int) -> Units:
        """The least that is free in each column during slots ``[first, last)``, at least one."""
        low, high = -(-first // BLOCK), last // BLOCK
        if low >= high:
            few: Units = np.minimum.reduce(self._free[first:last], axis=0)
            return few
        least: Units = np.minimum.reduce(self._least[low:high], axis=0)
        if first < low * BLOCK:
            np.minimum(least, np.minimum.reduce(self._free[first : low * BLOCK], axis=0), out=least)
        if high * BLOCK < last:
            np.minimum(least, np.minimum.reduce(self._free[high * BLOCK : last], axis=0), out=least)
        return least

    def lowest(self, column: int, first: int, last: int) -> int:
        """The least that is free in one column during slots ``[first, last)``."""
        return int(np.minimum.reduce(self._free[first:last, column], initial=NO_SLOT))

    def column(self, column: int, first: int, last: int) -> Units:
        """What is free in one column, slot by slot."""
        return self._free[first:last, column]

    def take(self, column: int, first: int, last: int, units: int | Units) -> None:
        """Take units away during slots ``[first, last)``, so many or those of each slot; a negative number
        gives them back.
        """
        if first >= last:
            return
        self._free[first:last, column] -= units
        low, high = first // BLOCK, -(-last // BLOCK)
        blocks = self._free[low * BLOCK : high * BLOCK, column].reshape(-1, BLOCK)
        np.minimum.reduce(blocks, axis=1, out=self._least[low:high, column])

    def reset(self, column: int, free: int) -> None:
        """All of a column is free as told, at all times."""
        self._free[: self.slots, column] = free
        self._least[: -(-self.slots // BLOCK), column] = free

    def widen(self, free: Units) -> None:
        """More columns, free as told at all times."""
        self._free = np.hstack((self._free, np.tile(free, (len(self._free), 1))))
        self._free[self.slots :] = NO_SLOT
        self._least = self._reduced(0)

    def split(self, slot: int) -> None:
        """Make two slots of one."""
        if self.slots == len(self._free):
            spare = max(len(self._free) // 4 // BLOCK, 1) * BLOCK
            self._free = np.vstack((self._free, np.full((spare, self.columns), NO_SLOT)))
            self._least = np.vstack((self._least, np.full((spare // BLOCK, self.columns), NO_SLOT)))
        self._free[slot + 1 : self.slots + 1] = self._free[slot : self.slots]
        self.slots += 1
        changed = slot // BLOCK
        self._least[changed:] = self._reduced(changed)

    def _reduced(self, block: int) -> Units:
        """What is least in each block from one on."""
        free = self._free[block * BLOCK :]
        blocks = free.reshape(len(free) // BLOCK, BLOCK, free.shape[1])
        least: Units = np.minimum.reduce(blocks, axis=1)
        return least
