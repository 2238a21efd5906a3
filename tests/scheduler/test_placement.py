"""Which node takes which model."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.cluster.node import Cluster, Device, DeviceKind, Node
from scheduler.types import DeploymentStatus, Plan, ReasonCode, ReasonKind
from tests.examples import examples
from tests.scheduler.builders import (
    GIB,
    actions,
    booking,
    carried_out,
    cluster,
    cpu,
    gpus,
    known,
    planned,
    verdicts,
    where,
)


def test_a_small_model_takes_a_share_of_one_gpu_rounded_up() -> None:
    plan = planned([booking("org/a")], cluster(gpus("g", 1, 80)), known(a=7))
    assert plan.placements[0].num_gpus == 0.0875
    plan = planned([booking("org/a")], cluster(gpus("g", 1, 81)), known(a=7))
    assert plan.placements[0].num_gpus == 0.0865, "7/81 = 0.08641… is rounded up, never down"


def test_a_large_model_takes_whole_gpus_of_one_node() -> None:
    plan = planned([booking("org/a")], cluster(gpus("g", 8, 80)), known(a=140))
    assert plan.placements[0].num_gpus == 2


def test_a_model_that_fills_a_gpu_exactly_takes_it_whole() -> None:
    plan = planned([booking("org/a")], cluster(gpus("g", 8, 80)), known(a=80))
    assert plan.placements[0].num_gpus == 1


def test_a_booking_can_insist_on_gpus_and_gets_more_if_they_are_too_small() -> None:
    on = cluster(gpus("g", 8, 80))
    assert planned([booking("org/a", gpus=4)], on, known(a=7)).placements[0].num_gpus == 4
    assert planned([booking("org/a", gpus=1)], on, known(a=140)).placements[0].num_gpus == 2


def test_best_fit_keeps_the_larger_node_free() -> None:
    on = cluster(gpus("big", 8, 80), gpus("small", 2, 80))
    assert where(planned([booking("org/a")], on, known(a=140))) == {"a": {"small": 1}}


def test_the_smallest_kind_of_gpu_that_is_large_enough_is_taken() -> None:
    on = cluster(gpus("h200", 1, 141), gpus("a40", 8, 48))
    assert where(planned([booking("org/a")], on, known(a=30))) == {"a": {"a40": 1}}


def test_small_models_fill_a_gpu_that_is_begun_before_an_empty_one() -> None:
    on = cluster(gpus("g", 2, 80))
    first = planned([booking("org/a")], on, known(a=30, b=30))
    both = [booking("org/a"), booking("org/b"), booking("org/c")]
    plan = planned(both, on, known(a=30, b=30, c=80), running=carried_out(first))
    assert where(plan) == {"a": {"g": 1}, "b": {"g": 1}, "c": {"g": 1}}


def test_a_node_without_gpus_offers_its_cpu_as_memory() -> None:
    plan = planned([booking("org/a"), booking("org/b")], cluster(cpu("laptop", 8)), known(a=5, b=4))
    assert where(plan) == {"a": {"laptop": 1}}
    assert (plan.placements[0].num_gpus, plan.placements[0].memory_bytes) == (0, 5 * GIB)
    assert verdicts(plan)["b"] == "refused: no room"


def test_a_booking_that_insists_on_gpus_is_never_put_on_a_cpu() -> None:
    plan = planned([booking("org/a", gpus=1)], cluster(cpu("laptop", 800)), known(a=5))
    assert verdicts(plan) == {"a": "refused: too large"}


def test_replicas_spread_over_nodes_when_one_is_full() -> None:
    on = cluster(gpus("x", 2, 80), gpus("y", 2, 80))
    plan = planned([booking("org/a", replicas=3)], on, known(a=80))
    assert sum(where(plan)["a"].values()) == 3
    assert sorted(where(plan)["a"].values()) == [1, 2], "together as far as they can"


def test_replicas_that_find_no_room_are_named_and_the_others_serve() -> None:
    plan = planned([booking("org/a", replicas=3)], cluster(gpus("x", 2, 80)), known(a=80))
    assert where(plan) == {"a": {"x": 2}}
    (verdict,) = plan.verdicts
    assert verdict.reason.code is ReasonCode.SOME_REPLICAS
    assert verdict.reason.detail == "2 of 3 replicas"


def test_what_runs_stays_where_it_is_though_another_node_would_fit_better() -> None:
    small, big = gpus("small", 1, 80), gpus("big", 8, 80)
    first = planned([booking("org/a")], cluster(big), known(a=7))
    plan = planned([booking("org/a")], cluster(small, big), known(a=7), running=carried_out(first))
    assert where(plan) == {"a": {"big": 1}}
    assert actions(plan) == []


def test_a_stronger_booking_takes_free_room_before_that_of_a_weaker_one() -> None:
    on = cluster(gpus("x", 1, 80), gpus("y", 1, 80))
    sizes = known(weak=80, strong=80)
    first = planned([booking("org/weak", booked=-1)], on, sizes)
    (node,) = where(first)["weak"]
    plan = planned(
        [booking("org/weak", booked=-1), booking("org/strong", booked=-50)],
        on,
        sizes,
        running=carried_out(first),
    )
    assert where(plan)["weak"] == {node: 1}
    assert actions(plan) == [f"deploy strong {'y' if node == 'x' else 'x'} (booked)"]


def test_where_all_is_full_priority_then_who_booked_first_decides() -> None:
    on, sizes = cluster(gpus("x", 1, 80)), known(a=80, b=80, c=80)
    early, late = booking("org/a", booked=-50), booking("org/b", booked=-1)
    assert where(planned([late, early], on, sizes)) == {"a": {"x": 1}}
    vip = booking("org/c", booked=-0.5, priority=5)
    plan = planned([late, early, vip], on, sizes, running=carried_out(planned([early], on, sizes)))
    assert where(plan) == {"c": {"x": 1}}
    assert actions(plan)[0] == "undeploy a x (displaced)"
    assert verdicts(plan)["a"] == "refused: no room"


def test_a_displaced_model_moves_where_there_is_room_for_it() -> None:
    on, sizes = cluster(gpus("x", 1, 80), cpu("y", 40)), known(weak=30, strong=80)
    first = planned([booking("org/weak")], cluster(gpus("x", 1, 80)), sizes)
    strong = booking("org/strong", priority=1)
    plan = planned([booking("org/weak"), strong], on, sizes, running=carried_out(first))
    assert where(plan) == {"weak": {"y": 1}, "strong": {"x": 1}}
    assert "undeploy weak x (moved)" in actions(plan)


def test_a_model_that_is_only_coming_is_loaded_ahead_into_free_room_only() -> None:
    on, sizes = cluster(gpus("x", 1, 80)), known(now=80, soon=80)
    running, soon = booking("org/now", booked=-1), booking("org/soon", start=0.01, end=2, booked=-50)
    plan = planned([running, soon], on, sizes, running=carried_out(planned([running], on, sizes)))
    assert where(plan) == {"now": {"x": 1}}
    assert verdicts(plan) == {"now": "placed: already there", "soon": "refused: no room"}
    alone = planned([soon], on, sizes)
    assert where(alone) == {"soon": {"x": 1}}


def test_resources_of_others_are_not_counted_on() -> None:
    on = cluster(gpus("x", 2, 80, taken=1.5))
    assert where(planned([booking("org/a")], on, known(a=40))) == {"a": {"x": 1}}
    refused = planned([booking("org/a")], on, known(a=41))
    assert refused.verdicts[0].reason.kind is ReasonKind.LATER
    assert refused.verdicts[0].considered[0].held_by == ("applications that are not ours",)


def test_a_lost_nodes_models_are_placed_anew() -> None:
    both = cluster(gpus("x", 1, 80), gpus("y", 1, 80))
    first = planned([booking("org/a")], both, known(a=80))
    (lost,) = where(first)["a"]
    plan = planned([booking("org/a")], both.without(lost), known(a=80), running=carried_out(first))
    other = "y" if lost == "x" else "x"
    assert actions(plan) == [f"undeploy a {lost} (node lost)", f"deploy a {other} (booked)"]


@pytest.mark.parametrize(
    ("gib", "on", "code", "kind"),
    [
        (700, cluster(gpus("x", 8, 80)), ReasonCode.TOO_LARGE, ReasonKind.NEVER),
        (9, cluster(cpu("x", 8)), ReasonCode.TOO_LARGE, ReasonKind.NEVER),
        (8, cluster(cpu("x", 8, taken=0.5)), ReasonCode.NO_ROOM, ReasonKind.LATER),
        (1, cluster(), ReasonCode.NO_NODES, ReasonKind.LATER),
        (1, cluster(cpu("x", 0)), ReasonCode.TOO_LARGE, ReasonKind.NEVER),
        (1, cluster(gpus("x", 8, 0)), ReasonCode.TOO_LARGE, ReasonKind.NEVER),
    ],
    ids=["GPUs", "CPU", "others", "nothing", "CPU without memory", "GPUs without memory"],
)
def test_a_refusal_says_what_could_change_it(
    gib: float, on: Cluster, code: ReasonCode, kind: ReasonKind
) -> None:
    (verdict,) = planned([booking("org/a")], on, known(a=gib)).verdicts
    assert (verdict.reason.code, verdict.reason.kind) == (code, kind)
    assert len(verdict.considered) == len(on.nodes), "every node has its say"


def test_a_failing_model_keeps_its_place() -> None:
    on = cluster(gpus("x", 1, 80))
    first = planned([booking("org/a")], on, known(a=7))
    plan = planned([booking("org/a")], on, known(a=7), running=carried_out(first, DeploymentStatus.FAILED))
    assert actions(plan) == []
    assert [drift.status for drift in plan.drift] == [DeploymentStatus.FAILED]


def test_what_runs_stays_though_it_would_not_fit_if_it_were_laid_out_anew() -> None:
    """Ray may have shared the devices out in another way than this would: 40 and 60, 50 and 50."""
    on, sizes = cluster(gpus("x", 2, 100)), known(p=40, q=60, a=50, b=50)
    order = ["p", "a", "q", "b"]
    bookings = {name: booking(f"org/{name}", booked=-50 + order.index(name)) for name in order}
    running = [one for name in order for one in carried_out(planned([bookings[name]], on, sizes))]
    plan = planned(bookings.values(), on, sizes, running=running)
    assert actions(plan) == []
    assert len(plan.placements) == 4


def test_more_replicas_for_a_weaker_booking_of_a_model_displace_nobody() -> None:
    on, sizes = cluster(gpus("x", 4, 80)), known(m=80, o=80)
    strong = booking("org/m", key="strong", priority=10)
    other = booking("org/o", replicas=3, booked=-10)
    first = planned([strong, other], on, sizes)
    weak = booking("org/m", key="weak", priority=-10, booked=-1, replicas=4)
    plan = planned([strong, other, weak], on, sizes, running=carried_out(first))
    assert where(plan) == {"m": {"x": 1}, "o": {"x": 3}}
    told = {verdict.event: verdict.state.value for verdict in plan.verdicts}
    assert told == {"strong": "placed", "org/o@-1": "placed", "weak": "refused"}


def test_a_weaker_booking_does_not_evict_what_a_stronger_one_has_loaded_ahead() -> None:
    on, sizes = cluster(gpus("x", 1, 80)), known(vip=80, low=80)
    vip = booking("org/vip", start=0.02, end=2, priority=10)
    ahead = planned([vip], on, sizes)
    assert where(ahead) == {"vip": {"x": 1}}
    low = booking("org/low", start=0, end=2, priority=-10)
    plan = planned([vip, low], on, sizes, running=carried_out(ahead))
    assert where(plan) == {"vip": {"x": 1}}
    assert verdicts(plan)["low"] == "refused: no room"


nodes = st.one_of(
    st.builds(
        lambda count, gib, taken: (count, gib, taken), st.integers(1, 4), st.integers(0, 100), st.floats(0, 4)
    ),
    st.builds(lambda gib, taken: (0, gib, taken), st.integers(0, 100), st.floats(0, 1)),
)


@settings(max_examples=examples(60), deadline=None)
@given(
    shapes=st.lists(nodes, max_size=4),
    wanted=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 3), st.integers(-1, 1)), max_size=8),
    before=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 3), st.integers(-1, 1)), max_size=4),
)
def test_memory_is_never_overbooked_and_a_plan_carried_out_is_stable(
    shapes: list[tuple[int, int, float]],
    wanted: list[tuple[int, int, int]],
    before: list[tuple[int, int, int]],
) -> None:
    on = cluster(
        *(
            gpus(f"n{i}", count, gib, taken) if count else cpu(f"n{i}", gib, min(taken, 1))
            for i, (count, gib, taken) in enumerate(shapes)
        )
    )
    first = _book(before, on, ())
    plan = _book(wanted, on, first)
    _check_capacity(plan, on)
    again = _book(wanted, on, plan)
    assert actions(again) == []
    assert where(again) == where(plan)


def _book(wanted: list[tuple[int, int, int]], on: Cluster, before: Plan | tuple[()]) -> Plan:
    reservations = [
        booking(f"org/m{i}", key=f"k{i}", booked=-i, replicas=replicas, priority=priority)
        for i, (_, replicas, priority) in enumerate(wanted)
    ]
    sizes = known(**{f"m{i}": gib for i, (gib, _, _) in enumerate(wanted)})
    if not isinstance(before, Plan):
        return planned(reservations, on, sizes)
    return planned(reservations, on, sizes, running=carried_out(before), previous=before)


def _check_capacity(plan: Plan, on: Cluster) -> None:
    for node in on.nodes:
        here = [p for p in plan.placements if p.node == node.name]
        if node.kind is DeviceKind.CPU:
            assert sum(p.memory_bytes * p.replicas for p in here) <= _free(node)
        else:
            taken = sum(device.taken_share for device in node.devices)
            assert sum(p.num_gpus * p.replicas for p in here) <= len(node.devices) - taken + 1e-6


def _free(node: Node) -> int:
    return sum(Device.free_bytes.__get__(device) for device in node.devices)
