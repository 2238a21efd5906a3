"""The question as a model for OR-tools CP-SAT.

Capacity is a row at each instant at which most pieces overlap, and no cumulative constraint. Whole
GPUs are counted by node, which is exact as windows are intervals; shares are a boolean for each lane.
One worker with a fixed seed, and a limit in deterministic time, so that a question has one answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from scheduler.planning.book import WHOLE
from scheduler.planning.exact.words import (
    LaneName,
    Move,
    Opinion,
    OpinionState,
    Option,
    Piece,
    Question,
    Room,
    Row,
)

if TYPE_CHECKING:
    from ortools.sat.python import cp_model

SHARE_OF_FINDING = 0.6
SHARE_OF_PROVING = 0.2
"""Of the time allowed; what is left is for fewer moves."""
DETERMINISTIC = 0.5
"""Of the solver's deterministic time in a second of a processor, about, as measured on such questions."""
BACKSTOP = 2.0
"""Times as long as allowed that an answer may take by the clock, on a machine that is busy."""


def solve(question: Question, seconds: float) -> Opinion:
    """A packing, a proof that there is none, or neither within about so many seconds.

    Imports OR-tools, which no process must that has imported highspy (google/or-tools#5246).
    """
    known = obvious(question, seconds)
    if known is not None:
        return known
    everything = _Model(question, frozenset(range(len(question.pieces))), only_core=False)
    found = everything.search(seconds * SHARE_OF_FINDING)
    if found is not None:
        fewer = everything.search(seconds * (1 - SHARE_OF_FINDING - SHARE_OF_PROVING), start_from=found)
        return _found(question, fewer or found, seconds)
    if not question.complete:
        return _opinion(question, OpinionState.NOT_FOUND, seconds)
    bound = frozenset(
        number
        for number, piece in enumerate(question.pieces)
        if piece.asked or not (piece.yields or piece.elsewhere)
    )
    relaxed = _Model(question, bound, only_core=True)
    if everything.impossible and relaxed.size == everything.size:
        return _opinion(question, OpinionState.PROVEN, seconds)
    relaxed.search(seconds * SHARE_OF_PROVING)
    return _opinion(question, OpinionState.PROVEN if relaxed.impossible else OpinionState.NOT_FOUND, seconds)


def obvious(question: Question, seconds: float) -> Opinion | None:
    """What can be said at once: what is known to be hopeless, and what is too large to be asked."""
    if question.hopeless:
        return _opinion(question, OpinionState.PROVEN, seconds)
    return None if question.rooms else _opinion(question, OpinionState.NOT_FOUND, seconds)


def _opinion(question: Question, state: OpinionState, seconds: float) -> Opinion:
    return Opinion(question.event, question.digest, state, seconds, question.full_at)


Seat = tuple[int, int | None]
"""A room and a lane of it, both by number; new lanes come after those that have names."""


@dataclass(slots=True)
class _Use:
    """A way to seat a piece, and what it takes then."""

    seat: Seat
    units: int
    taken: cp_model.IntVar


@dataclass(slots=True)
class _Uses:
    """All ways to seat one piece."""

    by_room: dict[int, list[_Use]] = field(default_factory=dict)


