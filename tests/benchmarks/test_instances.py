"""Instances are what they say, the same each time, and read needs as the planner does."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.placement.instance import Instance
from benchmarks.placement.ours import asks_of, cluster_of
from benchmarks.placement.synthetic import cut_to_load, synthetic_week
from benchmarks.placement.traces import FORTNIGHT_SLOTS, openb, philly
from scheduler.planning.needs import units_on

FAMILIES = [synthetic_week, openb, philly]


def same(one: Instance, other: Instance) -> bool:
    names = ("node_class", "start", "end", "footprint", "asked", "priority", "booked")
    arrays = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)
    return arrays and one.classes == other.classes and one.accelerator == other.accelerator


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_makes_the_same_and_another_makes_another(family) -> None:
    assert same(family(8, 0.9, 3), family(8, 0.9, 3))
    assert not same(family(8, 0.9, 3), family(8, 0.9, 4))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("load", [0.7, 1.2])
def test_what_is_asked_for_is_the_load_and_could_be_placed(family, load: float) -> None:
    made = family(10, load, 1)
    there_are = made.node_gpus.sum() * made.slots / 4
    assert made.gpu_hours.sum() / there_are == pytest.approx(made.offered_load)
    assert load <= made.offered_load < load + 0.1
    assert ((made.start >= 0) & (made.start < made.end) & (made.end <= made.slots)).all()
    assert (made.booked <= made.start * 900).all()
    assert (made.fraction > 0).any(axis=1).all()


def test_synthetic_weeks_have_all_kinds_of_nodes_and_lead_times_of_three_days() -> None:
    made = synthetic_week(200, 1.0, 0)
    assert {one.gpus for one in made.classes} == {1, 2, 4, 8}
    assert {one.gpu_bytes // 10**9 for one in made.classes} == {24, 40, 80, 141}
    inside = made.start > 0
    lead_hours = (made.start * 900 - made.booked)[inside] / 3600
    assert 66 < lead_hours.mean() < 78
    assert set(made.priority.tolist()) == {1, 2, 4}
    assert set(synthetic_week(200, 1.0, 0, equal=True).priority.tolist()) == {1}


def test_priorities_change_nothing_else() -> None:
    one, other = synthetic_week(10, 1.0, 2), synthetic_week(10, 1.0, 2, equal=True)
    assert np.array_equal(one.start[: len(other)], other.start[: len(one)])


def test_a_load_that_is_not_there_is_refused() -> None:
    made = synthetic_week(4, 0.5, 0)
    with pytest.raises(ValueError, match=r"all its bookings are a load of 0\.\d\d, 3\.0 was asked for"):
        cut_to_load(made, 3.0, np.arange(len(made)))


@pytest.mark.parametrize("family", FAMILIES)
def test_needs_are_those_of_the_planner(family) -> None:
    made = family(8, 0.7, 0)
    nodes = cluster_of(made).nodes
    for number, ask in list(enumerate(asks_of(made, equal=False)))[:150]:
        for node, kind in zip(nodes, made.node_class.tolist(), strict=True):
            whole, share = units_on(node, ask.need)
            fits = whole if whole <= len(node.devices) else 0
            assert (fits, share > 0) == (made.whole[number, kind], made.shared[number, kind])


def test_the_traces_are_there_as_their_readme_says() -> None:
    made = openb(10, 1.0, 0)
    assert made.slots == FORTNIGHT_SLOTS == 14 * 96
    small = made.asked == 0
    assert 0 < small.mean() < 1
    assert (made.footprint[small] < 16 * 10**9).all()
    jobs = philly(10, 1.0, 0)
    assert set(jobs.asked.tolist()) <= set(range(1, 9))
    assert not jobs.shared.any()
