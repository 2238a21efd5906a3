"""What every plan must keep to, through seeded weeks; a failure names its seed, which replays it.

``python -m tests.simulation.planner_weeks --seeds 200`` runs more of them.
"""

from __future__ import annotations

import gc
import random

import pytest

from scheduler.planning import upcoming
from scheduler.types import Step
from tests.scheduler.builders import carried_out, planned
from tests.simulation.planner_weeks import CHECKPOINTS, HELD, PROPERTIES, Week, verdict_of

SEEDS = range(2)
seeds = pytest.mark.parametrize("seed", SEEDS)


@seeds
@pytest.mark.parametrize("kind", sorted(PROPERTIES))
def test_a_week_keeps_its_properties(kind: str, seed: int) -> None:
    week, properties = PROPERTIES[kind](seed)
    for _ in week.run():
        for holds in properties:
            holds(week)


@seeds
def test_the_same_input_gives_the_same_plan_in_any_order_and_again(seed: int) -> None:
    week = Week(seed, steps=25, priorities=(0, 5))
    for _ in week.run():
        pass
    plan = week.made
    shuffled = list(week.bookings.values())
    random.Random(seed).shuffle(shuffled)
    texts = {
        planned(
            bookings, week.nodes, CHECKPOINTS, running=carried_out(plan), at=week.at, previous=plan
        ).model_dump_json()
        for bookings in (shuffled, week.bookings.values())
    }
    assert len(texts) == 1
    week.replan()
    assert [v.state for v in week.made.verdicts] == [v.state for v in plan.verdicts]
    assert [a for a in week.made.actions if a.model] == []


@seeds
@pytest.mark.parametrize("few", [1, 3, 8])
def test_the_steps_that_are_told_are_the_nearest(
    few: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    week = Week(seed, steps=25)
    for _ in week.run():
        pass

    def steps() -> tuple[Step, ...]:
        return planned(week.bookings.values(), week.nodes, CHECKPOINTS, at=week.at).upcoming

    every = steps()
    monkeypatch.setattr(upcoming, "MAX_STEPS", few)
    assert steps() == every[:few]
    assert len(every) > few


@seeds
def test_plans_make_no_cycles(seed: int) -> None:
    """So nothing is lost by not looking for them while plans are made."""
    gc.collect()
    gc.disable()
    try:
        for _ in Week(seed, steps=25, priorities=(0, 5), lose_nodes=True).run():
            pass
        assert gc.collect() == 0
    finally:
        gc.enable()


@seeds
def test_a_lower_priority_never_costs_a_higher_one_its_promise(seed: int) -> None:
    """With all else the same, what is promised to the highest does not depend on the others."""
    week = Week(seed, steps=40, priorities=(0, 5))
    for _ in week.run():
        pass
    everything = planned(week.bookings.values(), week.nodes, CHECKPOINTS, at=week.at)
    high = [one for one in week.bookings.values() if one.request.priority == 5]
    alone = planned(high, week.nodes, CHECKPOINTS, at=week.at)
    for verdict in alone.verdicts:
        if verdict.state in HELD:
            there = verdict_of(everything, verdict.event)
            assert there is not None and there.state in HELD, (verdict.event, week.log)