class _Model:
    """Some of the pieces, and the rows they must keep to."""

    def __init__(self, question: Question, numbers: frozenset[int], only_core: bool) -> None:
        from ortools.sat.python import cp_model

        self.model = cp_model.CpModel()
        self.question = question
        self.impossible = False
        self._uses = {number: self._seats(number, far=only_core) for number in sorted(numbers)}
        rows = 0
        for index, room in enumerate(question.rooms):
            for row in room.rows:
                if row.core or not only_core:
                    self._keep_to(index, room, row)
                    rows += 1
        ways = sum(len(uses.by_room) for uses in self._uses.values())
        self.size = (len(numbers), ways, rows)

    def _seats(self, number: int, far: bool) -> _Uses:
        """Exactly one seat of those there are."""
        uses = _Uses()
        for option in self.question.pieces[number].options:
            if option.far and not far:
                continue
            seats = [(option.room, lane) for lane in self._lanes(number, option)]
            uses.by_room[option.room] = [
                _Use(seat, option.units, self.model.new_bool_var(f"{number}@{seat}")) for seat in seats
            ]
        self.model.add_exactly_one(use.taken for room in uses.by_room.values() for use in room)
        return uses

    def _lanes(self, number: int, option: Option) -> list[int | None]:
        """The lanes a piece may be on; new ones are alike, so the first piece is on the first, if on any."""
        if not option.shared:
            return [None]
        room = self.question.rooms[option.room]
        before = sum(
            any(other.room == option.room and other.shared for other in piece.options)
            for piece in self.question.pieces[:number]
        )
        return list(range(len(room.lanes) + min(room.new_lanes, before + 1)))

    def _keep_to(self, index: int, room: Room, row: Row) -> None:
        """What is left at one instant in one room is enough."""
        uses = [
            use
            for number in row.pieces
            if number in self._uses
            for use in self._uses[number].by_room.get(index, ())
        ]
        whole = [use for use in uses if use.seat[1] is None]
        by_lane: dict[int, list[_Use]] = {}
        for use in uses:
            if use.seat[1] is not None:
                by_lane.setdefault(use.seat[1], []).append(use)
        drawn = []
        for lane, on_it in sorted(by_lane.items()):
            free = row.lanes[lane] if lane < len(room.lanes) else None
            if free is None:
                draws = self.model.new_bool_var(f"{index}:{lane}@{row.instant}")
                for use in on_it:
                    self.model.add_implication(use.taken, draws)
                drawn.append(draws)
            if sum(use.units for use in on_it) > (WHOLE if free is None else free):
                left = WHOLE if free is None else free
                self.model.add(sum(use.units * use.taken for use in on_it) <= left)
        if sum(use.units for use in whole) + len(drawn) > row.gpus:
            self.model.add(sum(use.units * use.taken for use in whole) + sum(drawn) <= row.gpus)

    def search(self, seconds: float, start_from: dict[int, Seat] | None = None) -> dict[int, Seat] | None:
        """A seat for each piece, near to ``start_from`` and with fewer moves if that is given."""
        from ortools.sat.python import cp_model

        self.model.clear_hints()  # type: ignore[no-untyped-call]
        for number, uses in self._uses.items():
            home = start_from[number] if start_from else None
            for use in (use for room in uses.by_room.values() for use in room):
                at_home = use.seat[0] == self.question.pieces[number].home
                self.model.add_hint(use.taken, use.seat == home if home else at_home)
        if start_from:
            self.model.minimize(sum(self._moved(number) for number in self._uses))
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = 0
        solver.parameters.max_deterministic_time = seconds * DETERMINISTIC
        solver.parameters.max_time_in_seconds = seconds * BACKSTOP
        status = solver.solve(self.model)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            self.impossible = status == cp_model.INFEASIBLE
            return None
        return {
            number: next(
                use.seat for room in uses.by_room.values() for use in room if solver.boolean_value(use.taken)
            )
            for number, uses in self._uses.items()
        }

    def _moved(self, number: int) -> cp_model.LinearExprT:
        """1 if a piece is not where it was."""
        home = self.question.pieces[number].home
        if home is None:
            return 0
        return 1 - sum(use.taken for use in self._uses[number].by_room.get(home, ()))


def _found(question: Question, seats: dict[int, Seat], seconds: float) -> Opinion:
    """The packing in names: what moves, and what shares a device anew where something comes."""
    pieces = question.pieces
    entered = {seats[number][0] for number, piece in enumerate(pieces) if _comes(piece, seats[number])}
    moves, asked = [], []
    for number, piece in enumerate(pieces):
        room, lane = seats[number]
        move = Move(piece.stay, question.rooms[room].node, _lane(question.rooms[room], lane))
        if piece.asked or piece.home is None:
            asked.append(move)
        elif room != piece.home or (lane is not None and room in entered):
            moves.append(replace(move, home=question.rooms[piece.home].node))
    return Opinion(
        question.event,
        question.digest,
        OpinionState.FOUND,
        seconds,
        moves=tuple(moves),
        seats=tuple(asked),
    )


def _comes(piece: Piece, seat: Seat) -> bool:
    return piece.asked or seat[0] != piece.home


def _lane(room: Room, lane: int | None) -> LaneName | None:
    if lane is None:
        return None
    known = len(room.lanes)
    return room.lanes[lane] if lane < known else LaneName(new=lane - known)
