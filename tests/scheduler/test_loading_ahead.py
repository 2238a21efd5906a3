"""When what is to come is loaded, where several need the same room for it, and what each is told."""

from __future__ import annotations

from datetime import timedelta

from scheduler.types import ActionKind, Plan
from tests.scheduler.builders import NOON, actions, booking, carried_out, cluster, gpus, known, planned

SIZES = known(x=60, a=60, b=60, large=70)
PAIR = cluster(gpus("n", 2, 80))
BLOCKS = booking("org/x", 0, 2, gpus=1)
"""It holds one of both GPUs until 14:00. Loading takes a minute, and a second for each GiB."""


def lateness(plan: Plan) -> dict[str, tuple[float, tuple[str, ...]]]:
    """How many seconds late, and why, by title."""
    return {one.title: (one.late_seconds, one.late_because) for one in plan.verdicts}


def loaded(plan: Plan) -> list[tuple[str, int, float, float]]:
    """What is loaded later: model, replicas, minutes from 14:00, and how late."""
    two = NOON + timedelta(hours=2)
    return [
        (one.model.repo_id, one.replicas, (one.at - two) / timedelta(minutes=1), one.late_seconds)
        for one in plan.upcoming
        if one.kind is ActionKind.DEPLOY
    ]


def test_where_two_begin_together_and_one_gpu_is_free_the_second_is_told_so_at_once() -> None:
    first = booking("org/a", 2, 4, gpus=1, booked=-5)
    second = booking("org/b", 2, 4, gpus=1, booked=-4)
    all_three = [BLOCKS, first, second]
    plan = planned(all_three, PAIR, SIZES)
    told = lateness(plan)
    assert (told["org/a"], told["org/b"]) == ((0, ()), (120, ("org/x",)))
    assert loaded(plan) == [("org/a", 1, -2, 0), ("org/b", 1, 0, 120)]
    then = planned(
        all_three, PAIR, SIZES, running=carried_out(plan), previous=plan, at=NOON + timedelta(minutes=118)
    )
    assert actions(then) == ["deploy a n (starts soon)"]
    assert lateness(then) == told


def test_replicas_of_one_booking_are_loaded_one_after_the_other_where_room_is_only_for_one() -> None:
    plan = planned([BLOCKS, booking("org/a", 2, 4, gpus=1, replicas=2)], PAIR, SIZES)
    assert lateness(plan)["org/a"] == (120, ("org/x",))
    assert loaded(plan) == [("org/a", 1, -2, 0), ("org/a", 1, 0, 120)]


def test_the_stronger_claim_has_the_room_though_the_other_would_be_loaded_before() -> None:
    strong = booking("org/a", 2, 4, gpus=1, booked=-5)
    weak = booking("org/large", 2, 4, gpus=1, booked=-4)
    plan = planned([BLOCKS, strong, weak], PAIR, SIZES)
    assert loaded(plan) == [("org/a", 1, -2, 0), ("org/large", 1, 0, 130)]
    then = planned(
        [BLOCKS, strong, weak],
        PAIR,
        SIZES,
        running=carried_out(plan),
        previous=plan,
        at=NOON + timedelta(minutes=117.9),
    )
    assert actions(then) == []


def test_nothing_is_late_where_one_is_gone_before_the_next_must_be_loaded() -> None:
    first = booking("org/a", 1, 1.5, gpus=1, booked=-5)
    second = booking("org/b", 2, 4, gpus=1, booked=-4)
    plan = planned([BLOCKS, first, second], PAIR, SIZES)
    assert lateness(plan) == {"org/x": (0, ()), "org/a": (0, ()), "org/b": (0, ())}
