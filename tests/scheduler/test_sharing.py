"""Bookings of one model that ask for another precision or other GPUs: who decides, and what is taken."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from calendars.reservation import Reading, Reservation
from scheduler.cluster.node import Cluster
from scheduler.planning.exact import Opinion, OpinionState, follow
from scheduler.planning.exact.words import Move, StayName
from scheduler.planning.footprint import Loads
from scheduler.planning.memory import Memory
from scheduler.planning.plan import Known, decide
from scheduler.render.sentences import sentence
from scheduler.reports import reports
from scheduler.types import Deployment, Observed, Plan, Promises, VerdictState
from tests.scheduler.builders import (
    NOON,
    PLAIN,
    actions,
    booking,
    carried_out,
    cluster,
    gpus,
    known,
    planned,
    where,
)
from tests.scheduler.exact_desk import admission, booked, kept

SIZES = known(small=30, half=60, two=140, four=300)
ON = cluster(gpus("x", 8, 80))


def plans_of(bookings: list[Reservation], on: Cluster, hours: list[float]) -> list[Plan]:
    """The plans at these hours from noon, each carried out before the next is made."""
    plans, running = list[Plan](), tuple[Deployment, ...]()
    for hour in hours:
        before = plans[-1] if plans else None
        at = NOON + timedelta(hours=hour)
        plans.append(planned(bookings, on, SIZES, running=running, previous=before, at=at))
        running = carried_out(plans[-1])
    return plans


def taken(plan: Plan) -> float:
    return sum(one.num_gpus * one.replicas for one in plan.placements)


def takes(plan: Plan) -> list[tuple[str, float, int]]:
    return [(one.target.dtype, one.num_gpus, one.replicas) for one in plan.placements]


def test_replicas_on_a_node_never_take_more_than_is_held_for_them() -> None:
    """The second replica of the int8 booking would be as large as the one it shares, which has no room."""
    other = booking("org/two", start=-1, end=8, booked=-20)
    full = booking("org/four", start=-1, end=2, booked=-15, key="full")
    quarter = booking("org/four", start=-1, end=4, booked=-10, key="int8", dtype="int8", replicas=2)
    plan, running = None, tuple[Deployment, ...]()
    for bookings in ([other], [other, full], [other, full, quarter], [other, full, quarter]):
        plan = planned(bookings, ON, SIZES, previous=plan, running=running)
        running = carried_out(plan)
        assert taken(plan) <= 8
        assert taken(plan) == sum(stay.devices for stay in plan.promises.stays)
    assert plan is not None
    assert [one.event for one in plan.refused] == ["int8"]
    more = cluster(gpus("x", 8, 80), gpus("y", 2, 80))
    after = planned([other, full, quarter], more, SIZES, previous=plan, running=running)
    assert where(after)["four"] == {"x": 1, "y": 1}
    assert [one.num_gpus for one in after.placements if one.node == "y"] == [2]
    assert not after.refused


def test_where_there_is_room_a_further_replica_takes_as_much_as_the_others_on_its_node() -> None:
    full = booking("org/four", start=-1, end=2, booked=-15, key="full")
    quarter = booking("org/four", start=-1, end=4, booked=-10, key="int8", dtype="int8", replicas=2)
    plans = plans_of([full, quarter], ON, [0, 1, 2, 3])
    assert [takes(plan) for plan in plans] == [[("bfloat16", 4, 2)]] * 4
    assert [sum(stay.devices for stay in plan.promises.stays) for plan in plans] == [8] * 4
    assert not any(plan.refused for plan in plans)


@pytest.mark.parametrize(
    ("first", "second", "takes_throughout"),
    [
        ({"dtype": "int8"}, {}, ("bfloat16", 0.375, 1)),
        ({}, {"gpus": 1}, ("bfloat16", 1.0, 1)),
        ({}, {"dtype": "int8"}, ("int8", 0.1875, 1)),
    ],
    ids=["precision", "GPUs", "less"],
)
def test_nothing_is_rebuilt_while_it_serves(
    first: dict[str, object], second: dict[str, object], takes_throughout: tuple[str, float, int]
) -> None:
    """The second, which starts later and ends sooner, was booked first and decides."""
    long = booking("org/small", start=0, end=4, booked=-5, key="a", **first)
    short = booking("org/small", start=1, end=2, booked=-10, key="b", **second)
    plans = plans_of([long, short], ON, [-0.5, 0, 0.5, 1, 1.5, 2, 2.5, 3.9])
    assert [takes(plan) for plan in plans[1:]] == [[takes_throughout]] * 7
    assert {line.split()[0] for plan in plans[2:] for line in actions(plan)} <= {"update"}
    held = {stay.devices for plan in plans for stay in plan.promises.stays}
    assert held == {takes_throughout[1]}


def test_who_decided_may_cancel_and_nothing_is_rebuilt_but_an_edit_is_followed() -> None:
    decides = booking("org/small", start=-1, end=4, booked=-10, key="a")
    shares = booking("org/small", start=-1, end=4, booked=-5, key="b", dtype="int8")
    both = planned([decides, shares], ON, SIZES)
    alone = planned([shares], ON, SIZES, previous=both, running=carried_out(both))
    assert actions(alone) == ["update small x (booking changed)"]
    later = planned([shares], ON, SIZES, previous=alone, running=carried_out(alone))
    assert actions(later) == []
    request = shares.request.model_copy(update={"dtype": "float32"})
    edited = shares.model_copy(update={"request": request})
    after = planned([edited], ON, SIZES, previous=later, running=carried_out(later))
    assert actions(after) == ["rebuild small x (needs changed)"]
    assert takes(after) == [("float32", 0.75, 1)]


@pytest.mark.parametrize("edit", [{"start": 24, "end": 26}, {"accelerator": "L4"}, {"model": "org/half"}])
def test_nothing_is_rebuilt_for_who_shares_when_who_decided_goes_elsewhere(edit: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"model": "org/small", "start": -1, "end": 4, "booked": -10, "key": "a"}
    shares = booking("org/small", start=-1, end=4, booked=-5, key="b", dtype="float32")
    both = planned([booking(**asked), shares], ON, SIZES)
    after = planned([booking(**asked | edit), shares], ON, SIZES, previous=both, running=carried_out(both))
    assert "update small x (booking changed)" in actions(after)
    assert not any(line.startswith("rebuild") for line in actions(after))


@pytest.mark.parametrize("start", [-1, 1])
def test_who_is_edited_to_insist_on_more_gpus_shares_no_longer(start: float) -> None:
    decides = booking("org/small", start=start, end=4, booked=-10, key="a")
    shares = booking("org/small", start=start, end=4, booked=-5, key="b")
    before = planned([decides, shares], ON, SIZES)
    insists = booking("org/small", start=start, end=4, booked=-5, key="b", gpus=2)
    after = planned([decides, insists], ON, SIZES, previous=before, running=carried_out(before))
    newly = planned([decides, insists], ON, SIZES)
    assert [one.event for one in after.refused] == [one.event for one in newly.refused] == ["b"]
    assert [stay.events for stay in after.promises.stays] == [("a",)]


def test_who_insists_on_gpus_keeps_them_when_who_decided_asks_for_fewer() -> None:
    decides = booking("org/small", start=-1, end=3, booked=-10, key="a", gpus=2)
    insists = booking("org/small", start=2, end=4, booked=-5, key="b", gpus=1)
    before = planned([decides, insists], ON, SIZES)
    edited = booking("org/small", start=-1, end=3, booked=-10, key="a")
    after = planned([edited, insists], ON, SIZES, previous=before, running=carried_out(before))
    assert not after.refused
    assert takes(after) == [("bfloat16", 1.0, 1)]


def test_who_comes_before_the_one_who_decides_for_its_node_runs_as_that_one_asks() -> None:
    """The third replica takes as much as the two of the first booking, which it does not serve."""
    decides = booking("org/small", start=1, end=5, booked=-10, key="a", dtype="int8", replicas=2)
    more = booking("org/small", start=1, end=3, booked=-5, key="b", replicas=3)
    before = booking("org/small", start=0.5, end=1.5, booked=-1, key="c")
    plans = plans_of([decides, more, before], ON, [0, 0.5, 0.9, 1])
    assert [takes(plan) for plan in plans[1:]] == [
        [("int8", 0.1875, 1)],
        [("int8", 0.1875, 1)],
        [("int8", 0.1875, 3)],
    ]
    assert not any("rebuild" in line for plan in plans for line in actions(plan))


@pytest.mark.parametrize("asks", [{"gpus": 2}, {"accelerator": "A100"}])
def test_who_comes_as_replicas_are_let_go_gets_none_that_is_not_what_it_asks_for(
    asks: dict[str, Any],
) -> None:
    runs = booking("org/small", start=-1, end=1, key="a", replicas=2)
    later = booking("org/small", start=4, end=6, booked=-3, key="b")
    before = planned([runs, later], ON, SIZES)
    comes = booking("org/small", start=1, end=5, booked=1, key="c", **asks)
    nothing_runs = planned([runs, later, comes], ON, SIZES, at=NOON + timedelta(hours=1), previous=before)
    after = planned(
        [runs, later, comes],
        ON,
        SIZES,
        at=NOON + timedelta(hours=1),
        previous=before,
        running=carried_out(before),
    )
    assert [one.event for one in nothing_runs.refused] == ["c"]
    assert [one.event for one in after.refused] == ["c"]


def test_nobody_loses_room_to_who_takes_more_since_another_has_cancelled() -> None:
    """The second shares 2 GPUs; alone it takes all 8, of which the third was promised 6."""
    decides = booking("org/four", start=1, end=4, booked=-10, key="a", dtype="int8")
    shares = booking("org/four", start=1, end=4, booked=-5, key="b", dtype="float32")
    third = booking("org/half", start=1, end=4, booked=-1, key="c", gpus=6)
    before = planned([decides, shares, third], ON, SIZES)
    assert not before.refused
    after = planned([shares, third], ON, SIZES, previous=before)
    assert [one.event for one in after.refused] == ["b"]


def test_what_runs_is_not_rebuilt_for_who_joins_unless_that_has_a_higher_priority() -> None:
    runs = booking("org/small", start=-1, end=4, booked=-5, key="a", dtype="int8")
    before = planned([runs], ON, SIZES)
    for priority, expected in ((0, "int8"), (1, "bfloat16")):
        joins = booking("org/small", start=1, end=2, booked=-10, key="b", priority=priority)
        after = planned([runs, joins], ON, SIZES, previous=before, running=carried_out(before))
        assert [one.target.dtype for one in after.placements] == [expected]


def test_who_gets_something_else_than_was_asked_for_is_told() -> None:
    decides = booking("org/small", start=-1, end=4, booked=-20, key="a", dtype="int8")
    shares = booking("org/small", start=-1, end=4, booked=-10, key="b", dtype="float32")
    plan = planned([decides, shares], ON, SIZES)
    assert takes(plan) == [("int8", 0.1875, 1)]
    assert [stay.devices for stay in plan.promises.stays] == [0.1875]
    told = {one.event: one.reason.detail for one in plan.verdicts}
    assert told["a"] is None
    assert told["b"] == "shared with another booking of the model, as that one asks: int8 on 19% of a device"
    words = {one.event: sentence(one.reason) for one in plan.verdicts}
    assert words["b"] == f"it is booked for now, {told['b']}"
    said = reports(plan, (), carried_out(plan), {}, "http://here")["test"]
    report = next(one for one in said if one.key == "b")
    assert f"It is {told['b']}." in report.lines
    soon = [one.model_copy(update={"start": NOON + timedelta(hours=1)}) for one in (decides, shares)]
    coming = {one.event: one for one in planned(soon, ON, SIZES).verdicts}
    assert coming["b"].state is VerdictState.COMING
    assert coming["b"].reason.detail is not None and "19% of a device" in coming["b"].reason.detail


def test_nobody_shares_where_it_could_not_be_for_itself() -> None:
    runs = booking("org/small", start=-1, end=4, booked=-20, key="a", dtype="int8")
    wants = booking("org/small", start=-1, end=4, booked=-10, key="b", gpus=4)
    plan = planned([runs, wants], cluster(gpus("x", 2, 80)), SIZES)
    assert [one.event for one in plan.refused] == ["b"]


def test_who_insists_on_more_gpus_shares_no_replica_that_takes_fewer() -> None:
    runs = booking("org/small", start=-1, end=4, booked=-20, key="a", dtype="int8")
    wants = booking("org/small", start=-1, end=4, booked=-10, key="b", gpus=4)
    (refused,) = planned([runs, wants], ON, SIZES).refused
    assert refused.event == "b"
    assert sentence(refused.reason) == (
        "node x runs it in another precision or on other GPUs then, and does so in one way at a time"
    )
    plan = planned([runs, wants], cluster(gpus("x", 8, 80), gpus("y", 8, 80)), SIZES)
    assert sorted(one.num_gpus for one in plan.placements) == [0.1875, 4]


def test_one_after_the_other_each_runs_as_it_asks() -> None:
    first = booking("org/small", start=-1, end=1, booked=-20, key="a", dtype="int8")
    second = booking("org/small", start=1, end=3, booked=-10, key="b")
    now, then = plans_of([first, second], ON, [0, 1])
    assert (takes(now), takes(then)) == ([("int8", 0.1875, 1)], [("bfloat16", 0.375, 1)])
    coming = next(one for one in now.verdicts if one.event == "b")
    assert coming.late_seconds == 90, "a minute, and a second for each GiB"


@pytest.mark.parametrize("gib", [150, 300])
def test_the_solver_seats_nothing_beside_replicas_that_take_more(gib: float) -> None:
    """Though there were GPUs for it: the replicas of a model on a node are one application."""
    there = admission(gpus("x", 8, 80))
    kept(there, booked("full", 300, 1, 4, gpus=None, model="m"), "x")
    ask = booked("other", gib, 1, 2, gpus=None, model="m")
    name = StayName("m", ask.start, ask.end, (ask.key,))
    found = Opinion(ask.key, "digest", OpinionState.FOUND, seats=(Move(name, "x"),))
    if gib == 300:
        ask = replace(ask, replicas=2)
    assert follow(there, ask, found) is (gib == 300)
    assert sum(hold.seat.units for hold in there.holds.values()) == (8 if gib == 300 else 4)


@pytest.mark.parametrize("seed", range(6))
def test_however_precisions_and_gpus_are_mixed_no_gpu_is_taken_twice(seed: int) -> None:
    chance, on = random.Random(seed), cluster(gpus("x", 4, 80), gpus("y", 2, 80))
    bookings = dict[str, Reservation]()
    memory, promises, running = Memory(), Promises(), tuple[Deployment, ...]()
    for step in range(40):
        hour = step / 4
        start = hour + chance.choice([-0.5, 0, 0.5, 2])
        one = booking(
            f"org/{chance.choice(['small', 'half', 'two'])}",
            start=start,
            end=start + chance.choice([1, 2, 4]),
            booked=hour - chance.random(),
            key=f"k{step}",
            dtype=chance.choice([None, None, "int8", "float32"]),
            gpus=chance.choice([None, None, 1, 2]),
            replicas=chance.choice([1, 1, 2]),
        )
        bookings[one.key] = one
        if chance.random() < 0.3:
            del bookings[chance.choice(sorted(bookings))]
        reading = Reading(calendar="test", reservations=tuple(bookings.values()))
        observed = Observed(cluster=on, deployments=running, fingerprint="seen")
        asked = Known(checkpoints=SIZES, loads=Loads(PLAIN), previous=promises)
        at = NOON + timedelta(hours=hour)
        plan = decide((reading,), observed, at, asked).plan
        assert (
            decide((reading,), observed, at, asked, memory).plan.model_dump_json() == plan.model_dump_json()
        )
        for node, devices in (("x", 4), ("y", 2)):
            there = [one for one in plan.placements if one.node == node]
            assert sum(one.num_gpus * one.replicas for one in there) <= devices + 1e-6
        promises, running = plan.promises, carried_out(plan)
