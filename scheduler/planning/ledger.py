"""What is held, for whom and where: the book with names in it, and changes to it that can be undone."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import count

import numpy as np

from scheduler.planning.book import LAST, Book, Seat
from scheduler.planning.holds import Ask, Hold
from scheduler.planning.openings import FOREVER

Released = tuple[int, float, float]
"""A window in which something was given back, and the node."""


class Ledger:
    """All that is held, in one book.

    What is put and dropped since a ``mark`` can be undone until it is kept. ``touched`` are the
    nodes on which something was changed, ``changed`` the bookings it was for, ``released`` the windows in
    which something was given back, ``shifted`` those in which anything is otherwise; each since it was last
    emptied.

    Args:
        at: the present, seconds since the epoch; the past is not looked at.
    """

    def __init__(self, book: Book, at: float = 0.0) -> None:
        self.book = book
        self.at = at
        self.holds: dict[int, Hold] = {}
        self.asks: dict[str, Ask] = {}
        self.touched: set[int] = set()
        self.changed: set[str] = set()
        self.versions = np.zeros(len(book.nodes), dtype=np.int64)
        """By node, how often something was changed there."""
        self.former: dict[Hold, list[Hold]] = {}
        """What was cleared away, which is the very same when it is restored as it was."""
        self.news: dict[int, Hold | None] = {}
        """What is held, or is not any more, since this was last emptied; by number."""
        self.released: list[Released] = []
        self.shifted: list[Released] = []
        self._of_model: dict[str, _OfModel] = {}
        self._of_key: dict[str, set[int]] = {}
        """The numbers of what is, or was lately, held for a booking."""
        self._was_for: dict[int, frozenset[str]] = {}
        """By number, the bookings it is listed for there since before it was dropped."""
        self._on_node: list[set[int]] = [set() for _ in book.nodes]
        self._starts_on = [_Starts() for _ in book.nodes]
        self._priorities: Counter[int] = Counter()
        self._kept: set[int] = set()
        self._numbers = count()
        self._journal: list[tuple[bool, Hold]] = []
        self._cleared: dict[int, tuple[int, dict[int, Hold]]] = {}
        """What was on a node before it was cleared, and its version then."""

    @property
    def at(self) -> float:
        """The present."""
        return self.book.at

    @at.setter
    def at(self, instant: float) -> None:
        self.book.at = instant

    # What is held

    def of_booking(self, key: str) -> list[Hold]:
        """What is held for a booking, in order."""
        return in_order(self._holds_of(key))

    def _holds_of(self, key: str) -> list[Hold]:
        numbers = self._of_key.get(key)
        if not numbers:
            return []
        found = map(self.holds.get, numbers)
        return [hold for hold in found if hold is not None and key in hold.keys]

    def of_model(self, model: str) -> list[Hold]:
        """What is held for a model, in order."""
        known = self._of_model.get(model)
        return in_order([self.holds[number] for number in known.numbers()]) if known else []

    def beside(self, model: str, start: float, end: float) -> list[Hold]:
        """What is held for a model during a window, or until it begins, or from its end on; in order."""
        known = self._of_model.get(model)
        if not known:
            return []
        found = map(self.holds.__getitem__, known.near(start, end))
        return in_order([hold for hold in found if hold.end >= start])

    def nodes_of(self, model: str) -> list[int]:
        """The nodes on which something is held for a model, at any time."""
        known = self._of_model.get(model)
        return sorted(known.nodes) if known else []

    def on_node(self, node: int) -> list[Hold]:
        """What is held on a node, in order."""
        return in_order(list(self.there(node)))

    def there(self, node: int) -> Iterator[Hold]:
        """What is held on a node, in no order."""
        return map(self.holds.__getitem__, self._on_node[node])

    def during(self, node: int, start: float, end: float) -> Iterator[Hold]:
        """What is held on a node at some time in a window."""
        found = map(self.holds.__getitem__, self._starts_on[node].near(start, end))
        return (hold for hold in found if hold.end > start and hold.start < end)

    def begins(self, node: int, start: float, end: float) -> list[Hold]:
        """What is held on a node from an instant within a window on, its end included."""
        return [self.holds[number] for number in self._starts_on[node].numbers(start, end)]

    def numbers_on(self, node: int) -> Collection[int]:
        """The numbers of what is held on a node, in no order."""
        return self._on_node[node]

    def covered(self, ask: Ask) -> int:
        """How many replicas a booking has throughout what is left of its window."""
        holds = self._holds_of(ask.key)
        if not holds:
            return 0
        start = max(ask.start, self.at)
        if all(hold.start <= start and hold.end >= ask.end for hold in holds):
            return len(holds)
        instants = [start, *(hold.end for hold in holds if start < hold.end < ask.end)]
        return min(sum(hold.start <= instant < hold.end for hold in holds) for instant in instants)

    def has_weaker(self, priority: int) -> bool:
        """Whether anything of a lower priority is held."""
        return any(held and one < priority for one, held in self._priorities.items())

    def kept(self) -> Iterable[Hold]:
        """What nobody may displace for a while."""
        return map(self.holds.__getitem__, self._kept)

    # Changes

    def mark(self) -> int:
        """Where to ``undo`` to."""
        return len(self._journal)

    def undo(self, mark: int) -> None:
        """Take back what was put and dropped since a mark."""
        numbers = set[int]()
        while len(self._journal) > mark:
            put, hold = self._journal.pop()
            numbers.add(hold.number)
            if put:
                self.book.give(hold.seat, hold.start, hold.end)
                self._unlist(hold)
            else:
                self.book.take(hold.seat, hold.start, hold.end)
                self._list(hold)
        for number in numbers:
            self._forget(number)

    def keep(self) -> None:
        """All since the last time is final."""
        for put, hold in self._journal:
            self.touched.add(hold.seat.node)
            self.changed |= hold.keys
            if hold.seat.node not in self._cleared:
                self.versions[hold.seat.node] += 1
                self.shifted.append((hold.seat.node, hold.start, hold.end))
            if not put:
                if not self._is_still_held(hold):
                    self.released.append((hold.seat.node, hold.start, hold.end))
                self._forget(hold.number)
        self._journal.clear()

    def _is_still_held(self, gone: Hold) -> bool:
        """Whether what takes its place has all of its seat and window."""
        return any(
            put
            and hold.seat == gone.seat
            and hold.start <= gone.start
            and hold.end >= gone.end
            and self.holds.get(hold.number) is hold
            for put, hold in self._journal
        )

    def put(self, hold: Hold, seat: Seat | None = None) -> Hold:
        """Hold something, on another ``seat`` if told one; the number it gets, if it has none, is its own
        from then on.
        """
        seat = self.book.take(seat or hold.seat, hold.start, hold.end)
        number = next(self._numbers) if hold.number < 0 else hold.number
        if seat is not hold.seat or number != hold.number:
            hold = hold.seated(number, seat)
        self._list(hold)
        self._journal.append((True, hold))
        return hold

    def drop(self, hold: Hold) -> None:
        """Hold something no longer."""
        self.book.give(hold.seat, hold.start, hold.end)
        self._unlist(hold)
        self._journal.append((False, hold))

    def clear(self, node: int) -> list[Hold]:
        """Hold nothing on a node any longer, until it is ``settled``; returns what was. That is final."""
        gone = list(self.there(node))
        self._cleared.setdefault(node, (int(self.versions[node]), {hold.number: hold for hold in gone}))
        for hold in gone:
            self._unlist(hold)
            self.former.setdefault(hold.seated(-1, hold.seat), []).append(hold)
        self.book.clear(node)
        return gone

    def settle(self) -> None:
        """What was cleared away holds again what it shall."""
        for node, (version, before) in self._cleared.items():
            now = {hold.number: hold for hold in self.there(node)}
            others = [hold for number, hold in before.items() if now.get(number) is not hold]
            others += [hold for number, hold in now.items() if before.get(number) is not hold]
            if others:
                self.versions[node] = version + 1
                self.shifted += [(node, hold.start, hold.end) for hold in others]
            for number in before:
                self._forget(number)
        self._cleared.clear()
        self.former.clear()

    def _list(self, hold: Hold) -> None:
        number, node = hold.number, hold.seat.node
        self.holds[number] = self.news[number] = hold
        if hold.model not in self._of_model:
            self._of_model[hold.model] = _OfModel()
        self._of_model[hold.model].add(hold)
        self._on_node[node].add(number)
        self._starts_on[node].add(hold)
        self._priorities[hold.priority] += 1
        if hold.kept_until:
            self._kept.add(number)
        listed = self._was_for.get(number)
        for key in hold.keys if listed is None else hold.keys - listed:
            if key in self._of_key:
                self._of_key[key].add(number)
            else:
                self._of_key[key] = {number}

    def _unlist(self, hold: Hold) -> None:
        number, node = hold.number, hold.seat.node
        del self.holds[number]
        self.news[number] = None
        known = self._of_model[hold.model]
        known.discard(hold)
        if not known.starts:
            del self._of_model[hold.model]
        self._on_node[node].discard(number)
        self._starts_on[node].discard(hold)
        self._priorities[hold.priority] -= 1
        self._kept.discard(number)
        listed = self._was_for.get(number)
        self._was_for[number] = hold.keys if listed is None else hold.keys | listed

    def _forget(self, number: int) -> None:
        """What is held no more is listed no more; what was replaced was left where it stood."""
        if number not in self.holds:
            for key in self._was_for.pop(number, ()):
                self._of_key[key].discard(number)


class _Starts:
    """Some holds by their starts, and how long the longest there was is."""

    __slots__ = ("longest", "starts")

    def __init__(self) -> None:
        self.starts: list[tuple[float, int]] = []
        self.longest = 0.0

    def add(self, hold: Hold) -> None:
        insort(self.starts, (hold.start, hold.number))
        if hold.end - hold.start > self.longest:
            self.longest = hold.end - hold.start

    def discard(self, hold: Hold) -> None:
        del self.starts[bisect_left(self.starts, (hold.start, hold.number))]

    def numbers(self, start: float = -FOREVER, end: float = FOREVER) -> list[int]:
        """Of those that begin within a window, or with its end."""
        first = bisect_left(self.starts, (start, -1))
        last = bisect_right(self.starts, (end, LAST), first)
        return [number for _, number in self.starts[first:last]]

    def near(self, start: float, end: float) -> list[int]:
        """Of those that may be there within a window, or touch it."""
        return self.numbers(start - self.longest, end)


class _OfModel(_Starts):
    """The same of one model, and how many of its holds a node has."""

    __slots__ = ("nodes",)

    def __init__(self) -> None:
        super().__init__()
        self.nodes: dict[int, int] = {}

    def add(self, hold: Hold) -> None:
        super().add(hold)
        self.nodes[hold.seat.node] = self.nodes.get(hold.seat.node, 0) + 1

    def discard(self, hold: Hold) -> None:
        super().discard(hold)
        self.nodes[hold.seat.node] -= 1
        if not self.nodes[hold.seat.node]:
            del self.nodes[hold.seat.node]


def overlapping(ask: Ask, released: Iterable[Released]) -> list[Released]:
    """What was given back within the window of a booking, or while it would be loaded."""
    begin, end = ask.start - ask.lead, ask.end
    return [one for one in released if one[1] < end and one[2] > begin]


def in_order(holds: list[Hold]) -> list[Hold]:
    """Holds in the order of their ranks."""
    if len(holds) > 1:
        holds.sort(key=_rank)
    return holds


def _rank(hold: Hold) -> tuple[object, ...]:
    return hold.rank
