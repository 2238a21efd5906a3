"""What one node has free over time for a replica: how much, until when, and when there is more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scheduler.planning.book import WHOLE, Book
from scheduler.planning.needs import Need

LOOKED_AT = 64
"""So many slots after a window are looked at first for more that is free; then as many more, and so on."""
Column = NDArray[np.int32]
"""What is free by slot: whole GPUs, or ten-thousandths of one device."""


@dataclass(frozen=True, slots=True)
class Room:
    """What is ``free`` throughout a window: whole GPUs, or ten-thousandths of one device.

    ``until`` is when there ceases to be enough for a replica that has enough at the beginning of the window,
    ``more_from`` the first instant from which on more is free than told, to the end of the window if it
    begins before. Both are None where a replica has room throughout.
    """

    free: int
    fits: bool
    until: float | None = None
    more_from: float | None = None


def room(book: Book, number: int, need: Need, start: float, end: float, with_times: bool = True) -> Room:
    """What a node has free for a need throughout a window, whether it is closed or not."""
    fit = book.fit(need)
    whole = int(fit.whole[number])
    needed = whole or int(fit.share[number])
    first, last = book.span(start, end)
    last = max(last, first + 1)
    columns = _columns(book, number, bool(whole), first, last)
    free = max(0, *(int(np.minimum.reduce(column)) for column in columns))
    if needed and free >= needed:
        return Room(free, True)
    if not with_times:
        return Room(free, False)
    until = _enough_until(columns, needed) if needed else None
    more_from = _more_from(columns, free)
    if more_from == last - first:
        more_from = _more_after(book, number, bool(whole), last, free) - first
    edges = book.edges
    return Room(
        free,
        False,
        edges[first + until] if until else None,
        edges[first + more_from] if first + more_from < len(edges) else None,
    )


def _columns(book: Book, number: int, whole: bool, first: int, last: int) -> list[Column]:
    """What is free on GPUs that nobody uses yet, and in each of a node's lanes."""
    pool = book.pool.column(number, first, last)
    if whole:
        return [pool]
    columns = [(pool > 0) * np.int32(WHOLE)]
    for lane in book.lanes_of.get(number, ()):
        column = book.lanes.column(lane, first, last)
        # one that nothing is on draws a GPU
        columns.append(column if lane < book.fixed else np.where((column < WHOLE) | (pool > 0), column, 0))
    return columns


def _enough_until(columns: Iterable[Column], needed: int) -> int:
    """The last slot before which one of them has enough from the first on; none has to the end."""
    return max(int((column < needed).argmax()) for column in columns)


def _more_from(columns: Iterable[Column], free: int) -> int:
    """The first slot from which on one of them has more, to the end."""
    return min(len(short) - int(short[::-1].argmax()) for short in (column <= free for column in columns))


def _more_after(book: Book, number: int, whole: bool, begin: int, free: int) -> int:
    """The first slot from one on in which there is more, or one behind the last."""
    count = LOOKED_AT
    while begin < book.pool.slots:
        columns = _columns(book, number, whole, begin, min(begin + count, book.pool.slots))
        found = [int(more.argmax()) for more in (column > free for column in columns) if more.any()]
        if found:
            return begin + min(found)
        begin, count = begin + count, 2 * count
    return book.pool.slots
