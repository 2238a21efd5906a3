"""Room for one replica: seats in which it is loaded in time, and seats that others make free.

What has not started is moved where it finds another seat; what has a weaker claim may lose its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from operator import attrgetter

from scheduler.planning.book import Book, Seat
from scheduler.planning.holds import Hold
from scheduler.planning.ledger import in_order
from scheduler.planning.sharing import Sharing

ATTEMPTS = (20, 6, 6)
"""Nodes tried to be cleared for one replica, for each that makes room for it, and for each of these."""
MOVES_PER_REPLICA = 45
"""Nodes that are tried to be cleared for one replica, all in all: bounds the work of a verdict."""
MOVES_IN_MANY = 30
"""The same where there are ``MANY_NODES``: it takes fewer moves there, and each is more work."""
MANY_NODES = 32
AT_ONCE = 10
"""Nodes that are tried to be cleared of what has another seat already."""
ASKED = 30
"""So many stays are asked whether they have another seat, for one replica."""
CLEARED = 24
"""Nodes that are tried to be cleared of lower priorities for one replica."""
MAX_MOVED = 6
"""Stays that are moved for one replica."""
CROWDED = 4
"""So many nodes are looked at where something else is loaded at the time."""
MOVES_PER_PLAN = 2_000
"""Nodes that are tried to be cleared in one plan, for all bookings together."""


class Clearing(Sharing):
    """A ledger in which room can be made.

    ``displaced`` tells which booking lost a seat to which. Who is ``robbed`` of what was promised, because
    the cluster is another, comes before what was booked later and has not started. Who is ``spent`` was
    refused, and its window has begun: nobody loses anything to it any more. ``moves_left``: so many nodes
    may be tried to be cleared still. ``longest_lead``: of all that was asked for so far, seconds.

    Args:
        at: the present, seconds since the epoch; the past is not looked at.
    """

    def __init__(self, book: Book, at: float = 0.0) -> None:
        super().__init__(book, at)
        self.moves_left = MOVES_PER_PLAN
        self.displaced: dict[str, str] = {}
        self.robbed: frozenset[str] = frozenset()
        self.spent: frozenset[str] = frozenset()
        self.longest_lead = 0.0
        self._moves = 0
        self._staying: set[int] = set()
        self._displaces = True

    # Time to load

    def _in_time(self, wanted: Hold, lead: float, near: Iterable[int]) -> Hold | None:
        """A seat that is free while it is loaded, and of such one after which nobody else is loaded late."""
        ahead, end = wanted.start, wanted.end
        if ahead - lead > self.at:
            ahead -= lead
        seat = self.find(wanted, ahead, near)
        if seat is None:
            return None
        if ahead < wanted.start:
            seat = self._beside_others(wanted, ahead, near, seat) or seat
        begun = self.mark()
        placed = self.put(wanted, self.book.with_lane(seat, ahead, end))
        delayed = self._delayed(placed) if lead else []
        if delayed:
            self.undo(begun)
            pause = max(self._lead(hold) for hold in delayed)
            later = self.find(wanted, ahead, near, end + pause)
            seat = self.book.with_lane(later or seat, ahead, end + pause if later else end)
            placed = self.put(wanted, seat)
            self._move_delayed(placed)
        return placed

    def _lead(self, hold: Hold) -> float:
        return max(self.asks[key].lead for key in hold.keys)

    def _beside_others(
        self,
        wanted: Hold,
        ahead: float,
        near: Iterable[int],
        seat: Seat | None,
        crowded: frozenset[int] = frozenset(),
    ) -> Seat | None:
        """A seat, or else another, where it is loaded in time beside all that is loaded there then.

        Args:
            crowded: nodes where the room for that has been taken already.
        """
        if seat is None or seat.node in crowded:
            return seat
        soon = self.begins(seat.node, ahead, wanted.start + self.longest_lead)
        others = [hold for hold in soon if hold.start - self._lead(hold) < wanted.start]
        if not others:
            return seat
        with self._loaded(others):
            if self.book.is_free(seat, ahead, wanted.start):
                return seat
            crowded |= {seat.node}
            if len(crowded) == CROWDED:
                return None
            return self._beside_others(wanted, ahead, near, self.find(wanted, ahead, near), crowded)

    @contextmanager
    def _loaded(self, holds: Iterable[Hold]) -> Iterator[dict[int, float]]:
        """Takes the room in which these are loaded, the strongest claim first; from when on, by number."""
        book, begins, taken = self.book, dict[int, float](), []
        for hold in sorted(holds, key=lambda hold: (self._claim(hold), hold.rank)):
            begin = min(max(hold.start - self._lead(hold), self.at), hold.start)
            begins[hold.number] = free = book.free_since(hold.seat, hold.start, begin)
            if free < hold.start:
                since = book.edge_before(free)
                taken.append((book.take(hold.seat, since, hold.start), since, hold.start))
        try:
            yield begins
        finally:
            for seat, start, end in reversed(taken):
                book.give(seat, start, end)

    def _delayed(self, placed: Hold) -> list[Hold]:
        """What starts on its node soon after a hold ends, and is loaded late for it."""
        end, fits = placed.end, self.book.fits
        soon = self.begins(placed.seat.node, end, end + self.longest_lead)
        early = [hold for hold in soon if hold.start - self._lead(hold) < end]
        if len(early) < 2:
            return [hold for hold in early if not fits(hold.seat, end - 1, hold.start)]
        with self._loaded(early) as begins:
            return in_order([hold for hold in early if begins[hold.number] >= end])

    def _move_delayed(self, placed: Hold) -> None:
        """Move what would be loaded late for a hold, if it is in time elsewhere."""
        for hold in self._delayed(placed):
            if not hold.settled and hold.model != placed.model:
                begun = self.mark()
                self.drop(hold)
                ahead = max(hold.start - self._lead(hold), self.at)
                seat = self._beside_others(hold, ahead, (), self.find(hold, ahead))
                if seat is not None:
                    seat = self.book.with_lane(seat, ahead, hold.end)
                if seat is None or self._delayed(self.put(hold, seat)):
                    self.undo(begun)

    # Room that is made

    def begin_moving(self) -> None:
        """Nodes may be tried to be cleared for another replica."""
        moves = MOVES_PER_REPLICA if len(self.book.nodes) < MANY_NODES else MOVES_IN_MANY
        self._moves = min(moves, self.moves_left)

    def _by_moving(self, wanted: Hold, depth: int = 0) -> Hold | None:
        """Clear a node of what has not started and can be elsewhere, by moving others in turn if it must."""
        if not depth:
            self.begin_moving()
            if placed := self._by_moving_at_once(wanted):
                return placed
        if self._moves <= 0:
            return None
        for node in islice(self._worth_clearing(wanted, self._is_pending), ATTEMPTS[depth]):
            begun = self.mark()
            if placed := self._in_place_of_others(node, wanted, depth):
                return placed
            self.undo(begun)
        return None

    def _by_moving_at_once(self, wanted: Hold) -> Hold | None:
        """Clear a node only of what has another seat already."""
        movable: dict[int, bool] = {}

        def may_go(hold: Hold) -> bool:
            if hold.number not in movable:
                window = hold.start, hold.end, hold.seat.node
                few = len(movable) < ASKED and not hold.settled
                movable[hold.number] = few and self.book.has_other(hold.need, *window)
            return movable[hold.number]

        nearest = self.book.nearly(wanted.need, wanted.start, wanted.end)
        for node in islice(nearest, min(self._moves, AT_ONCE)):
            begun = self.mark()
            placed, gone = self._clear(node, wanted, may_go)
            if placed is not None and all(map(self._again, gone)):
                return placed
            self.undo(begun)
        return None

    def _in_place_of_others(self, node: int, wanted: Hold, depth: int = 0) -> Hold | None:
        """Hold something on a node that is cleared for it, if all that was there finds a seat."""
        if self._moves <= 0:
            return None
        self._moves -= 1
        self.moves_left -= 1
        placed, gone = self._clear(node, wanted, self._is_pending)
        if placed is None or not self._elsewhere(placed, gone, depth):
            return None
        return self.holds[placed.number]

    def _elsewhere(self, placed: Hold, gone: Iterable[Hold], depth: int) -> bool:
        """Seat all that was cleared away for a hold, which itself stays where it is."""
        for hold in gone:
            if self._again(hold):
                continue
            if depth + 1 == len(ATTEMPTS):
                return False
            self._staying.add(placed.number)
            moved = self._by_moving(replace(hold, number=-1), depth + 1)
            self._staying.discard(placed.number)
            if moved is None:
                return False
        return True

    def _is_pending(self, hold: Hold) -> bool:
        return not hold.settled and hold.number not in self._staying

    def _by_displacing(self, wanted: Hold, displaced: list[str]) -> Hold | None:
        """Clear a node of weaker claims, at the least loss; what is kept for a while still, later."""
        may_go = self._weaker_than(wanted)
        if may_go is None:
            return None
        for start in self._starts(wanted):
            later, going = replace(wanted, start=start), partial(may_go, start)
            best: tuple[float, int] | None = None
            for node in self._worth_clearing(later, going):
                begun = self.mark()
                placed, gone = self._clear(node, later, going)
                if placed is not None:
                    loss = sum(hold.volume for hold in gone if not self._again(hold))
                    best = min(best, (loss, node)) if best else (loss, node)
                self.undo(begun)
            if best is not None:
                placed, gone = self._clear(best[1], later, going)
                for hold in gone:
                    if not self._again(hold):
                        displaced += sorted(hold.keys)
                return placed
        return None

    def _weaker_than(self, wanted: Hold) -> Callable[[float, Hold], bool] | None:
        """What may be displaced at an instant for a hold; None where nothing may be."""
        is_robbed = not self.robbed.isdisjoint(wanted.keys)
        is_spent = not self.spent.isdisjoint(wanted.keys)
        if not self._displaces or not (is_robbed or (self.has_weaker(wanted.priority) and not is_spent)):
            return None
        claim = self._claim(wanted)

        def may_go(instant: float, hold: Hold) -> bool:
            if hold.priority < wanted.priority:
                return hold.kept_until <= instant
            return is_robbed and not hold.settled and self._claim(hold) > claim

        return may_go

    def _claim(self, hold: Hold) -> tuple[int, float, str]:
        """The strongest claim of those for whom something is held."""
        return min(self.asks[key].claim for key in hold.keys)

    def _starts(self, wanted: Hold) -> list[float]:
        """When displacing may begin: at once, or when something has been kept for as long as it must."""
        kept = {
            hold.kept_until
            for hold in self.kept()
            if hold.priority < wanted.priority and wanted.start < hold.kept_until < wanted.end
        }
        return [wanted.start, *sorted(kept)[:3]]

    def _worth_clearing(self, wanted: Hold, may_go: Callable[[Hold], bool]) -> Iterator[int]:
        tried = 0
        for node in self.book.nearly(wanted.need, wanted.start, wanted.end):
            if any(map(may_go, self.during(node, wanted.start, wanted.end))):
                yield node
                tried += 1
                if tried == CLEARED:
                    return

    def _clear(
        self, node: int, wanted: Hold, may_go: Callable[[Hold], bool]
    ) -> tuple[Hold | None, list[Hold]]:
        """Take holds away from a node until another has room there; the largest of them first."""
        gone: list[Hold] = []
        if not self.agrees(wanted, node):
            return None, gone
        while (seat := self.book.room_on(node, wanted.need, wanted.start, wanted.end)) is None:
            instant, short = self.book.tightest(node, wanted.need, wanted.start, wanted.end)
            there = in_order([hold for hold in self.there(node) if hold.start <= instant < hold.end])
            holders = [hold for hold in there if may_go(hold)]
            if not holders or len(gone) == MAX_MOVED:
                return None, gone
            victim = _least(holders, short)
            self.drop(victim)
            gone.append(victim)
        gone.sort(key=lambda hold: (-hold.volume, hold.rank))
        return self.put(wanted, seat), [self._rest(hold, wanted.start) for hold in gone]

    def _rest(self, hold: Hold, instant: float) -> Hold:
        """What is left of a hold that is gone: of one that has begun, what is after an instant."""
        if not hold.settled:
            return hold
        if hold.start < instant and self.at < instant:
            self.put(replace(hold, end=instant, number=-1))
            return replace(hold, start=instant)
        return replace(hold, start=max(hold.start, self.at))

    def _again(self, hold: Hold) -> bool:
        """Seat what was taken away anew, if it can be."""
        seat = self.find(hold, hold.start)
        if seat is None:
            return False
        ahead = max(hold.start - self._lead(hold), self.at)
        if ahead < hold.start and not self.book.is_free(seat, ahead, hold.start):
            earlier = self.find(hold, ahead)
            seat = self.book.with_lane(earlier, ahead, hold.end) if earlier else seat
        self.put(replace(hold, seat=seat, number=-1, settled=hold.start <= self.at))
        return True


def _least(holders: Iterable[Hold], short: int) -> Hold:
    """The one that is moved with the least, of those that are enough if any is."""
    ranked = [((hold.seat.units < short, hold.volume), hold) for hold in holders]
    least = min(cost for cost, _ in ranked)
    return min((hold for cost, hold in ranked if cost == least), key=attrgetter("rank"))
