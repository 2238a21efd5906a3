"""What time, a lost GPU, a cancelled booking or a newcomer does to what was promised before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

import pytest

from calendars.reservation import Reservation
from scheduler.cluster.node import Cluster, Node
from scheduler.planning.plan import Policy
from scheduler.types import Plan, ReasonCode
from tests.scheduler.builders import (
    NOON,
    actions,
    booking,
    carried_out,
    cluster,
    gpus,
    known,
    planned,
    verdicts,
    where,
)

ONE = cluster(gpus("x", 1, 80))
TWO = cluster(gpus("x", 1, 80), gpus("y", 1, 80))
SIZES = known(a=80, b=80, c=80, wide=300, wider=300, half=40, most=60, others=60)


def hours(number: float) -> timedelta:
    return timedelta(hours=number)


def kind(node: Node, accelerator: str) -> Node:
    return node.model_copy(update={"accelerator": accelerator})


def booked_in_turn(bookings: Sequence[Reservation], on: Cluster, first: Cluster | None = None) -> Plan:
    """Each is planned for when it is booked; the first on a cluster of its own, if there is one."""
    plan = planned(bookings[:1], first or on, SIZES)
    for number in range(2, len(bookings) + 1):
        plan = planned(bookings[:number], on, SIZES, previous=plan)
    return plan


def through(
    instants: Iterable[float], bookings: Iterable[Reservation], on: Cluster, plan: Plan
) -> Iterable[Plan]:
    """Plans at hours after noon, each carried out before the next."""
    for instant in instants:
        running = carried_out(plan)
        plan = planned(bookings, on, SIZES, running=running, at=NOON + hours(instant), previous=plan)
        yield plan


def test_who_was_refused_is_not_given_what_runs_of_its_model_over_who_was_promised_the_room() -> None:
    runs, comes = booking("org/a", -1, 1, booked=-20), booking("org/b", 3, 5, booked=-10)
    before = planned([runs, comes], ONE, SIZES)
    refused = booking("org/a", -0.5, 7, key="again", booked=-1)
    for plan in through([0.1, 0.9, 1, 1.1, 3, 4], [runs, comes, refused], ONE, before):
        told = {one.event: one for one in plan.verdicts}
        assert told["again"].reason.code is ReasonCode.NO_ROOM
        assert verdicts(plan)["b"].split(":")[0] in ("coming", "placed")
        assert plan.promises.broken == ()


@pytest.mark.parametrize(
    ("at", "linger_minutes"), [(0, 0), (1, 0), (1.1, 30)], ids=["booked anew", "as it ends", "it lingers"]
)
def test_who_books_what_runs_gets_no_room_that_is_promised(at: float, linger_minutes: float) -> None:
    runs, comes = booking("org/a", -1, 1), booking("org/b", 2, 3, booked=-10)
    longer = booking("org/a", at, 2.5, key="longer", booked=at)
    policy, plan = Policy(linger_seconds=linger_minutes * 60), None
    for instant, bookings in ((0, [runs, comes]), (max(at - 0.05, 0), [runs, comes]), (at, [comes, longer])):
        running = carried_out(plan) if plan else ()
        when = NOON + hours(instant)
        plan = planned(bookings, ONE, SIZES, running=running, at=when, previous=plan, policy=policy)
    assert plan is not None and [one.event for one in plan.refused] == ["longer"]
    assert verdicts(plan)["b"] == "coming: starts later"


def test_time_alone_breaks_no_promise_for_who_was_refused() -> None:
    runs = booking("org/a", -1, 1, booked=-20, priority=5)
    refused = booking("org/b", 0, 4, booked=-10, priority=5)
    weaker = booking("org/c", 2, 3, booked=-5)
    before = booked_in_turn([runs, refused, weaker], ONE)
    for plan in through([0.5, 1, 1.1, 2, 2.5], [runs, refused, weaker], ONE, before):
        assert verdicts(plan)["c"].split(":")[0] in ("coming", "placed")
        assert verdicts(plan)["b"] == "refused: no room"


def test_who_was_refused_for_a_stronger_claim_is_tried_again_when_that_is_weaker() -> None:
    holds, wants = (
        booking("org/a", 2, 4, booked=-9, priority=5),
        booking("org/b", 2, 4, booked=-1, priority=3),
    )
    before = booked_in_turn([holds, wants], ONE)
    assert verdicts(before)["b"] == "refused: no room"
    same = planned([holds, wants], ONE, SIZES, previous=before)
    assert verdicts(same) == verdicts(before)
    weaker = booking("org/a", 2, 4, booked=-9, priority=1)
    after = planned([weaker, wants], ONE, SIZES, previous=same)
    assert verdicts(after)["b"].startswith("coming")
    assert verdicts(after)["a"] == "refused: promise broken"


@pytest.mark.parametrize(("model", "end"), [("org/b", 10), ("org/half", 10 - 120 / 3600)])
def test_nobody_is_loaded_late_for_who_could_go_elsewhere(model: str, end: float) -> None:
    """Loading the first takes 140 s, a half 100 s."""
    first, later = booking("org/a", 10, 12, booked=-20), booking(model, 8, end, booked=-1)
    plan = booked_in_turn([first, later], TWO, ONE)
    assert {stay.node for stay in plan.promises.stays} == {"x", "y"}
    assert [one.late_seconds for one in plan.verdicts] == [0, 0]


def test_who_would_be_loaded_late_for_a_newcomer_goes_elsewhere_if_it_can() -> None:
    on = cluster(kind(gpus("x", 1, 80), "A100"), kind(gpus("y", 1, 80), "H100"))
    first = booking("org/a", 10, 12, booked=-20)
    bound = booking("org/b", 8, 10, booked=-1, accelerator="A100")
    plan = booked_in_turn([first, bound], on, cluster(on.nodes[0]))
    assert {stay.model.split('"')[3]: stay.node for stay in plan.promises.stays} == {
        "org/a": "y",
        "org/b": "x",
    }
    assert [one.late_seconds for one in plan.verdicts] == [0, 0]


def test_who_comes_later_in_one_stay_is_not_late_because_the_first_is() -> None:
    blocks = booking("org/b", -1, 2, booked=-20)
    first, second = booking("org/a", 2, 4, key="first", booked=-10), booking("org/a", 4, 6, key="second")
    plan = planned([blocks, first, second], ONE, SIZES)
    assert {one.event: one.late_seconds for one in plan.verdicts} == {
        blocks.key: 0,
        "first": 140,
        "second": 0,
    }


def test_what_is_being_loaded_is_not_taken_down_for_who_has_another_gpu() -> None:
    on = cluster(gpus("x", 8, 80))
    soon = booking("org/most", 0.03, 8, booked=-2)
    before = planned([soon], on, SIZES)
    now = booking("org/others", -0.5, 0.02, booked=-0.01)
    plan = planned([soon, now], on, SIZES, previous=before, running=carried_out(before))
    assert actions(plan) == ["deploy others x (booked)"]


@pytest.mark.parametrize("next_model", ["org/a", "itself"])
def test_what_runs_stays_for_longer_and_who_has_not_started_goes(next_model: str) -> None:
    runs, comes = booking("org/a", -1, 2, booked=-20), booking("org/b", 2, 4, booked=-10)
    before = planned([runs, comes], ONE, SIZES)
    if next_model == "itself":
        wanted = [booking("org/a", -1, 3, booked=-20), comes]
    else:
        wanted = [runs, comes, booking("org/a", 2, 4, key="next", booked=-5)]
    plan = planned(wanted, TWO, SIZES, previous=before, running=carried_out(before))
    ours = [stay for stay in plan.promises.stays if "org/a" in stay.model]
    assert [(stay.node, stay.end) for stay in ours] == [
        ("x", NOON + hours(3 if next_model == "itself" else 4))
    ]
    assert {stay.node for stay in plan.promises.stays} == {"x", "y"}
    assert [one.late_seconds for one in plan.verdicts] == [0] * len(wanted)


def test_what_is_being_loaded_for_its_next_stay_is_not_moved_because_a_further_one_was_booked_first() -> None:
    on = cluster(kind(gpus("x", 1, 80), "A100"), kind(gpus("y", 1, 80), "H100"))
    far, near = (
        booking("org/a", 10, 13, key="far", booked=-20),
        booking("org/a", 0.03, 4, key="near", booked=-9),
    )
    before = planned([far, near], on, SIZES, at=NOON - hours(0.005))
    bound = booking("org/c", 1, 2, booked=-0.001, accelerator="A100")
    plan = planned([far, near, bound], on, SIZES, previous=before, running=carried_out(before))
    assert where(before)["a"] == where(plan)["a"] == {"x": 1}
    assert [action for action in actions(plan) if "deploy" in action] == []


def test_where_what_runs_goes_before_its_booking_ends_the_plan_is_due_then() -> None:
    runs, next_one = booking("org/a", -1, 1), booking("org/b", 2, 3)
    before = booked_in_turn([runs, next_one], ONE)
    longer = booking("org/a", -1, 4, key=runs.key)
    plan = planned([longer, next_one], ONE, SIZES, running=carried_out(before), previous=before)
    assert verdicts(plan)["a"] == "refused: no room"
    assert plan.next_boundary == NOON + hours(1)


@pytest.mark.parametrize(("left", "kept"), [(7, 1), (4, 1), (2, 0)])
def test_a_node_that_has_lost_gpus_keeps_no_more_than_it_has(left: int, kept: int) -> None:
    first, second = booking("org/wide", -1, 4, booked=-20), booking("org/wider", -1, 4, booked=-10)
    before = planned([first, second], cluster(gpus("x", 8, 80)), SIZES)
    on = cluster(gpus("x", left, 80))
    plan = planned([first, second], on, SIZES, previous=before, running=carried_out(before))
    assert where(plan) == ({"wide": {"x": 1}} if kept else {})
    if kept:
        assert [one.reason.detail for one in plan.promises.broken] == ["node x has less room than it had"]
    with_another = cluster(*on.nodes, gpus("y", 8, 80))
    moved = planned([first, second], with_another, SIZES, previous=before, running=carried_out(before))
    assert moved.refused == ()


def test_what_runs_beside_applications_of_others_stays() -> None:
    first, second = booking("org/wide", -1, 4, booked=-20), booking("org/wider", -1, 4, booked=-10)
    before = planned([first, second], cluster(gpus("x", 8, 80)), SIZES)
    on = cluster(gpus("x", 8, 80, taken=1))
    plan = planned([first, second], on, SIZES, previous=before, running=carried_out(before))
    assert actions(plan) == []


def test_what_is_loaded_ahead_where_others_take_the_room_is_refused_at_once_and_for_good() -> None:
    soon, on = booking("org/wide", 0.01, 4), cluster(gpus("x", 8, 80, taken=5.5))
    before = planned([soon], cluster(gpus("x", 8, 80)), SIZES)
    assert actions(before) == ["deploy wide x (starts soon)"]
    plan = planned([soon], on, SIZES, previous=before, running=carried_out(before))
    again = planned([soon], on, SIZES, previous=plan, running=carried_out(plan))
    assert verdicts(plan) == verdicts(again) == {"wide": "refused: promise broken"}


@pytest.mark.parametrize("start", [-1, 1], ids=["running", "to come"])
def test_when_a_node_is_lost_who_booked_first_comes_before_who_has_not_started(start: float) -> None:
    first, second = booking("org/a", start, 4, booked=-20), booking("org/b", 2, 4, booked=-10)
    before = booked_in_turn([first, second], TWO, ONE)
    plan = planned([first, second], cluster(gpus("y", 1, 80)), SIZES, previous=before)
    assert verdicts(plan)["b"] == "refused: promise broken"
    assert verdicts(plan)["a"].split(":")[0] in ("coming", "placed")
    assert [one.reason.detail for one in plan.promises.broken] == [
        "“org/a”, which was booked first, takes its room"
    ]


def test_what_runs_is_not_taken_down_for_who_lost_its_node() -> None:
    first, second = booking("org/a", 1, 4, booked=-20), booking("org/b", -1, 4, booked=-10)
    before = booked_in_turn([first, second], TWO, ONE)
    runs = [one for one in carried_out(before) if one.node == "y"]
    plan = planned([first, second], cluster(gpus("y", 1, 80)), SIZES, previous=before, running=runs)
    assert verdicts(plan) == {"a": "refused: promise broken", "b": "placed: already there"}


@pytest.mark.parametrize("taken", [0.0, 0.5])
@pytest.mark.parametrize("start", [0, 1, 2])
def test_a_share_is_made_room_for_beside_a_gpu_of_others_too(taken: float, start: float) -> None:
    on = cluster(gpus("x", 2 if taken else 1, 80, taken=taken))
    low = booking("org/a", 1, 5, booked=-20)
    high = booking("org/most", start, 5, booked=-10, priority=5)
    plan = booked_in_turn([low, high], on)
    assert verdicts(plan)["a"] == "refused: promise broken"
    assert verdicts(plan)["most"].split(":")[0] in ("coming", "placed")


def test_who_was_refused_is_tried_again_where_a_cancelled_booking_lets_somebody_out_of_its_way() -> None:
    on = cluster(kind(gpus("x", 1, 80), "A100"), kind(gpus("y", 1, 80), "H100"))
    blocks = booking("org/b", 3, 8, booked=-30)
    cancelled = booking("org/c", 6, 9, booked=-25, accelerator="H100")
    refused = booking("org/a", 2, 4, booked=-10, accelerator="A100")
    before = booked_in_turn([blocks, cancelled, refused], on)
    assert verdicts(before)["a"] == "refused: no room"
    plan = planned([blocks, refused], on, SIZES, previous=before)
    assert verdicts(plan) == {"a": "coming: starts later", "b": "coming: starts later"}
