"""The checker of placements finds what cannot be, and says how late a model is there."""

from __future__ import annotations

import pytest

from benchmarks.placement.check import LEAD_BASE_SECONDS, LOAD_BYTES_PER_SECOND, Overbooked, check
from benchmarks.placement.instance import SLOT_SECONDS, WHOLE
from tests.benchmarks.small import GB, Booking, instance, result

ON_NODE = (0, WHOLE)


def lead(gb: float) -> float:
    return LEAD_BASE_SECONDS + gb * GB / LOAD_BYTES_PER_SECOND


def test_whole_gpus_fit_as_long_as_their_number_does() -> None:
    given = instance([(4, 80)], Booking(0, 4, gpus=2), Booking(2, 6, gpus=2), Booking(4, 8, gpus=2))
    check(given, result(given, ON_NODE, ON_NODE, ON_NODE))


def test_one_gpu_too_many_at_one_instant_is_found() -> None:
    given = instance([(4, 80)], Booking(0, 4, gpus=2), Booking(2, 6, gpus=2), Booking(3, 8, gpus=1))
    with pytest.raises(Overbooked, match="booking 2 needs 1 GPUs of node 0, 0 are idle"):
        check(given, result(given, ON_NODE, ON_NODE, ON_NODE))


def test_refused_bookings_take_nothing() -> None:
    given = instance([(1, 80)], Booking(0, 4), Booking(0, 4))
    check(given, result(given, ON_NODE, None))


def test_bookings_share_a_gpu_up_to_its_memory() -> None:
    both = Booking(0, 4, gb=40, gpus=0), Booking(1, 5, gb=40, gpus=0)
    given = instance([(1, 80)], *both)
    check(given, result(given, (0, 0), (0, 0)))
    given = instance([(1, 80)], *both, Booking(3, 6, gb=1, gpus=0))
    with pytest.raises(Overbooked, match="81000000000 bytes on lane 0 of node 0"):
        check(given, result(given, (0, 0), (0, 0), (0, 0)))


def test_a_lane_draws_a_gpu_only_while_something_is_on_it() -> None:
    shared, whole = Booking(0, 4, gpus=0), Booking(4, 8, gpus=2)
    given = instance([(2, 80)], shared, whole, Booking(8, 9, gpus=0))
    check(given, result(given, (0, 7), ON_NODE, (0, 7)))
    given = instance([(2, 80)], shared, whole, Booking(3, 5, gpus=0))
    with pytest.raises(Overbooked, match="booking 1 needs 2 GPUs of node 0, 1 are idle"):
        check(given, result(given, (0, 7), ON_NODE, (0, 7)))


def test_two_lanes_are_two_gpus() -> None:
    given = instance([(1, 80)], Booking(0, 4, gpus=0), Booking(1, 2, gpus=0))
    with pytest.raises(Overbooked, match="booking 1 needs 1 GPUs"):
        check(given, result(given, (0, 0), (0, 1)))


@pytest.mark.parametrize(
    ("booking", "seat", "message"),
    [
        (Booking(0, 4, gb=10, gpus=0), ON_NODE, "whole GPUs of node 0, where it takes none"),
        (Booking(0, 4, gb=10, gpus=1), (0, 0), "shares a GPU of node 0, where it cannot"),
        (Booking(0, 4, gb=90, gpus=0), (0, 0), "shares a GPU of node 0, where it cannot"),
        (Booking(0, 4, gpus=4), ON_NODE, "whole GPUs of node 0, where it takes none"),
        (Booking(0, 4, kind="40G"), ON_NODE, "whole GPUs of node 0, where it takes none"),
        (Booking(0, 4), (3, WHOLE), "is on node 3, there are 1"),
    ],
)
def test_where_a_booking_can_never_be(booking: Booking, seat: tuple[int, int], message: str) -> None:
    given = instance([(2, 80)], booking)
    with pytest.raises(Overbooked, match=message):
        check(given, result(given, seat))


def test_large_models_take_as_many_gpus_as_they_need() -> None:
    given = instance([(4, 80)], Booking(0, 4, gb=170, gpus=0), Booking(0, 4), Booking(0, 4))
    with pytest.raises(Overbooked, match="booking 2 needs 1 GPUs of node 0, 0 are idle"):
        check(given, result(given, ON_NODE, ON_NODE, ON_NODE))


def test_a_model_is_in_time_if_its_room_was_free_for_as_long_as_loading_takes() -> None:
    given = instance([(2, 80)], Booking(0, 4, gb=80), Booking(5, 8, gb=80))
    assert check(given, result(given, ON_NODE, ON_NODE)).tolist() == [0, 0]


def test_a_model_is_late_by_what_is_missing_of_its_loading_time() -> None:
    given = instance([(1, 400)], Booking(0, 4, gb=300), Booking(5, 8, gb=300))
    assert check(given, result(given, ON_NODE, ON_NODE)).tolist() == [0, lead(300) - SLOT_SECONDS]
    back_to_back = instance([(1, 80)], Booking(0, 4), Booking(4, 8))
    assert check(back_to_back, result(back_to_back, ON_NODE, ON_NODE)).tolist() == [0, lead(10)]


def test_room_on_a_shared_gpu_counts_from_when_there_is_enough() -> None:
    half, late = Booking(0, 4, gb=50, gpus=0), Booking(4, 8, gb=40, gpus=0)
    given = instance([(1, 80)], Booking(0, 9, gb=10, gpus=0), half, late)
    assert check(given, result(given, (0, 0), (0, 0), (0, 0)))[2] == lead(40)
    given = instance([(1, 80)], Booking(0, 9, gb=10, gpus=0), half, Booking(4, 8, gb=20, gpus=0))
    assert check(given, result(given, (0, 0), (0, 0), (0, 0)))[2] == 0


def test_who_decides_at_the_start_is_late_by_all_of_it() -> None:
    given = instance([(1, 80)], Booking(3, 4))
    decided = result(given, ON_NODE)
    decided.decided_at_start = True
    assert check(given, decided).tolist() == [lead(10)]
