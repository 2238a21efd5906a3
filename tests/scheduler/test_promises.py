"""A booking is a promise: what is admitted, when it is loaded, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from scheduler.cluster.node import Cluster
from scheduler.planning import obstacles
from scheduler.planning.holds import Hold
from scheduler.planning.ledger import Ledger
from scheduler.planning.needs import Need
from scheduler.planning.plan import Policy
from scheduler.types import ActionKind, HelpCode, Plan, ReasonCode, VerdictState
from tests.scheduler.builders import (
    GIB,
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
SIZES = known(a=80, b=80, c=80, half=40, small=7)


def later(hours: float) -> object:
    return NOON + timedelta(hours=hours)


def test_what_was_promised_first_is_not_taken_back_for_what_is_booked_later() -> None:
    first = booking("org/a", start=10, end=12, booked=-5)
    before = planned([first], ONE, SIZES)
    wants_it_all = booking("org/b", start=9, end=11, booked=-1)
    plan = planned([first, wants_it_all], ONE, SIZES, previous=before)
    assert verdicts(plan) == {"a": "coming: starts later", "b": "refused: no room"}


def test_not_even_for_one_that_was_booked_earlier_and_refused_then() -> None:
    early, late = booking("org/a", start=10, end=12, booked=-9), booking("org/b", start=10, end=12, booked=-5)
    before = planned([late], ONE, SIZES)
    plan = planned([early, late], ONE, SIZES, previous=before)
    assert verdicts(plan) == {"a": "refused: no room", "b": "coming: starts later"}


def test_a_higher_priority_takes_it_and_the_promise_that_breaks_is_named_until_it_is_kept() -> None:
    low, high = booking("org/a", start=10, end=12), booking("org/b", start=9, end=11, priority=1)
    before = planned([low], ONE, SIZES)
    plan = planned([low, high], ONE, SIZES, previous=before)
    again = planned([low, high], ONE, SIZES, previous=plan, at=NOON + timedelta(hours=1))
    for one in (plan, again):
        assert verdicts(one) == {"a": "refused: promise broken", "b": "coming: starts later"}
        assert "org/b" in (one.verdicts[1].reason.detail or one.verdicts[0].reason.detail or "")
    assert again.promises.broken[0].since == NOON
    assert verdicts(planned([low], ONE, SIZES, previous=again)) == {"a": "coming: starts later"}


def test_what_has_not_started_is_moved_before_anything_is_refused() -> None:
    on = cluster(gpus("big", 2, 80), gpus("small", 1, 40))
    first = booking("org/half", start=10, end=12, gpus=1, booked=-9)
    before = planned([first], cluster(gpus("big", 2, 80)), SIZES)
    pair = booking("org/a", start=10, end=12, gpus=2, booked=-1)
    plan = planned([first, pair], on, SIZES, previous=before)
    assert verdicts(plan) == {"half": "coming: starts later", "a": "coming: starts later"}
    assert {stay.node for stay in plan.promises.stays} == {"big", "small"}


def test_what_runs_is_not_moved_for_another_of_its_priority() -> None:
    on = cluster(gpus("big", 2, 80), gpus("small", 1, 40))
    running = booking("org/half", gpus=1, end=12)
    before = planned([running], cluster(gpus("big", 2, 80)), SIZES)
    pair = booking("org/a", start=10, end=12, gpus=2)
    plan = planned([running, pair], on, SIZES, previous=before, running=carried_out(before))
    assert where(plan) == {"half": {"big": 1}}
    assert verdicts(plan)["a"] == "refused: no room"


def test_it_is_loaded_so_that_it_serves_at_its_start() -> None:
    """A minute and a second for each GiB: 67 s before."""
    one = booking("org/small", start=2, end=3)
    plan = planned([one], ONE, SIZES)
    ready = NOON + timedelta(hours=2)
    assert plan.next_boundary == ready - timedelta(seconds=67)
    assert (plan.verdicts[0].ready_by, plan.verdicts[0].late_seconds) == (ready, 0)
    assert [(s.kind, s.at, s.done_by) for s in plan.upcoming] == [
        (ActionKind.DEPLOY, ready - timedelta(seconds=67), ready),
        (ActionKind.UNDEPLOY, later(3), later(3)),
    ]
    ahead = planned([one], ONE, SIZES, at=ready - timedelta(seconds=67))
    (deploy,) = [action for action in ahead.actions if action.model]
    assert (deploy.not_before, deploy.done_by, deploy.late_seconds) == (ahead.at, ready, 0)


def test_where_the_room_is_only_free_at_the_start_the_plan_says_how_late_and_why() -> None:
    on = [booking("org/a", end=2), booking("org/b", start=2, end=4)]
    plan = planned(on, ONE, SIZES)
    (waits,) = [verdict for verdict in plan.verdicts if verdict.state is VerdictState.COMING]
    assert waits.late_seconds == 140
    assert waits.late_because == ("org/a",)
    assert waits.ready_by == NOON + timedelta(hours=2, seconds=140)
    swap = planned(on, ONE, SIZES, running=carried_out(plan), previous=plan, at=NOON + timedelta(hours=2))
    assert actions(swap) == ["undeploy a x (no booking)", "deploy b x (booked)"]


def test_a_seat_is_chosen_where_it_can_be_loaded_in_time() -> None:
    busy = booking("org/a", end=2)
    before = planned([busy], ONE, SIZES)
    both = [busy, booking("org/b", start=2, end=4)]
    plan = planned(both, TWO, SIZES, previous=before, running=carried_out(before))
    assert plan.verdicts[1].late_seconds == 0
    assert {stay.node for stay in plan.promises.stays} == {"x", "y"}


def test_extending_what_runs_does_not_move_it_though_another_node_would_fit_better() -> None:
    small, big = gpus("small", 1, 80), gpus("big", 8, 80)
    short = booking("org/small", end=1)
    before = planned([short], cluster(big), SIZES)
    longer = booking("org/small", end=5, key=short.key)
    plan = planned([longer], cluster(small, big), SIZES, previous=before, running=carried_out(before))
    assert where(plan) == {"small": {"big": 1}}
    assert [action.kind for action in plan.actions if action.model] == []


def test_where_it_cannot_stay_it_is_handed_over_at_the_boundary() -> None:
    runs, waits = booking("org/a", end=2), booking("org/b", start=2, end=4)
    before = planned([runs, waits], ONE, SIZES)
    longer = booking("org/a", end=3, key=runs.key)
    plan = planned([longer, waits], TWO, SIZES, previous=before, running=carried_out(before))
    stays = {(stay.model.split("org/")[1][0], stay.node, stay.start) for stay in plan.promises.stays}
    assert stays in (
        {("a", "x", NOON), ("b", "y", later(2))},
        {("a", "x", NOON), ("a", "y", later(2)), ("b", "x", later(2))},
    )
    assert verdicts(plan) == {"a": "placed: already there", "b": "coming: starts later"}


def test_a_booking_between_two_of_its_model_makes_one_stay_of_all() -> None:
    ends = [booking("org/a", start=1, end=2, key="1"), booking("org/a", start=3, end=4, key="2")]
    before = planned(ends, TWO, SIZES)
    assert len(before.promises.stays) == 2
    plan = planned([*ends, booking("org/a", start=2, end=3, key="3")], TWO, SIZES, previous=before)
    (stay,) = plan.promises.stays
    assert (stay.start, stay.end, stay.events) == (later(1), later(4), ("1", "2", "3"))


def test_what_ended_lingers_until_its_room_is_needed() -> None:
    policy = Policy(linger_seconds=600)
    ended, at = booking("org/a", end=0), NOON + timedelta(minutes=1)
    before = planned([ended], ONE, SIZES, at=NOON - timedelta(minutes=1))
    running = carried_out(before)
    idle = planned([ended], ONE, SIZES, running=running, previous=before, at=at, policy=policy)
    assert [p.reason.code for p in idle.placements] == [ReasonCode.LINGERS]
    assert idle.next_boundary == NOON + timedelta(minutes=10)
    needed = [ended, booking("org/b", start=0.01, end=2)]
    taken = planned(needed, ONE, SIZES, running=running, previous=before, at=at, policy=policy)
    assert where(taken) == {"b": {"x": 1}}
    over = NOON + timedelta(minutes=10)
    assert not planned([ended], ONE, SIZES, running=running, at=over, policy=policy).placements


def test_a_higher_priority_waits_for_what_has_not_served_its_minimum() -> None:
    low, high = booking("org/a", end=5), booking("org/b", start=-0.5, end=5, priority=1)
    before = planned([low], ONE, SIZES)
    running = tuple(
        one.model_copy(update={"since": NOON - timedelta(minutes=10)}) for one in carried_out(before)
    )
    policy = Policy(minimum_service_seconds=1800)
    plan = planned([low, high], ONE, SIZES, running=running, previous=before, policy=policy)
    assert where(plan) == {"a": {"x": 1}}
    waits = [stay for stay in plan.promises.stays if "org/b" in stay.model]
    assert [stay.start for stay in waits] == [NOON + timedelta(minutes=20)]
    at_once = planned([low, high], ONE, SIZES, running=running, previous=before)
    assert where(at_once) == {"b": {"x": 1}}


@pytest.mark.parametrize(
    ("changed", "says"),
    [("lost", "node x is gone"), ("cordoned", "the operator has closed node x")],
)
def test_when_capacity_shrinks_the_broken_promise_says_what_broke_it(changed: str, says: str) -> None:
    both = [booking("org/a", start=1, end=2, booked=-9), booking("org/b", start=1, end=2, booked=-5)]
    before = planned(both, TWO, SIZES)
    place = {stay.model.split("org/")[1][0]: stay.node for stay in before.promises.stays}
    if place["b"] == "y":
        both = [both[1].model_copy(update={"key": "k"}), both[0]]
    after = _without_x(changed)
    plan = planned(both, after, SIZES, previous=before)
    told = {verdict.state: verdict for verdict in plan.verdicts}
    assert set(told) == {VerdictState.COMING, VerdictState.REFUSED}
    if told[VerdictState.REFUSED].reason.code is ReasonCode.PROMISE_BROKEN:
        assert told[VerdictState.REFUSED].reason.detail == says
    grown = planned(both, TWO, SIZES, previous=plan)
    assert {verdict.state for verdict in grown.verdicts} == {VerdictState.COMING}
    assert grown.promises.broken == ()


def _without_x(changed: str) -> Cluster:
    if changed == "lost":
        return TWO.without("x")
    return Cluster(nodes=tuple(n.model_copy(update={"cordoned": n.name == "x"}) for n in TWO.nodes))


def test_a_lost_node_breaks_the_promise_of_who_was_on_it_if_nothing_else_is_free() -> None:
    runs = booking("org/a", end=5)
    before = planned([runs], ONE, SIZES)
    plan = planned([runs], cluster(gpus("tiny", 1, 8)), SIZES, previous=before, running=carried_out(before))
    (verdict,) = plan.verdicts
    assert (verdict.reason.code, verdict.reason.detail) == (ReasonCode.PROMISE_BROKEN, "node x is gone")


def test_a_draining_node_is_emptied_and_a_cordoned_one_takes_nothing_new() -> None:
    runs = booking("org/a", end=5)
    before = planned([runs], ONE, SIZES)
    running = carried_out(before)
    draining = Cluster(nodes=tuple(n.model_copy(update={"draining": n.name == "x"}) for n in TWO.nodes))
    drained = planned([runs], draining, SIZES, previous=before, running=running)
    assert actions(drained) == ["undeploy a x (node drained)", "deploy a y (booked)"]
    next_use = booking("org/a", start=5, end=6, key="next")
    cordoned = planned([runs, next_use], _without_x("cordoned"), SIZES, previous=before, running=running)
    assert where(cordoned) == {"a": {"x": 1}}
    assert {(stay.node, stay.start) for stay in cordoned.promises.stays} == {("x", NOON), ("y", later(5))}


def test_a_refusal_says_what_is_in_the_way_when_it_would_fit_and_what_would_help() -> None:
    first, second = booking("org/a", start=2, end=4), booking("org/b", start=0.5, end=6, booked=-1)
    refusal = planned([first, second], ONE, SIZES).verdicts[0].refusal
    assert refusal is not None
    assert refusal.in_the_way == ("org/a",)
    assert refusal.earliest == later(4)
    assert refusal.longest_until == later(2)
    many = planned([booking("org/a", replicas=3)], TWO, SIZES).verdicts[0].refusal
    assert many is not None
    precise = booking("org/c", dtype="float32")
    wide = planned([precise], ONE, SIZES).verdicts[0]
    assert wide.reason.code is ReasonCode.TOO_LARGE
    kind = booking("org/small", gpus=None, accelerator="H100")
    node = gpus("x", 1, 80).model_copy(update={"accelerator": "NVIDIA-A100"})
    other = gpus("y", 1, 80).model_copy(update={"accelerator": "NVIDIA-H100"})
    busy = booking("org/b", gpus=1, accelerator="H100", booked=-30)
    plan = planned([busy, kind], cluster(node, other), SIZES)
    (refused,) = plan.refused
    assert refused.refusal is not None
    assert HelpCode.ANY_ACCELERATOR in {help.code for help in refused.refusal.helps}


@pytest.mark.parametrize(
    ("dtype", "size", "offered"),
    [
        ("bfloat16", 100, "int8"),
        ("float16", 100, "int8"),
        ("float32", 60, "bfloat16"),
        ("float32", 100, "int8"),
        ("int8", 170, None),
        ("bfloat16", 170, None),
    ],
)
def test_a_smaller_precision_is_offered_where_it_would_fit(
    dtype: str, size: float, offered: str | None
) -> None:
    """On a GPU of 80 GiB; sizes are those in bfloat16."""
    asked = booking("org/c", dtype=dtype, start=1, end=3)
    (refused,) = planned([asked], cluster(gpus("x", 1, 80)), known(c=size)).refused
    assert refused.refusal is not None
    said = [help.value for help in refused.refusal.helps if help.code is HelpCode.SMALLER_DTYPE]
    assert said == ([offered] if offered else [])


def test_a_smaller_precision_is_offered_beside_what_is_booked() -> None:
    before = booking("org/a", start=1, end=3, booked=-30)
    asked = booking("org/c", start=1, end=3)
    plan = planned([before, asked], cluster(gpus("x", 1, 80)), known(a=50, c=50))
    helps = plan.refused[0].refusal and plan.refused[0].refusal.helps
    assert helps and [one.value for one in helps if one.code is HelpCode.SMALLER_DTYPE] == ["int8"]
    tight = planned([before, asked], cluster(gpus("x", 1, 80)), known(a=50, c=70))
    helps = tight.refused[0].refusal and tight.refused[0].refusal.helps
    assert not [one for one in helps or () if one.code is HelpCode.SMALLER_DTYPE]


def test_beyond_the_horizon_nothing_is_judged_but_what_is_too_large() -> None:
    far = [booking("org/a", start=1000, end=1001), booking("org/huge", start=1000, end=1001)]
    plan = planned(far, ONE, SIZES | known(huge=1000))
    assert verdicts(plan) == {"a": "coming: beyond horizon", "huge": "refused: too large"}
    assert plan.promises.stays == ()


@pytest.mark.parametrize(
    "odd",
    [
        [booking("org/a", start=-876_000 / 2, end=876_000 / 2)],
        [booking("org/a").model_copy(update={"end": datetime.max.replace(tzinfo=UTC)})],
        [booking("org/a", start=n / 1000, end=n / 1000 + 1, key=f"k{n}") for n in range(1000)],
        [booking("org/a", start=n / 10, end=n / 10 + 1, key=f"k{n}", replicas=3) for n in range(500)],
        [booking("org/a", replicas=64)],
        [booking("org/a", start=-5, end=-4)],
        [booking("org/a", gpus=1024)],
        [booking("org/nothing")],
    ],
    ids=[
        "a century",
        "to the end of dates",
        "thousands of one model",
        "hundreds of some replicas",
        "64 replicas",
        "past",
        "1024 GPUs",
        "next to nothing",
    ],
)
@pytest.mark.parametrize(
    "on",
    [TWO, cluster(), cluster(gpus("zero", 8, 0)), cluster(gpus("x", 8, 80))],
    ids=["two", "none", "zero", "8"],
)
def test_odd_bookings_get_a_verdict_each_and_bounded_work(
    odd: list[object], on: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scheduler.planning.profile import Profile

    reads, taken = [0], [0]
    least, take = Profile.least, Profile.take

    def counted_least(self: Profile, first: int, last: int) -> object:
        reads[0] += 1
        return least(self, first, last)

    def counted_take(self: Profile, column: int, first: int, last: int, units: int) -> None:
        taken[0] += 1
        take(self, column, first, last, units)

    monkeypatch.setattr(Profile, "least", counted_least)
    monkeypatch.setattr(Profile, "take", counted_take)
    listed = [0]
    beside = Ledger.beside

    def counted_beside(self: Ledger, model: str, start: float, end: float) -> list[Hold]:
        found = beside(self, model, start, end)
        listed[0] += len(found)
        return found

    monkeypatch.setattr(Ledger, "beside", counted_beside)
    asked, joined = [0], [0]
    is_like, union = Need.__eq__, obstacles.union

    def counted_eq(self: Need, other: object) -> bool:
        asked[0] += 1
        return is_like(self, other)

    def counted_union(windows: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        joined[0] += len(windows)
        return union(windows)

    monkeypatch.setattr(Need, "__eq__", counted_eq)
    monkeypatch.setattr(obstacles, "union", counted_union)
    sizes = SIZES | known(nothing=2 / GIB)
    plan: Plan = planned(odd, on, sizes)  # type: ignore[arg-type]
    assert len(plan.verdicts) == sum(one.end > NOON for one in odd)  # type: ignore[attr-defined]
    told = sum(one.refusal is not None for one in plan.verdicts)
    assert reads[0] + taken[0] < 20_000 + 60 * len(odd) + 1_000 * told
    assert listed[0] < 20_000 + 60 * len(odd) + 2_000 * told
    assert asked[0] + joined[0] < 20_000 + 60 * len(odd) + 6_000 * told
