"""When what is to come is loaded, where several need the same room for it, and what each is told."""

from __future__ import annotations

from datetime import timedelta

from scheduler.types import ActionKind, DeploymentStatus, Plan
from tests.scheduler.builders import (
    NOON,
    actions,
    booking,
    carried_out,
    cluster,
    deployed,
    gpus,
    known,
    planned,
)

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


def test_who_booked_too_late_is_told_so_until_it_serves() -> None:
    on, late = cluster(gpus("n", 1, 80)), booking("org/a", 0, 2, booked=-0.02)
    plan = planned([late], on, SIZES, at=NOON - timedelta(seconds=50))
    assert lateness(plan) == {"org/a": (70, ())}
    (placement,) = plan.placements
    loading = deployed(placement, DeploymentStatus.LOADING, since=plan.at)
    for seconds in (40, 1):
        at = NOON - timedelta(seconds=seconds)
        then = planned([late], on, SIZES, running=[loading], previous=plan, at=at)
        assert then.verdicts[0].ready_by == plan.at + timedelta(seconds=120)
        assert lateness(then) == {"org/a": (70, ())}
    serves = planned([late], on, SIZES, running=carried_out(plan), previous=plan, at=at)
    assert lateness(serves) == {"org/a": (0, ())}


def test_what_takes_longer_than_was_reckoned_is_ready_at_once_at_the_earliest() -> None:
    on, late = cluster(gpus("n", 1, 80)), booking("org/a", 0.1, 2)
    plan = planned([late], on, SIZES, at=NOON + timedelta(minutes=4))
    loading = deployed(plan.placements[0], DeploymentStatus.LOADING, since=NOON)
    then = planned([late], on, SIZES, running=[loading], previous=plan, at=NOON + timedelta(minutes=5))
    assert then.verdicts[0].ready_by == then.at
    assert actions(then) == []


def test_who_joins_a_stay_that_is_still_being_loaded_is_told_when_it_will_serve() -> None:
    on = cluster(gpus("n", 1, 80))
    first, joins = booking("org/a", 0, 2, key="first"), booking("org/a", 0.01, 2, key="joins")
    plan = planned([first, joins], on, SIZES)
    told = plan.verdicts[1]
    assert (told.ready_by, told.late_seconds) == (NOON + timedelta(seconds=120), 84)
    loading = deployed(plan.placements[0], DeploymentStatus.LOADING, since=NOON)
    at = NOON + timedelta(seconds=30)
    then = planned([first, joins], on, SIZES, running=[loading], previous=plan, at=at)
    assert then.verdicts[1] == told
    serves = planned([first, joins], on, SIZES, running=carried_out(plan), previous=plan, at=at)
    assert (serves.verdicts[1].ready_by, serves.verdicts[1].late_seconds) == (None, 0)


def test_who_joins_a_stay_and_has_a_replica_of_its_own_is_told_when_that_serves() -> None:
    first = booking("org/a", 1, 4, gpus=1, key="first", booked=-9)
    joins = booking("org/a", 2, 4, gpus=1, key="joins", replicas=2)
    plan = planned([BLOCKS, first, joins], PAIR, SIZES)
    told = {one.event: (one.late_seconds, one.late_because) for one in plan.verdicts}
    assert (told["first"], told["joins"]) == ((0, ()), (120, ("org/x",)))


def test_what_was_loaded_ahead_beside_what_serves_is_not_told_to_be_late() -> None:
    on = cluster(gpus("n", 2, 80))
    runs = booking("org/a", -1, 2, gpus=1, key="runs")
    more = booking("org/a", 0.5, 2, gpus=1, key="more", replicas=2)
    before = planned([runs, more], on, SIZES)
    loads = planned(
        [runs, more],
        on,
        SIZES,
        running=carried_out(before),
        previous=before,
        at=NOON + timedelta(minutes=28),
    )
    assert [one.replicas for one in loads.placements] == [2]
    then = planned(
        [runs, more], on, SIZES, running=carried_out(loads), previous=loads, at=NOON + timedelta(minutes=29)
    )
    assert lateness(then) == {"org/a": (0, ())}
    assert then.verdicts[1].ready_by == then.at


TWO = cluster(gpus("n", 2, 80), gpus("o", 2, 80))


def nodes(plan: Plan) -> list[tuple[str, str]]:
    """Where each stay is, by model."""
    return sorted((one.model.split('"')[3], one.node) for one in plan.promises.stays)


def test_what_could_not_be_loaded_beside_another_goes_where_it_is_loaded_in_time() -> None:
    first = booking("org/a", 2, 4, gpus=1, booked=-5)
    second = booking("org/b", 2, 4, gpus=1, booked=-4)
    plan = planned([BLOCKS, first, second], TWO, SIZES)
    assert nodes(plan) == [("org/a", "n"), ("org/b", "o"), ("org/x", "n")]
    assert set(lateness(plan).values()) == {(0, ())}


def test_replicas_that_could_not_be_loaded_beside_each_other_are_on_several_nodes() -> None:
    twice = booking("org/a", 2, 4, gpus=1, replicas=2, booked=-5)
    plan = planned([BLOCKS, twice], TWO, SIZES)
    assert nodes(plan) == [("org/a", "n"), ("org/a", "o"), ("org/x", "n")]
    assert lateness(plan)["org/a"] == (0, ())


def test_where_nothing_is_in_time_it_is_admitted_all_the_same() -> None:
    also = booking("org/large", 0, 2, gpus=2)
    both = [booking("org/a", 2, 4, gpus=1, booked=-5), booking("org/b", 2, 4, gpus=1, booked=-4)]
    plan = planned([BLOCKS, also, *both], TWO, SIZES)
    assert sorted(late for late, _ in lateness(plan).values()) == [0, 0, 0, 120]


def test_a_newcomer_leaves_the_room_in_which_several_are_loaded_together() -> None:
    pair = [booking("org/a", 2, 4, gpus=1, booked=-9), booking("org/b", 2, 4, gpus=1, booked=-8)]
    before = planned(pair, PAIR, SIZES)
    plan = planned([*pair, booking("org/x", 0, 2, gpus=1, booked=-1)], TWO, SIZES, previous=before)
    assert nodes(plan) == [("org/a", "n"), ("org/b", "n"), ("org/x", "o")]
    assert set(lateness(plan).values()) == {(0, ())}
