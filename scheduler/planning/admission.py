"""Which bookings are promised their model for the whole of their window, and on which nodes.

First come, first served within a priority: what is promised is never taken back for a booking of the
same priority. A booking that finds no room as things are laid out has others moved for it, but only
such as have not started, and only if each of them finds another place. Only a booking of a higher
priority takes the room of lower ones.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter

from scheduler.planning.book import Book, Seat
from scheduler.planning.clearing import CLEARED, Clearing
from scheduler.planning.holds import Ask, Hold, shared, union, wanted_by
from scheduler.planning.ledger import Released, overlapping
from scheduler.planning.needs import Need

MOVES_AGAIN = 30
"""Nodes that are tried to be cleared in one plan for all bookings together that have been refused before."""
ROUNDS = 3
"""So often is looked whether what was given back meanwhile is what somebody lacked."""


class Admission(Clearing):
    """All promises, and who gets the next one.

    Args:
        at: the present, seconds since the epoch; the past is not looked at.
        at_hand: the nodes, by number, that have the weights of a model, by its key.
    """

    def __init__(
        self, book: Book, at: float = 0.0, at_hand: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        super().__init__(book, at)
        self.at_hand: dict[str, Sequence[int]] = dict(at_hand or {})

    # What is asked from outside

    def admit_all(
        self, asks: Iterable[Ask], before: Collection[str] = (), released: Iterable[Released] = ()
    ) -> None:
        """Admit what can be, in the order of the claims; ``covered`` tells what each one got.

        Args:
            before: the keys of those that were refused before. They are tried again only where something
                was ``released``: within their window, or where it lets others be moved, few for all of them.
        """
        released, before = list(released), set(before)
        self.released.clear()
        queue = sorted(asks, key=attrgetter("claim"), reverse=True)
        displaced_ones: list[tuple[tuple[object, ...], Ask]] = []
        refused: dict[str, Ask] = {}
        elsewhere: list[Ask] = []
        moves = MOVES_AGAIN
        while queue or displaced_ones:
            if displaced_ones and (not queue or displaced_ones[0][0] < queue[-1].claim):
                ask = heapq.heappop(displaced_ones)[1]
            else:
                ask = queue.pop()
            refused[ask.key] = ask
            if ask.key not in before:
                got, displaced = self.admit(ask, settle_for_less=True)
            elif (freed := overlapping(ask, released)) and (moves or self._might_fit(ask, freed)):
                got, displaced, moves = self._admit_again(ask, moves)
            else:
                elsewhere.append(ask)
                continue
            if got >= ask.replicas:
                del refused[ask.key]
            for key in displaced:
                self.displaced[key] = ask.key
                before.discard(key)
                heapq.heappush(displaced_ones, (self.asks[key].claim, self.asks[key]))
        if released:
            self._admit_by_moving(elsewhere, moves)
        self._admit_lucky(refused.values())

    def _admit_by_moving(self, asks: Iterable[Ask], moves: int) -> None:
        """Admit those in whose way somebody is who can move to what was given back; displaces nobody."""
        for ask in asks:
            if not moves:
                break
            _, _, moves = self._admit_again(ask, min(moves, CLEARED - 1))

    def _admit_again(self, ask: Ask, moves: int) -> tuple[int, list[str], int]:
        """Admit with only so many moves; returns how many are left, too."""
        left, self.moves_left = self.moves_left, min(moves, self.moves_left)
        self._displaces = moves >= CLEARED
        moves -= CLEARED * self.has_weaker(ask.priority) + self.moves_left
        got, displaced = self.admit(ask, settle_for_less=True)
        moves += self.moves_left
        self.moves_left, self._displaces = left, True
        return got, displaced, max(moves, 0)

    def _admit_lucky(self, refused: Iterable[Ask]) -> None:
        """Admit those for whom something was given back after their turn."""
        refused = sorted(refused, key=attrgetter("claim"))
        for _ in range(ROUNDS):
            released, self.released = self.released, []
            if not released:
                break
            for ask in refused:
                freed = overlapping(ask, released)
                if freed and self._might_fit(ask, freed) and self.covered(ask) < ask.replicas:
                    self._admit_again(ask, 0)

    def _might_fit(self, ask: Ask, freed: Iterable[Released]) -> bool:
        """Whether a booking that found no room may find some where something was given back in its window."""
        if self.nodes_of(ask.model):
            return True
        return self.book.has_room({node for node, _, _ in freed}, ask.need, ask.start, ask.end)

    def admit(self, ask: Ask, settle_for_less: bool = False) -> tuple[int, list[str]]:
        """Find seats for a booking; returns how many replicas have one, and which bookings lost theirs.

        Unless it ``settle``s ``_for_less``, a booking that does not get all its replicas gets none.
        """
        self.ask(ask)
        self.longest_lead = max(self.longest_lead, ask.lead)
        begun = self.mark()
        displaced: list[str] = []
        got = 0
        if own := [hold for hold in self.of_booking(ask.key) if hold.keys == {ask.key} and not hold.settled]:
            # It was edited: perhaps it can share now what it had for itself.
            for hold in own:
                self.drop(hold)
            got = self._seat_all(ask, displaced)
        if not own or got < ask.replicas:
            self.undo(begun)
            displaced.clear()
            got = self._seat_all(ask, displaced)
        if got < ask.replicas and not settle_for_less:
            self.undo(begun)
            return 0, []
        self.keep()
        return got, [key for key in dict.fromkeys(displaced) if key != ask.key]

    def _seat_all(self, ask: Ask, displaced: list[str]) -> int:
        used: set[int] = set()
        got = 0
        while got < ask.replicas and self._seat(ask, used, displaced):
            got += 1
        return got

    def would(self, ask: Ask) -> int:
        """How many replicas of a booking would find a seat, at nobody's loss; changes nothing."""
        begun = self.mark()
        known, needs = self.asks.get(ask.key), self._needs
        self.ask(ask)
        moves, self.moves_left = self.moves_left, 0
        at_hand, self.at_hand = self.at_hand, {}
        displaces, self._displaces = self._displaces, False
        got = self._seat_all(replace(ask, lead=0.0), [])
        self.undo(begun)
        self.moves_left, self.at_hand, self._displaces = moves, at_hand, displaces
        if known is None:
            del self.asks[ask.key]
        else:
            self.asks[ask.key] = known
        self._needs = needs
        return got

    def release(self, key: str) -> None:
        """Forget a booking; what was held for it alone is given back."""
        for hold in self.of_booking(key):
            self.drop(hold)
            windows = [(self.asks[other].start, self.asks[other].end) for other in hold.keys - {key}]
            for start, end in union(windows):
                start, end = max(start, hold.start), min(end, hold.end)
                keys = frozenset(
                    k for k in hold.keys - {key} if self.asks[k].start < end and self.asks[k].end > start
                )
                if start < end:
                    self.put(replace(hold, start=start, end=end, keys=keys))
        self.asks.pop(key, None)
        self.keep()

    def restore(
        self,
        model: str,
        need: Need,
        number: int,
        keys: frozenset[str],
        start: float,
        end: float,
        *,
        lane: int | None = None,
        runs: bool = False,
        squeeze: bool = False,
        kept_until: float = 0.0,
    ) -> Hold | None:
        """Hold what was promised before on a node, if there is room, or ``squeeze`` it in.

        ``lane``: the one it had on its node, if it shares a device. ``runs``: it is not to be moved any more.
        """
        seat = None if lane is None else self.book.seat_at(number, need, lane, start, end)
        seat = seat or self.book.room_on(number, need, start, end)
        if seat is None and squeeze:
            seat = self.book.squeeze(number, need, start, end)
        if seat is None:
            return None
        priority = max(self.asks[key].priority for key in keys)
        settled = runs or start <= self.at
        wanted = Hold(-1, model, need, seat, start, end, keys, priority, settled, kept_until)
        same = self.former.get(wanted)
        held = self.put(same.pop() if same else wanted)
        self.keep()
        return held

    # One replica

    def _seat(self, ask: Ask, used: set[int], displaced: list[str]) -> bool:
        """Give one replica of a booking a seat: one its model has already, or one of its own."""
        start = max(ask.start, self.at)
        if self._join(ask, start, used, displaced):
            return True
        placed = self._place(ask, start, ask.end, displaced)
        if placed is None:
            return False
        used.add(placed.number)
        return True

    def _join(self, ask: Ask, start: float, used: set[int], displaced: list[str]) -> bool:
        """Give it one that its model has already."""
        theirs = [hold for hold in self.beside(ask.model, start, ask.end) if hold.number not in used]
        if not theirs:
            return False
        # The order among equals is that of their ranks, in which they are.
        theirs.sort(key=lambda hold: (not hold.settled, max(hold.start, start) - min(hold.end, ask.end)))
        for join in (self._extend, self._move_whole, self._make_way):
            for hold in theirs:
                joined = join(hold, ask, start)
                if joined is not None:
                    joined = self._with_neighbours(joined, used)
                    self._move_delayed(joined)
                    used.add(joined.number)
                    return True
        overlapping = [
            hold for hold in theirs if hold.start < ask.end and hold.end > start and self.suits(hold, ask)
        ]
        return bool(overlapping) and self._hand_over(overlapping[0], ask, start, used, displaced)

    def _extend(self, hold: Hold, ask: Ask, start: float) -> Hold | None:
        """One stay of both, where it is."""
        first, last = min(hold.start, start), max(hold.end, ask.end)
        need = self.decided(hold, ask)
        if need is None:
            return None
        if self.suits(hold, ask):
            added = [(first, hold.start), (hold.end, last)]
            longer = replace(hold, need=need, start=first, end=last)
            if all(a >= b or self._may_stay(hold, a, b) for a, b in added) and self.agrees(longer):
                return self._instead(replace(hold, need=need), first, last, hold.seat, ask)
            return None
        return self._anew(hold, ask, need, first, last, hold.seat.node)

    def _with_neighbours(self, hold: Hold, used: set[int]) -> Hold:
        """One stay with those of its model that overlap or touch it and are for other bookings."""
        for other in self.beside(hold.model, hold.start, hold.end):
            is_other = other.number not in {hold.number, *used} and not other.keys & hold.keys
            if not is_other or other.settled or other.need != hold.need:
                continue
            begun = self.mark()
            self.drop(other)
            added = (other.start, hold.start), (hold.end, other.end)
            if all(start >= end or self._may_stay(hold, start, end) for start, end in added):
                self.drop(hold)
                start, end = min(hold.start, other.start), max(hold.end, other.end)
                keys, priority = hold.keys | other.keys, max(hold.priority, other.priority)
                joined = self.put(replace(hold, start=start, end=end, keys=keys, priority=priority))
                return self._with_neighbours(joined, used)
            self.undo(begun)
        return hold

    def _may_stay(self, hold: Hold, start: float, end: float) -> bool:
        return not self.book.nodes[hold.seat.node].closed and self.book.fits(hold.seat, start, end)

    def _move_whole(self, hold: Hold, ask: Ask, start: float) -> Hold | None:
        """One stay of both elsewhere, if neither has started."""
        need = self.decided(hold, ask)
        if hold.settled or need is None:
            return None
        return self._anew(hold, ask, need, min(hold.start, start), max(hold.end, ask.end))

    def _make_way(self, hold: Hold, ask: Ask, start: float) -> Hold | None:
        """One stay of both where it is, for which others that have not started are moved."""
        need = self.decided(hold, ask)
        if need is None or not self.suits(hold, ask) or self.book.nodes[hold.seat.node].closed:
            return None
        first, last = min(hold.start, start), max(hold.end, ask.end)
        self.begin_moving()
        begun = self.mark()
        self.drop(hold)
        wanted = self._for_both(replace(hold, need=need), first, last, hold.seat, ask)
        if placed := self._in_place_of_others(hold.seat.node, wanted):
            return placed
        self.undo(begun)
        return None

    def _anew(
        self, hold: Hold, ask: Ask, need: Need, start: float, end: float, node: int | None = None
    ) -> Hold | None:
        begun = self.mark()
        self.drop(hold)
        wanted = self._for_both(replace(hold, need=need), start, end, hold.seat, ask)
        seat = self.find(wanted, start) if node is None else self.book.room_on(node, need, start, end)
        if seat is None or not self.agrees(wanted, seat.node):
            self.undo(begun)
            return None
        return self.put(wanted, seat)

    def _instead(self, hold: Hold, start: float, end: float, seat: Seat, ask: Ask) -> Hold:
        if (start, end) == (hold.start, hold.end) and ask.key in hold.keys:
            return hold
        self.drop(self.holds[hold.number])
        return self.put(self._for_both(hold, start, end, seat, ask))

    def _for_both(self, hold: Hold, start: float, end: float, seat: Seat, ask: Ask) -> Hold:
        keys, priority = self.with_key(hold.keys, ask), max(hold.priority, ask.priority)
        return replace(hold, start=start, end=end, seat=seat, keys=keys, priority=priority)

    def _hand_over(self, hold: Hold, ask: Ask, start: float, used: set[int], displaced: list[str]) -> bool:
        """Stay while it can, and go on elsewhere: the parts of the window that are not held get their own."""
        begun, lost = self.mark(), len(displaced)
        need = self.decided(hold, ask) or hold.need
        joined = self._instead(replace(hold, need=need), hold.start, hold.end, hold.seat, ask)
        added = [joined.number]
        for first, last in ((start, hold.start), (hold.end, ask.end)):
            if first < last:
                part = self._place(ask, first, last, displaced)
                if part is None:
                    self.undo(begun)
                    del displaced[lost:]
                    return False
                added.append(part.number)
        used.update(added)
        return True

    def _place(self, ask: Ask, start: float, end: float, displaced: list[str]) -> Hold | None:
        """A seat of its own: best one to be loaded in time, then any, then by moving, then by displacing."""
        near = list(dict.fromkeys((*self.nodes_of(ask.model), *self.at_hand.get(ask.model, ()))))
        wanted = wanted_by(ask, ask.need, start, end, settled=start <= self.at)
        if placed := self._in_time(wanted, ask.lead, near):
            return placed
        seat = self.find(wanted, start, near) if ask.lead else None
        if seat is not None:
            return self.put(wanted, seat)
        placed = self._as_others(wanted, ask) or self._by_moving(wanted)
        return placed or self._by_displacing(wanted, displaced)

    def _as_others(self, wanted: Hold, ask: Ask) -> Hold | None:
        """A seat where replicas of its model take more or less than was asked for: as much as these."""
        for other in self.beside(wanted.model, wanted.start, wanted.end):
            node = other.seat.node
            if other.need == ask.need or self.book.nodes[node].closed or not self.suits(other, ask):
                continue
            as_much = replace(wanted, need=shared((other.need, ask.need)))
            seat = self.book.room_on(node, as_much.need, wanted.start, wanted.end)
            if seat is not None and self.agrees(as_much, node):
                return self.put(as_much, seat)
        return None
