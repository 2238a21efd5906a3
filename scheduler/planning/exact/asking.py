"""From a refusal to a question: what may move, what is left without it, and what can be seen at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from scheduler.planning.admission import Admission
from scheduler.planning.book import WHOLE
from scheduler.planning.exact.full import Demand, full_at
from scheduler.planning.exact.words import LaneName, Limits, Option, Piece, Question, Room, Row, StayName
from scheduler.planning.holds import Ask, Hold
from scheduler.planning.needs import Need

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
FEWEST_NODES = 3
MAX_PARTS = 1_000
"""Replicas of one booking that are looked for; bounds the work."""


def question(admission: Admission, ask: Ask, *, limits: Limits | None = None) -> Question:
    """What the exact solver is asked about a booking that got less than it asked for.

    Time is looked at for as far around the window as the limits allow.
    """
    limits = limits or Limits()
    start = max(ask.start, admission.at)
    if start >= ask.end:
        return Question(ask.key, start, ask.end, (), (), complete=False)
    most, reach = limits.nodes, limits.reach_seconds
    while True:
        scope = _Scope(admission, ask, _nodes(admission, ask, most), reach, limits.pieces)
        asked = scope.question()
        large = count_terms(asked) > limits.terms
        if not (large or scope.capped) or asked.hopeless or (not reach and most <= FEWEST_NODES):
            return replace(asked, rooms=()) if large or scope.partial else asked
        if reach:
            reach = reach / 2 if reach > 3600 else 0.0
        else:
            most = max(min(most, len(admission.book.nodes)) // 2, FEWEST_NODES)


def missing(
    admission: Admission, ask: Ask, most: int = MAX_PARTS
) -> tuple[list[tuple[float, float]], list[Hold], bool]:
    """What a booking lacks: the parts of its window, one for each replica; the stays of its model that it
    has, or can share; and whether there is no other way to cut its window into such parts, nor to be
    served by stays of another need. Of more replicas than ``most`` only so many are looked for.
    """
    start = max(ask.start, admission.at)
    theirs = admission.beside(ask.model, start, ask.end)
    overlapping = [h for h in theirs if h.start < ask.end and h.end > start]
    theirs = [hold for hold in overlapping if hold.need == ask.need]
    theirs.sort(key=lambda h: (ask.key not in h.keys, not h.settled, h.start - h.end, h.rank))
    wanted = min(ask.replicas, len(theirs) + most)
    cuts = sorted(
        {start, ask.end, *(cut for h in theirs for cut in (h.start, h.end) if start < cut < ask.end)}
    )
    shared: dict[int, Hold] = {}
    parts: list[tuple[float, float]] = []
    begun: list[float] = []
    lacks: set[int] = set()
    for cut, until in pairwise(cuts):
        there = [hold for hold in theirs if hold.start <= cut and hold.end >= until][:wanted]
        shared.update((hold.number, hold) for hold in there)
        lack = wanted - len(there)
        lacks.add(lack)
        while len(begun) > lack:
            parts.append((begun.pop(), cut))
        begun += [cut] * (lack - len(begun))
    parts += [(cut, ask.end) for cut in begun]
    plain = len(theirs) == len(overlapping)
    return sorted(parts), list(shared.values()), plain and (len(lacks) == 1 or lacks <= {0, 1})


def name_of(hold: Hold) -> StayName:
    """What tells a stay from others in any plan."""
    return StayName(hold.model, float(hold.start), float(hold.end), tuple(sorted(hold.keys)))


def _nodes(admission: Admission, ask: Ask, most: int) -> list[int]:
    """The nodes that are looked at: those that lack least, and some where others could go."""
    book = admission.book
    if len(book.nodes) <= most:
        return list(range(len(book.nodes)))
    start = max(ask.start, admission.at)
    near = [node for node, _ in zip(book.nearly(ask.need, start, ask.end), range(most), strict=False)]
    roomy = book.pool.least(*book.span(start, ask.end))[: len(book.nodes)]
    others = [int(node) for node in np.argsort(-roomy, kind="stable") if node not in near]
    near = near[: max(most - 3, 3)] if others else near
    return sorted((near + others)[:most])


def count_terms(asked: Question) -> int:
    """How large a model the solver would be given."""
    lanes = [len(room.lanes) + room.new_lanes for room in asked.rooms]
    shared = [
        {
            number
            for number, piece in enumerate(asked.pieces)
            if any(option.room == index and option.shared for option in piece.options)
        }
        for index in range(len(asked.rooms))
    ]
    return sum(
        sum(2 * lanes[index] if number in shared[index] else 1 for number in row.pieces)
        for index, room in enumerate(asked.rooms)
        for row in room.rows
    )


@dataclass(slots=True)
class _Left:
    """What a node has left in each slot when what may move is taken away.

    ``free`` and ``drawn`` by lane: units, and whether a GPU is there already.
    """

    pool: Ints
    lanes: list[LaneName]
    free: list[Ints]
    drawn: list[Bools]


class _Scope:
    """One attempt to write a question down, ``reach`` seconds around the window."""

    def __init__(self, admission: Admission, ask: Ask, nodes: list[int], reach: float, most: int) -> None:
        self.admission, self.book, self.ask, self.nodes = admission, admission.book, ask, nodes
        self.start = max(ask.start, admission.at)
        self.core = (max(self.start - reach, admission.at), ask.end + reach)
        parts, _, self.plain = missing(admission, ask)
        self.parts, self.partial = parts[:most], len(parts) > most or ask.replicas > MAX_PARTS
        self.movable, self.capped = self._movable(most)

    def _movable(self, most: int) -> tuple[list[Hold], bool]:
        found = [
            hold
            for node in self.nodes
            for hold in self.admission.on_node(node)
            if not hold.settled and hold.start < self.core[1] and hold.end > self.core[0]
        ]
        found.sort(key=lambda h: (max(h.start - self.ask.end, self.start - h.end), h.rank))
        room = max(most - len(self.parts), 0)
        return sorted(found[:room], key=lambda h: h.rank), len(found) > room

    def question(self) -> Question:
        """The question, as far as this scope goes."""
        capped = self.capped
        self.book.cut(self.start, self.ask.end)
        while True:
            low = min([self.start, *(hold.start for hold in self.movable)])
            high = max([self.ask.end, *(hold.end for hold in self.movable)])
            self.first, self.last = self.book.cut(low, high)
            self.edges = np.array(self.book.edges[self.first : self.last])
            self.edges[0] = low
            left = [self._left(node) for node in self.nodes]
            pieces = [self._of_hold(hold, left) for hold in self.movable]
            stays = [any(not option.far for option in piece.options) for piece in pieces]
            if all(stays):
                break
            # it is where by the book there is no room: it stays there, whatever becomes of it
            self.movable = [hold for hold, may in zip(self.movable, stays, strict=True) if may]
            capped = True
        pieces += self._of_ask(left)
        complete = not capped and self.plain and self._sees_all()
        full, hopeless = self._full(pieces, left) if complete else (None, False)
        rooms = tuple(self._room(number, pieces, left[number]) for number in range(len(self.nodes)))
        return Question(
            self.ask.key,
            self.start,
            self.ask.end,
            tuple(pieces),
            () if hopeless else rooms,
            complete,
            hopeless,
            full,
        )

    # What is left

    def _left(self, node: int) -> _Left:
        book, first, last = self.book, self.first, self.last
        gone = [hold for hold in self.movable if hold.seat.node == node]
        pool = book.pool.column(node, first, last).astype(np.int64)
        back: dict[int, Ints] = {}
        for hold in gone:
            low, high = self._slots(hold.start, hold.end)
            if hold.seat.lane is None:
                pool[low:high] += hold.seat.units
            else:
                units = back.setdefault(hold.seat.lane, np.zeros(last - first, dtype=np.int64))
                units[low:high] += hold.seat.units
        left = _Left(pool, [], [], [])
        for number, lane in enumerate(book.lanes_of.get(node, ())):
            before = book.lanes.column(lane, first, last).astype(np.int64)
            free = before + back.get(lane, 0)
            fixed = lane < book.fixed
            if not fixed:
                pool += (before < WHOLE) & (free == WHOLE)
            anchor = None if fixed else self._anchor(node, lane)
            if fixed or anchor is not None:
                left.lanes.append(LaneName(fixed=number) if fixed else LaneName(beside=anchor))
                left.free.append(free)
                left.drawn.append((free < WHOLE) | fixed)
        return left

    def _anchor(self, node: int, lane: int) -> StayName | None:
        """The first stay on a lane that is there whatever moves."""
        moving = {hold.number for hold in self.movable}
        low, high = self.edges[0], self._until(len(self.edges))
        names = [
            name_of(hold)
            for hold in self.admission.on_node(node)
            if hold.seat.lane == lane and hold.number not in moving and hold.start < high and hold.end > low
        ]
        return min(names, key=lambda n: (n.start, n.model, n.end, n.events), default=None)

    def _slots(self, start: float, end: float) -> tuple[int, int]:
        """The slots a window touches."""
        low = np.searchsorted(self.edges, start, side="right") - 1
        return max(int(low), 0), int(np.searchsorted(self.edges, end))

    def _until(self, slot: int) -> float:
        number = self.first + slot
        return self.book.edges[number] if number < len(self.book.edges) else float("inf")

    # What needs a seat

    def _of_hold(self, hold: Hold, left: list[_Left]) -> Piece:
        home = self.nodes.index(hold.seat.node)
        return Piece(
            name_of(hold),
            self._options(hold.need, hold.start, hold.end, left, hold.seat.node),
            home=home,
            yields=hold.priority < self.ask.priority,
            elsewhere=self._elsewhere(hold.need),
        )

    def _of_ask(self, left: list[_Left]) -> list[Piece]:
        pieces = []
        for start, end in self.parts:
            beside = [
                hold.seat.node
                for hold in self.admission.of_model(self.ask.model)
                if (hold.end == start or hold.start == end) and hold.seat.node in self.nodes
            ]
            stay = StayName(self.ask.model, start, end, (self.ask.key,))
            options = self._options(self.ask.need, start, end, left)
            home = self.nodes.index(beside[0]) if beside else None
            pieces.append(Piece(stay, options, home=home, asked=True))
        return pieces

    def _options(
        self, need: Need, start: float, end: float, left: list[_Left], home: int | None = None
    ) -> tuple[Option, ...]:
        """Where a piece could be if nothing else moved there."""
        fit = self.book.fit(need)
        slots = self._slots(start, end)
        near = self._slots(max(start, self.core[0]), min(end, self.core[1]))
        options = []
        for room, (node, there) in enumerate(zip(self.nodes, left, strict=True)):
            whole, share = int(fit.whole[node]), int(fit.share[node])
            if self.book.nodes[node].closed and node != home:
                continue
            if _has_room(there, whole, share, slice(*near)):
                far = not _has_room(there, whole, share, slice(*slots))
                options.append(Option(room, whole or share, not whole, far))
        return tuple(options)

    def _able(self, need: Need) -> Iterable[int]:
        fit, book = self.book.fit(need), self.book
        able = ((fit.whole > 0) & (fit.whole <= book.pool_size)) | (fit.share > 0)
        return (int(node) for node in np.flatnonzero(able) if not book.nodes[node].closed)

    def _elsewhere(self, need: Need) -> bool:
        return len(self.nodes) < len(self.book.nodes) and any(
            node not in self.nodes for node in self._able(need)
        )

    def _sees_all(self) -> bool:
        """Whether nothing was left out that could make room: nodes, or what is there and may be displaced."""
        if self._elsewhere(self.ask.need):
            return False
        return not any(
            hold.settled
            and hold.priority < self.ask.priority
            and hold.kept_until < self.ask.end
            and hold.start < self.ask.end
            and hold.end > self.start
            for node in self.nodes
            for hold in self.admission.on_node(node)
        )

    def _full(self, pieces: list[Piece], left: list[_Left]) -> tuple[float | None, bool]:
        """The instant at which more is needed than there is; and whether there is no room at all."""
        low, high = self._slots(self.start, self.ask.end)
        demands, nowhere = [], False
        for piece in pieces:
            first, last = self._slots(piece.stay.start, piece.stay.end)
            if not piece.yields and not piece.elsewhere and first < high and last > low:
                options = piece.options
                if not options:
                    options = self._by_size(self.ask.need)
                nowhere |= not piece.options
                demands.append(Demand(max(first, low) - low, min(last, high) - low, options, piece.asked))
        if any(not demand.options for demand in demands):
            return None, True
        slot = full_at(
            demands,
            [there.pool[low:high] for there in left],
            [[free[low:high] for free in there.free] for there in left],
            [[drawn[low:high] for drawn in there.drawn] for there in left],
        )
        if slot is None:
            return None, nowhere
        return max(float(self.edges[low + slot]), self.start), True

    def _by_size(self, need: Need) -> tuple[Option, ...]:
        fit, able = self.book.fit(need), set(self._able(need))
        return tuple(
            Option(room, int(fit.whole[node]) or int(fit.share[node]), shared=not fit.whole[node])
            for room, node in enumerate(self.nodes)
            if node in able
        )

    # What must hold

    def _room(self, number: int, pieces: list[Piece], left: _Left) -> Room:
        mine = [
            (index, *self._slots(piece.stay.start, piece.stay.end))
            for index, piece in enumerate(pieces)
            if any(option.room == number for option in piece.options)
        ]
        shared = {
            index
            for index, _, _ in mine
            if any(option.room == number and option.shared for option in pieces[index].options)
        }
        lanes = list(range(len(left.lanes))) if shared else []
        columns = [left.pool, *(np.where(left.drawn[lane], left.free[lane], -1) for lane in lanes)]
        kinds = np.stack(columns, axis=1)
        changed = np.flatnonzero((kinds[1:] != kinds[:-1]).any(axis=1)) + 1
        cuts = sorted({0, *changed.tolist(), *(cut for _, first, last in mine for cut in (first, last))})
        rows: list[Row] = []
        for slot in cuts:
            active = tuple(index for index, first, last in mine if first <= slot < last)
            if active:
                _add(rows, self._row(slot, active, kinds[slot].tolist()))
        new = min(max((row.gpus for row in rows), default=0), len(shared))
        names = tuple(left.lanes[lane] for lane in lanes)
        return Room(self.book.nodes[self.nodes[number]].name, names, new, tuple(rows))

    def _row(self, slot: int, active: tuple[int, ...], kind: list[int]) -> Row:
        instant = float(self.edges[slot])
        core = self.core[0] <= instant < self.core[1]
        return Row(instant, core, active, kind[0], tuple(None if free < 0 else free for free in kind[1:]))


def _has_room(there: _Left, whole: int, share: int, slots: slice) -> bool:
    """Whether a piece could be on a node during some slots if nothing else moved there."""
    pool = there.pool[slots]
    if whole or not share:
        return whole > 0 and int(pool.min(initial=whole)) >= whole
    return int(pool.min(initial=1)) > 0 or any(
        int(free[slots].min(initial=share)) >= share and bool((drawn[slots] | (pool > 0)).all())
        for free, drawn in zip(there.free, there.drawn, strict=True)
    )


def _add(rows: list[Row], row: Row) -> None:
    """Keep a row unless the one before asks for as much, and that one unless this does."""
    if rows and _implies(rows[-1], row):
        return
    while rows and _implies(row, rows[-1]):
        rows.pop()
    rows.append(row)


def _implies(strict: Row, row: Row) -> bool:
    """Whether whatever keeps to one row keeps to the other."""
    return (
        strict.core >= row.core
        and strict.gpus <= row.gpus
        and all(
            (mine is None) == (theirs is None) and (mine is None or theirs is None or mine <= theirs)
            for mine, theirs in zip(strict.lanes, row.lanes, strict=True)
        )
        and set(row.pieces) <= set(strict.pieces)
    )
