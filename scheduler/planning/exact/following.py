"""Carrying out the packing an opinion tells, if it still is one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from scheduler.planning.admission import Admission
from scheduler.planning.book import NEW_LANE, Book, Seat
from scheduler.planning.exact.asking import missing, name_of
from scheduler.planning.exact.words import LaneName, Move, Opinion, OpinionState, StayName
from scheduler.planning.holds import Ask, Hold


def follow(admission: Admission, ask: Ask, opinion: Opinion) -> bool:
    """Give a booking the seats an opinion found for it, and move what it says; all of it or nothing.

    Each seat is checked against the book, so an opinion that is out of date does no harm.
    """
    if opinion.state is not OpinionState.FOUND or opinion.event != ask.key:
        return False
    begun = admission.mark()
    before = admission.asks.get(ask.key)
    admission.ask(ask)
    if _follow(admission, ask, opinion):
        admission.keep()
        return True
    admission.undo(begun)
    if before is None:
        del admission.asks[ask.key]
    else:
        admission.ask(before)
    return False


def _follow(admission: Admission, ask: Ask, opinion: Opinion) -> bool:
    parts, shared, _ = missing(admission, ask)
    names = [StayName(ask.model, start, end, (ask.key,)) for start, end in parts]
    if sorted(names, key=_order) != sorted((seat.stay for seat in opinion.seats), key=_order):
        return False
    wanted = _wanted(admission, opinion.moves)
    if wanted is None:
        return False
    for seat in opinion.seats:
        settled = seat.stay.start <= admission.at
        own = frozenset({ask.key})
        hold = Hold(
            -1,
            ask.model,
            ask.need,
            Seat(0, None, 0),
            seat.stay.start,
            seat.stay.end,
            own,
            ask.priority,
            settled,
        )
        wanted.append((hold, seat))
    for hold, _ in wanted:
        if hold.number >= 0:
            admission.drop(hold)
    wanted.sort(key=_lanes_in_use_first)
    placed = _place(admission, wanted)
    if placed is None or not all(map(admission.agrees, placed)):
        return False
    for hold in shared:
        _share(admission, hold.number, ask)
    for hold in placed:
        if hold.keys == {ask.key} and hold.number in admission.holds:
            _join(admission, hold)
    return True


def _lanes_in_use_first(one: tuple[Hold, Move]) -> int:
    """New lanes last, one after the other: what is opened is where nothing else will be."""
    lane = one[1].lane
    return -1 if lane is None or lane.new is None else lane.new


def _order(stay: StayName) -> tuple[str, float, float, tuple[str, ...]]:
    return (stay.model, stay.start, stay.end, stay.events)


def _wanted(admission: Admission, moves: Iterable[Move]) -> list[tuple[Hold, Move]] | None:
    """The stays that are to move, by their names; None unless each is there, and has not started."""
    found: list[tuple[Hold, Move]] = []
    taken: set[int] = set()
    for move in moves:
        named = _named(admission, move.stay, admission.book.index.get(move.home or ""))
        hold = next((one for one in named if one.number not in taken and not one.settled), None)
        if hold is None:
            return None
        taken.add(hold.number)
        found.append((hold, move))
    return found


def _named(admission: Admission, name: StayName, node: int | None) -> list[Hold]:
    """The stays of that name on a node."""
    return [h for h in admission.of_model(name.model) if h.seat.node == node and name_of(h) == name]


def _place(admission: Admission, wanted: Sequence[tuple[Hold, Move]]) -> list[Hold] | None:
    """Seat everything where it is to be; None if one seat is taken."""
    book = admission.book
    opened: dict[tuple[str, int], int] = {}
    placed = []
    for hold, move in wanted:
        node = book.index.get(move.node)
        if node is None or (book.nodes[node].closed and node != hold.seat.node):
            return None
        fit = book.fit(hold.need)
        whole, share = int(fit.whole[node]), int(fit.share[node])
        seat: Seat | None
        if move.lane is None:
            seat = Seat(node, None, whole) if whole else None
        else:
            lane = _lane(admission, node, move.lane, opened, wanted)
            seat = Seat(node, lane, share) if share and lane is not None else None
        if seat is None or not book.fits(seat, hold.start, hold.end):
            return None
        placed.append(admission.put(replace(hold, seat=seat)))
    return placed


def _lane(
    admission: Admission,
    node: int,
    name: LaneName,
    opened: dict[tuple[str, int], int],
    wanted: Sequence[tuple[Hold, Move]],
) -> int | None:
    """The number of a lane in this book; a new one is opened once for all that share it."""
    book = admission.book
    if name.fixed is not None:
        lanes = [lane for lane in book.lanes_of.get(node, ()) if lane < book.fixed]
        return lanes[name.fixed] if name.fixed < len(lanes) else None
    if name.beside is not None:
        beside = _named(admission, name.beside, node)
        return beside[0].seat.lane if beside else None
    group = (book.nodes[node].name, name.new or 0)
    if group not in opened:
        windows = [
            (hold.start, hold.end) for hold, move in wanted if (move.node, move.lane) == (group[0], name)
        ]
        opened[group] = _open(book, node, min(w[0] for w in windows), max(w[1] for w in windows))
    return opened[group]


def _open(book: Book, node: int, start: float, end: float) -> int:
    """A lane nothing is on during a window."""
    seat = book.take(Seat(node, NEW_LANE, 0), start, end)
    book.give(seat, start, end)
    assert seat.lane is not None
    return seat.lane


def _share(admission: Admission, number: int, ask: Ask) -> None:
    """A stay of the model is for this booking, too."""
    hold = admission.holds[number]
    if ask.key not in hold.keys:
        admission.drop(hold)
        admission.put(replace(hold, keys=hold.keys | {ask.key}, priority=max(hold.priority, ask.priority)))


def _join(admission: Admission, hold: Hold) -> None:
    """One stay of a new part and all that it touches in the same place."""
    while (other := _touching(admission, hold)) is not None:
        admission.drop(hold)
        admission.drop(other)
        hold = admission.put(
            replace(
                other,
                start=min(hold.start, other.start),
                end=max(hold.end, other.end),
                keys=hold.keys | other.keys,
                priority=max(hold.priority, other.priority),
                settled=hold.settled or other.settled,
                kept_until=max(hold.kept_until, other.kept_until),
            )
        )


def _touching(admission: Admission, hold: Hold) -> Hold | None:
    for other in admission.of_model(hold.model):
        same = other.seat == hold.seat and other.need == hold.need
        if same and (other.end == hold.start or other.start == hold.end):
            return other
    return None
