"""What runs on after its booking, until somebody needs its room."""

from __future__ import annotations

from datetime import datetime, timedelta

from calendars.reservation import Reservation
from scheduler.cluster.node import Cluster
from scheduler.planning.plan import Policy
from scheduler.types import Deployment, Plan, ReasonCode
from tests.scheduler.builders import (
    NOON,
    actions,
    booking,
    carried_out,
    cluster,
    gpus,
    known,
    planned,
    where,
)

HALF_AN_HOUR = Policy(linger_seconds=1800)
SIZES = known(a=80, b=80, tall=300, wide=300, small=30)
ONE = cluster(gpus("x", 1, 80))


def minutes(count: float) -> datetime:
    return NOON + timedelta(minutes=count)


def follow(bookings: list[Reservation], on: Cluster, at: list[float]) -> list[Plan]:
    """The plans at these minutes from noon, each carried out before the next is made."""
    plans, running = list[Plan](), tuple[Deployment, ...]()
    for minute in at:
        before = plans[-1] if plans else None
        now = minutes(minute)
        plans.append(
            planned(bookings, on, SIZES, running=running, previous=before, at=now, policy=HALF_AN_HOUR)
        )
        running = carried_out(plans[-1])
    return plans


def test_each_replica_that_lingers_takes_room() -> None:
    ended = booking("org/tall", start=-2, end=0, replicas=2)
    _, lingers, yields = follow(
        [ended, booking("org/wide", start=0.2, end=2)], cluster(gpus("x", 8, 80)), [-60, 1, 7.2]
    )
    assert where(lingers) == {"tall": {"x": 2}}
    assert lingers.next_boundary == minutes(6)
    assert where(yields) == {"tall": {"x": 1}, "wide": {"x": 1}}
    assert sum(one.num_gpus * one.replicas for one in yields.placements) == 8


def test_it_lingers_until_the_next_one_is_loaded_and_makes_it_no_later() -> None:
    ended, following = booking("org/a", start=-2, end=0), booking("org/b", start=0.2, end=2)
    _, lingers = follow([ended, following], ONE, [-60, 1])
    assert where(lingers) == {"a": {"x": 1}}
    loaded_from = minutes(12) - timedelta(seconds=140)
    assert lingers.next_boundary == loaded_from
    assert [one.until for one in (p.target for p in lingers.placements)] == [loaded_from]
    *_, yields = follow([ended, following], ONE, [-60, 1, 12 - 140 / 60])
    assert actions(yields) == ["undeploy a x (no booking)", "deploy b x (starts soon)"]
    assert [one.late_seconds for one in yields.verdicts] == [0]


def test_it_is_one_stay_with_its_next_booking_on_that_node() -> None:
    bookings = [booking("org/a", start=-2, end=0), booking("org/a", start=0.2, end=2)]
    plans = follow(bookings, cluster(gpus("x", 1, 80), gpus("y", 1, 80)), [-60, 1, 10, 12, 121])
    assert [where(plan) for plan in plans] == [{"a": {"x": 1}}] * 5
    assert [actions(plan) for plan in plans[1:]] == [[], ["update a x (booking changed)"], [], []]
    assert [(step.kind.value, step.at) for step in plans[1].upcoming] == [("undeploy", minutes(120))]


def test_it_yields_to_another_though_it_is_booked_again() -> None:
    between = booking("org/b", start=0.1, end=0.15, booked=-30)
    bookings = [booking("org/a", start=-2, end=0), between, booking("org/a", start=0.4, end=2)]
    plans = follow(bookings, ONE, [-60, 1, 3.7, 6])
    assert [where(plan) for plan in plans] == [{"a": {"x": 1}}] * 2 + [{"b": {"x": 1}}] * 2
    assert plans[1].next_boundary == minutes(6) - timedelta(seconds=140)


def test_nothing_lingers_on_a_node_that_is_emptied() -> None:
    ended = booking("org/a", start=-2, end=0)
    before = planned([ended], ONE, SIZES, at=minutes(-1), policy=HALF_AN_HOUR)
    drained = ONE.model_copy(update={"nodes": (ONE.nodes[0].model_copy(update={"draining": True}),)})
    plan = planned([ended], drained, SIZES, running=carried_out(before), at=minutes(1), policy=HALF_AN_HOUR)
    assert not plan.placements


def test_what_goes_at_its_end_is_displaced_by_nobody() -> None:
    """Though somebody else was refused the same model, it goes because its own booking has ended."""
    bookings = [
        booking("org/small", start=-2, end=0, booked=-20),
        booking("org/b", start=1, end=4, booked=-10),
    ]
    bookings.append(booking("org/small", start=10, end=12, booked=-30))
    before = planned(bookings, ONE, SIZES, at=minutes(-90))
    bookings.append(booking("org/small", start=-1, end=6, booked=-1))
    plans = [before]
    for minute in (-30, 0):
        now, running = minutes(minute), carried_out(plans[-1])
        plans.append(planned(bookings, ONE, SIZES, running=running, previous=plans[-1], at=now))
    assert plans[-1].verdicts[0].reason.code is ReasonCode.NO_ROOM
    assert actions(plans[-1]) == ["undeploy small x (no booking)"]
