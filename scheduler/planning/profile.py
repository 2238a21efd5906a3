"""Free units over time, and the least of them over any window: the arithmetic below the book."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Units = NDArray[np.int32]


class Profile:
    """What is free in each column during each slot of time, with minima over ranges of slots.

    A segment tree over slots whose entries are rows over columns: a query reduces ``2 log2(slots)``
    rows, a change touches one column.
    """

    def __init__(self, slots: int, free: Units) -> None:
        self.size = 1 << max(slots - 1, 1).bit_length()
        self.tree: Units = np.tile(free.astype(np.int32), (2 * self.size, 1))

    def least(self, first: int, last: int) -> Units:
        """The least that is free in each column during slots ``[first, last)``."""
        rows: list[int] = []
        low, high = first + self.size, last + self.size
        while low < high:
            if low & 1:
                rows.append(low)
                low += 1
            if high & 1:
                high -= 1
                rows.append(high)
            low >>= 1
            high >>= 1
        if len(rows) == 1:
            only: Units = self.tree[rows[0]]
            return only
        least: Units = np.minimum.reduce(self.tree[rows], axis=0)
        return least

    def column(self, column: int, first: int, last: int) -> Units:
        """What is free in one column, slot by slot."""
        return self.tree[self.size + first : self.size + last, column]

    def take(self, column: int, first: int, last: int, units: int) -> None:
        """Take units away during slots ``[first, last)``; a negative number gives them back."""
        if first >= last:
            return
        own = self.tree[:, column]
        low, high = self.size + first, self.size + last
        own[low:high] -= units
        low, high = low >> 1, ((high - 1) >> 1) + 1
        while low:
            np.minimum(own[2 * low : 2 * high : 2], own[2 * low + 1 : 2 * high : 2], out=own[low:high])
            low, high = low >> 1, ((high - 1) >> 1) + 1

    def reset(self, column: int, free: int) -> None:
        """All of a column is free as told, at all times."""
        self.tree[:, column] = free

    def widen(self, free: Units) -> None:
        """More columns, free as told at all times."""
        self.tree = np.hstack((self.tree, np.tile(free.astype(np.int32), (2 * self.size, 1))))

    def split(self, slot: int, slots: int) -> None:
        """Make two slots of one; ``slots`` is their number before."""
        leaves = self.tree[self.size : self.size + slots]
        leaves = np.insert(leaves, slot, leaves[slot], axis=0)
        if slots + 1 > self.size:
            self.size *= 2
            self.tree = np.empty((2 * self.size, leaves.shape[1]), dtype=np.int32)
        self.tree[self.size : self.size + slots + 1] = leaves
        self.tree[self.size + slots + 1 :] = leaves[-1]
        level = self.size
        while level > 1:
            pairs = self.tree[level : 2 * level]
            np.minimum(pairs[::2], pairs[1::2], out=self.tree[level >> 1 : level])
            level >>= 1
