"""What the driver of one-by-one bookings looks after."""

from __future__ import annotations

from benchmarks.placement.desk import promised
from benchmarks.placement.instance import WHOLE
from tests.benchmarks.small import Booking, instance

FIRST, SECOND = Booking(0, 8, booked=-50), Booking(4, 12, booked=2000)


class Desk:
    """Admits what it is told to; where it puts things changes with each booking."""

    def __init__(self, seats: list[dict[int, tuple[int, int]]], admits: set[int]) -> None:
        self._seats, self._admits, self.booked = seats, admits, list[int]()

    def book(self, booking: int) -> bool:
        self.booked.append(booking)
        return booking in self._admits

    def seat(self, booking: int) -> tuple[int, int] | None:
        return self._seats[len(self.booked) - 1].get(booking)


def test_bookings_come_in_the_order_of_booking() -> None:
    given = instance([(1, 80)], SECOND, FIRST)
    desk = Desk([{}, {}], set())
    found = promised(given, desk)
    assert desk.booked == [1, 0]
    assert not found.placed.any()
    assert found.verdict_seconds is not None and len(found.verdict_seconds) == 2


def test_what_runs_and_is_elsewhere_at_the_end_was_moved() -> None:
    given = instance([(1, 80), (1, 80)], FIRST, SECOND)
    stayed = promised(given, Desk([{0: (0, WHOLE)}, {0: (0, WHOLE)}], {0}))
    moved = promised(given, Desk([{0: (0, WHOLE)}, {0: (1, WHOLE)}], {0}))
    assert (stayed.moves, moved.moves) == (0, 1)
    assert stayed.node.tolist() == [0, -1]


def test_what_has_not_started_may_move() -> None:
    later = Booking(4, 8, booked=-50)
    given = instance([(1, 80), (1, 80)], later, SECOND)
    assert promised(given, Desk([{0: (0, WHOLE)}, {0: (1, WHOLE)}], {0})).moves == 0


def test_a_promise_without_a_seat_is_broken() -> None:
    given = instance([(1, 80)], FIRST, SECOND)
    assert promised(given, Desk([{0: (0, WHOLE)}, {}], {0})).withdrawn == 1
