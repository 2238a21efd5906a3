"""What bookings ask for that have something together, without asking each of them every time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from scheduler.planning.book import Book
from scheduler.planning.holds import Ask
from scheduler.planning.ledger import Ledger
from scheduler.planning.needs import Need

MANY = 8
"""Fewer bookings are asked each time, which is as quick."""
REMEMBERED = 64
"""So many sets of bookings are kept in mind."""


class Asked(Ledger):
    """A ledger that knows what all bookings of a hold ask for, however many they are.

    Args:
        at: the present, seconds since the epoch; the past is not looked at.
    """

    def __init__(self, book: Book, at: float = 0.0) -> None:
        super().__init__(book, at)
        self._needs: dict[int, tuple[frozenset[str], Counter[Need]]] = {}
        """How many ask for what, by the identity of a set of keys, which is kept with it."""

    def ask_all(self, asks: dict[str, Ask]) -> None:
        """These are the bookings now; the dictionary is used as it is."""
        self.asks = asks
        self._needs = {}

    def ask(self, ask: Ask) -> None:
        """A booking asks for this now."""
        known = self.asks.get(ask.key)
        if known is not None and known is not ask and known.need != ask.need:
            self._needs = {}
        self.asks[ask.key] = ask

    def needs_of(self, keys: frozenset[str]) -> Collection[Need]:
        """What bookings ask for."""
        return [self.asks[key].need for key in keys] if len(keys) < MANY else self._counted(keys).keys()

    def with_key(self, keys: frozenset[str], ask: Ask) -> frozenset[str]:
        """These bookings and another one."""
        if ask.key in keys:
            return keys
        joined = keys | {ask.key}
        if len(keys) >= MANY:
            self._remember(joined, self._counted(keys) + Counter((ask.need,)))
        return joined

    def without_keys(self, keys: frozenset[str], gone: Collection[str]) -> frozenset[str]:
        """These bookings but some."""
        rest = keys.difference(gone)
        if len(rest) >= MANY:
            left = Counter(self.asks[key].need for key in gone if key in keys)
            self._remember(rest, self._counted(keys) - left)
        return rest

    def _counted(self, keys: frozenset[str]) -> Counter[Need]:
        known = self._needs.pop(id(keys), None)
        return self._remember(keys, known[1] if known else Counter(self.asks[key].need for key in keys))

    def _remember(self, keys: frozenset[str], needs: Counter[Need]) -> Counter[Need]:
        """Those that were looked at longest ago are forgotten first."""
        self._needs[id(keys)] = keys, needs
        if len(self._needs) > REMEMBERED:
            del self._needs[next(iter(self._needs))]
        return needs
