"""What is held, for whom and where: the book with names in it, and changes to it that can be undone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import count

import numpy as np

from scheduler.planning.book import Book
from scheduler.planning.holds import Ask, Hold

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
        self.shifted: list[tuple[float, float]] = []
        self._of_model: dict[str, set[int]] = {}
        self._of_key: dict[str, set[int]] = {}
        self._on_node: list[set[int]] = [set() for _ in book.nodes]
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
        return self._in_order(self._of_key.get(key))

    def of_model(self, model: str) -> list[Hold]:
        """What is held for a model, in order."""
        return self._in_order(self._of_model.get(model))

    def on_node(self, node: int) -> list[Hold]:
        """What is held on a node, in order."""
        return self._in_order(self._on_node[node])

    def there(self, node: int) -> Iterator[Hold]:
        """What is held on a node, in no order."""
        return map(self.holds.__getitem__, self._on_node[node])

    def numbers_on(self, node: int) -> Collection[int]:
        """The numbers of what is held on a node, in no order."""
        return self._on_node[node]

    def _in_order(self, numbers: set[int] | None) -> list[Hold]:
        if not numbers:
            return []
        found = [self.holds[number] for number in numbers]
        if len(found) > 1:
            found.sort(key=_rank)
        return found

    def covered(self, ask: Ask) -> int:
        """How many replicas a booking has throughout what is left of its window."""
        numbers = self._of_key.get(ask.key)
        if not numbers:
            return 0
        start = max(ask.start, self.at)
        holds = [self.holds[number] for number in numbers]
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
        while len(self._journal) > mark:
            put, hold = self._journal.pop()
            if put:
                self.book.give(hold.seat, hold.start, hold.end)
                self._unlist(hold)
            else:
                self.book.take(hold.seat, hold.start, hold.end)
                self._list(hold)

    def keep(self) -> None:
        """All since the last time is final."""
        for put, hold in self._journal:
            self.touched.add(hold.seat.node)
            self.changed |= hold.keys
            if hold.seat.node not in self._cleared:
                self.versions[hold.seat.node] += 1
                self.shifted.append((hold.start, hold.end))
            if not put and not self._is_still_held(hold):
                self.released.append((hold.seat.node, hold.start, hold.end))
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

    def put(self, hold: Hold) -> Hold:
        """Hold something; the number it gets, if it has none, is its own from then on."""
        seat = self.book.take(hold.seat, hold.start, hold.end)
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
                self.shifted += [(hold.start, hold.end) for hold in others]
        self._cleared.clear()
        self.former.clear()

    def _list(self, hold: Hold) -> None:
        self.holds[hold.number] = self.news[hold.number] = hold
        self._of_model.setdefault(hold.model, set()).add(hold.number)
        self._on_node[hold.seat.node].add(hold.number)
        self._priorities[hold.priority] += 1
        if hold.kept_until:
            self._kept.add(hold.number)
        for key in hold.keys:
            self._of_key.setdefault(key, set()).add(hold.number)

    def _unlist(self, hold: Hold) -> None:
        del self.holds[hold.number]
        self.news[hold.number] = None
        self._of_model[hold.model].discard(hold.number)
        self._on_node[hold.seat.node].discard(hold.number)
        self._priorities[hold.priority] -= 1
        self._kept.discard(hold.number)
        for key in hold.keys:
            self._of_key[key].discard(hold.number)


def overlapping(ask: Ask, released: Iterable[Released]) -> list[Released]:
    """What was given back within the window of a booking, or while it would be loaded."""
    begin, end = ask.start - ask.lead, ask.end
    return [one for one in released if one[1] < end and one[2] > begin]


def _rank(hold: Hold) -> tuple[object, ...]:
    return hold.rank
