"""The fewest bookings whose going would make room for a refused one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

from scheduler.planning.admission import Admission
from scheduler.planning.holds import Ask, Hold, union

NODES_SEARCHED = 8
"""So many nodes are searched, those that lack least first."""
TRIES = 16
"""So many sets of bookings of one size are taken away from a node; all there are, where they are no more."""
NODES_WITH_STAYS = 2
"""Nodes that are searched where the model has stays that it could share, which takes longer."""
SURELY_SMALLEST = 2
"""Sets of so many bookings are all tried before larger ones are put together."""
MOST_TOLD = 12
"""Larger sets are not looked for."""

Found = tuple[int, frozenset[str] | None]
"""The bookings in the way on a node, if there is a set of fewer than so many."""


def in_the_way(
    admission: Admission,
    near: Iterable[int],
    ask: Ask,
    known: dict[int, tuple[object, Found]],
    altered: Mapping[int, int],
) -> frozenset[str]:
    """The keys of the fewest bookings whose going would make room for one more replica on some node.

    Those of its own model are told only where nothing else would help: it would rather share what they have.

    Args:
        near: the nodes, those that lack least first.
        known: what was found before by node, with its version then; it is brought up to date.
        altered: by node, how often a booking that has something there was another than before.
    """
    search, best = _Search(admission, ask), frozenset[str]()
    nodes = dict.fromkeys((*search.own, *near))
    for node in islice(nodes, NODES_WITH_STAYS if search.own else NODES_SEARCHED):
        fewer_than = len(best) or MOST_TOLD + 1
        if fewer_than == 1:
            break
        version = (altered.get(node, 0), int(admission.versions[node]))
        before = known.get(node)
        if search.own or before is None or before[0] != version or not _says(before[1], fewer_than):
            before = known[node] = (version, (fewer_than, search.fewest(node, fewer_than)))
        found = before[1][1]
        if found is not None and len(found) < fewer_than:
            best = found
    return best


def _says(known: Found, fewer_than: int) -> bool:
    return known[1] is not None or known[0] >= fewer_than


@dataclass
class _Search:
    admission: Admission
    ask: Ask
    start: float = field(init=False)
    own: list[int] = field(init=False)
    got: int = field(init=False)
    _tries: int = 0

    def __post_init__(self) -> None:
        self.start = max(self.ask.start, self.admission.at)
        stays = self.admission.of_model(self.ask.model)
        self.own = [hold.seat.node for hold in stays if hold.end >= self.start and hold.start <= self.ask.end]
        self.got = self.admission.would(self.ask) if self.own else 0

    def fewest(self, node: int, fewer_than: int) -> frozenset[str] | None:
        """The smallest set found on a node, if it is of fewer bookings than told."""
        for size in range(1, min(fewer_than - 1, SURELY_SMALLEST) + 1):
            self._tries = TRIES
            if (found := self._of_size(node, size, frozenset())) is not None:
                return found
        found = self._put_together(node) if fewer_than > SURELY_SMALLEST + 1 else None
        return found if found is not None and len(found) < fewer_than else None

    def _of_size(self, node: int, size: int, gone: frozenset[str]) -> frozenset[str] | None:
        """A set of so many more bookings on a node that makes room, of all there are."""
        for key in self._candidates(node, gone, is_last=size == 1):
            if self._tries <= 0:
                return None
            begun = self.admission.mark()
            self._take_away(node, key, gone | {key})
            if size > 1:
                found = self._of_size(node, size - 1, gone | {key})
            else:
                self._tries -= 1
                found = gone | {key} if self._has_room(node) else None
            self.admission.undo(begun)
            if found is not None:
                return found
        return None

    def _put_together(self, node: int) -> frozenset[str] | None:
        """A set that makes room, none of it needlessly: what takes most goes first."""
        begun, gone, has_room = self.admission.mark(), list[str](), False
        while len(gone) < MOST_TOLD and not (has_room := self._has_room(node)):
            candidates = self._candidates(node, frozenset(gone))
            if not candidates:
                break
            gone.append(candidates[0])
            self._take_away(node, gone[-1], frozenset(gone))
        has_room = has_room or self._has_room(node)
        self.admission.undo(begun)
        return self._without_needless(node, gone) if has_room else None

    def _without_needless(self, node: int, gone: list[str]) -> frozenset[str]:
        for key in list(gone) if len(gone) > 1 else ():
            less = frozenset(gone) - {key}
            begun = self.admission.mark()
            for other in sorted(less):
                self._take_away(node, other, less)
            if self._has_room(node):
                gone.remove(key)
            self.admission.undo(begun)
        return frozenset(gone)

    def _candidates(self, node: int, gone: frozenset[str], is_last: bool = False) -> list[str]:
        """The bookings one of which must go, whatever else does; those that take most first.

        Args:
            is_last: only those that would be enough at the instant at which most is lacking.
        """
        begin, end, short, book = self.start, self.ask.end, 0, self.admission.book
        if book.fit(self.ask.need).whole[node] and not self.own:
            begin, short = book.tightest(node, self.ask.need, begin, end)
            end = begin
        takes, frees = dict[str, tuple[bool, float]](), Counter[str]()
        for hold in self.admission.there(node):
            if not _touches(hold, begin, end):
                continue
            keys = {
                key
                for key in hold.keys - gone - {self.ask.key}
                if _touches(self.admission.asks[key], begin, end)
            }
            for key in keys:
                taken = (hold.model != self.ask.model, hold.seat.devices * (hold.end - hold.start))
                takes[key] = max(takes.get(key, (False, 0.0)), taken)
                frees[key] += (hold.seat.units if hold.seat.lane is None else 1) if len(keys) == 1 else 0
        found = sorted(takes, key=lambda key: (not takes[key][0], -takes[key][1], key))
        return [key for key in found if frees[key] >= short] if is_last else found

    def _take_away(self, node: int, key: str, gone: frozenset[str]) -> None:
        """Hold nothing on a node any longer for a booking, where others do not share it."""
        for hold in self.admission.of_booking(key):
            if hold.seat.node != node:
                continue
            self.admission.drop(hold)
            for part in self._rest(hold, gone):
                self.admission.put(part)

    def _rest(self, hold: Hold, gone: frozenset[str]) -> Iterable[Hold]:
        """What is left of a hold that is not for some bookings any more, and nobody else has then."""
        asks, keys = self.admission.asks, self.admission.without_keys(hold.keys, gone)
        if not keys:
            return
        theirs = [asks[key] for key in gone if key in hold.keys]
        begin = max(hold.start, min(ask.start for ask in theirs))
        end = min(hold.end, max(ask.end for ask in theirs))
        others = [ask for ask in map(asks.__getitem__, keys) if ask.start < end and ask.end > begin]
        windows = [(max(ask.start, hold.start), min(ask.end, hold.end)) for ask in others]
        kept = [(hold.start, begin), *windows, (end, hold.end)] if begin < end else [(hold.start, hold.end)]
        number = hold.number
        for start, end in union([window for window in kept if window[0] < window[1]]):
            yield replace(hold, number=number, start=start, end=end, keys=keys)
            number = -1

    def _has_room(self, node: int) -> bool:
        if self.own:
            return self.admission.would(self.ask) > self.got
        need = self.ask.need
        return self.admission.book.room_on(node, need, self.start, self.ask.end) is not None


def _touches(one: Hold | Ask, begin: float, end: float) -> bool:
    """Whether something is there during a window, or at an instant."""
    return one.end > begin and (one.start < end or one.start <= begin)
