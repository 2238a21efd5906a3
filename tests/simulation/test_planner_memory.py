"""A plan that begins with what the last one knew is, byte for byte, the one that is made from nothing."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest

from calendars.reservation import Reading, Reservation
from scheduler.cluster.node import Cluster
from scheduler.planning import memory as memory_module
from scheduler.planning import refusals as refusals_module
from scheduler.planning import schedule as schedule_module
from scheduler.planning import wishes as wishes_module
from scheduler.planning.footprint import Loads
from scheduler.planning.memory import Memory, Standing
from scheduler.planning.plan import Decision, Known, Policy, decide
from scheduler.planning.schedule import Timetable
from scheduler.planning.verdicts import Judge
from scheduler.types import (
    ActionKind,
    Checkpoint,
    Deployment,
    DeploymentStatus,
    Observed,
    Plan,
    Promises,
    Rules,
    Tier,
    UnknownSize,
)
from tests.examples import examples
from tests.scheduler.builders import (
    NOON,
    PLAIN,
    booking,
    carried_out,
    cluster,
    cpu,
    deployed,
    gpus,
    key,
    known,
)
from tests.simulation.planner_weeks import CHECKPOINTS, MODELS, Week

KINDS = {
    "calm": {},
    "faults and priorities": {"priorities": (0, 0, 5), "lose_nodes": True},
    "three priorities": {"priorities": (0, 1, 5)},
    "choosy": {"steps": 40, "priorities": (0, 0, 5), "crowded": True, "choosy": True},
}
LOADS = (ActionKind.DEPLOY, ActionKind.SCALE, ActionKind.REBUILD)
POLICY = Policy(linger_seconds=600, minimum_service_seconds=1800)


@dataclass
class Remembering(Week):
    """A week in which every plan is made twice: from nothing, and with the memory of those before."""

    memory: Memory = field(default_factory=Memory)
    loads: Loads = field(default_factory=lambda: Loads(PLAIN))
    rules: Rules = field(default_factory=Rules)

    @property
    def known(self) -> Known:
        return Known(
            checkpoints=CHECKPOINTS,
            loads=self.loads,
            rules=self.rules,
            policy=POLICY,
            previous=self.plan.promises if self.plan else Promises(),
            questions=3,
        )

    def replan(self) -> None:
        self.before = self.plan
        self.plan = both(
            self.bookings.values(), self.nodes, self.at, self.known, self.running, self.memory
        ).plan
        begun = {(one.model.key, one.node) for one in self.plan.actions if one.model and one.kind in LOADS}
        self.running = tuple(
            deployed(one, DeploymentStatus.LOADING, since=self.at) if one.identity in begun else deployed(one)
            for one in self.plan.placements
        )


def both(
    bookings: Iterable[Reservation],
    nodes: Cluster,
    at: datetime,
    asked: Known,
    running: Iterable[Deployment],
    memory: Memory,
) -> Decision:
    reading = Reading(calendar="test", reservations=tuple(bookings))
    observed = Observed(cluster=nodes, deployments=tuple(running), fingerprint="seen")
    alone = decide((reading,), observed, at, asked)
    made = decide((reading,), observed, at, asked, memory)
    assert made.plan.model_dump_json() == alone.plan.model_dump_json()
    assert made.questions == alone.questions
    return made


@pytest.mark.parametrize("seed", range(examples(1)))
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_it_is_the_same_plan_through_a_week(kind: str, seed: int) -> None:
    week = Remembering(seed, **KINDS[kind])  # type: ignore[arg-type]
    for _ in week.run():
        if week.chance.random() < 0.3:
            week.at += timedelta(seconds=10)
            week.replan()
        if week.chance.random() < 0.1:
            measured = {(key("org/medium1"), "a", Tier.REMOTE): week.chance.uniform(10, 900)}
            week.loads = Loads(PLAIN, measured, frozenset({(key("org/large2"), "b")}))
        if week.chance.random() < 0.1:
            week.rules = Rules(longest_hours=week.chance.choice([None, 20.0]))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_it_is_the_same_plan_where_much_changes_at_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at one by one where little has changed is all gone through."""
    monkeypatch.setattr(memory_module, "FEW_NODES", 0)
    monkeypatch.setattr(refusals_module, "FEW_NODES", 0)
    monkeypatch.setattr(wishes_module, "FEW", 0)
    monkeypatch.setattr(schedule_module, "MAX_STEPS", 3)
    for _ in Remembering(5, **KINDS[kind]).run():  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize(("part", "method"), [(Standing, "admit"), (Timetable, "schedule"), (Judge, "all")])
def test_a_plan_that_failed_leaves_nothing_behind(
    part: type, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("it failed")

    week = Remembering(1, steps=25)
    for _ in week.run():
        others = [one for one in week.bookings.values() if week.chance.random() < 0.5]
        reading = Reading(calendar="test", reservations=tuple(others))
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="it failed"):
            patch.setattr(part, method, fail)
            decide((reading,), Observed(cluster=week.nodes), week.at, week.known, week.memory)


@pytest.mark.parametrize("seed", range(examples(1)))
def test_it_is_the_same_plan_in_a_large_week(seed: int) -> None:
    """Fifty nodes, hundreds of bookings of a few models and of models of their own, edited at random."""
    chance = random.Random(seed)
    shapes = [(8, 80.0), (4, 80.0), (4, 48.0), (2, 24.0)]
    nodes = cluster(*(gpus(f"n{number:02}", *chance.choice(shapes)) for number in range(50)), cpu("z", 64))
    sizes = known(**{f"own{number}": chance.choice([2.0, 14.0, 60.0, 140.0]) for number in range(600)})
    sizes |= CHECKPOINTS
    bookings = {one.key: one for one in (_random(chance, number, 0.0) for number in range(250))}
    memory, at, plan = Memory(), NOON, None
    for step in range(8):
        running = carried_out(plan) if plan else ()
        asked = _asked(sizes, plan)
        plan = both(bookings.values(), nodes, at, asked, running, memory).plan
        _edit(chance, bookings, 250 + step, at)
        at += timedelta(seconds=chance.choice([10, 60, 600, 3600]))
    assert plan is not None and 0 < len(plan.refused) < len(bookings) // 2


def _random(chance: random.Random, number: int, hours: float) -> Reservation:
    start = round(hours + chance.uniform(-1, 60), 1)
    name = chance.choice(sorted(MODELS)) if chance.random() < 0.3 else f"own{number}"
    return booking(
        f"org/{name}",
        start,
        start + chance.choice([1, 4, 12, 48]),
        key=f"k{number:04}",
        booked=-number / 100,
        priority=chance.choice([0, 0, 0, 3]),
        replicas=chance.choice([1, 1, 1, 2]),
        gpus=chance.choice([None, None, 1, 4, 8]),
        dtype=chance.choice([None, None, None, "float32", "int8"]),
    )


def _edit(chance: random.Random, bookings: dict[str, Reservation], number: int, at: datetime) -> None:
    for _ in range(chance.choice([0, 1, 1, 2])):
        one = bookings[chance.choice(sorted(bookings))]
        what = chance.random()
        if what < 0.3:
            del bookings[one.key]
        elif what < 0.6:
            later = timedelta(hours=chance.choice([0.25, 2]))
            bookings[one.key] = one.model_copy(update={"end": one.end + later})
        elif what < 0.7:
            bookings[one.key] = one.model_copy(update={"title": f"{one.title}!"})
        elif what < 0.8:
            request = one.request.model_copy(update={"dtype": chance.choice(["float32", "int8"])})
            bookings[one.key] = one.model_copy(update={"request": request})
        else:
            new = _random(chance, number, (at - NOON) / timedelta(hours=1))
            bookings[new.key] = new


def _asked(sizes: Mapping[str, Checkpoint | UnknownSize], plan: Plan | None) -> Known:
    return Known(
        checkpoints=sizes,
        loads=Loads(PLAIN),
        policy=POLICY,
        previous=plan.promises if plan else Promises(),
    )


def test_one_memory_serves_other_questions_meanwhile() -> None:
    """Without a node, at another time, with something booked besides, with what was promised forgotten."""
    week = Remembering(7, steps=25)
    for _ in week.run():
        asked = Known(checkpoints=CHECKPOINTS, loads=Loads(PLAIN), previous=week.made.promises)
        what = week.chance.randrange(4)
        nodes, at, also = week.nodes, week.at, list(week.bookings.values())
        if what == 0:
            nodes = nodes.without("a")
        elif what == 1:
            at += timedelta(hours=week.chance.choice([-5, 5]))
        elif what == 2:
            also.append(booking("org/large0", 1, 90, key="besides", replicas=2))
        else:
            asked = replace(asked, previous=Promises())
        both(also, nodes, at, asked, week.running, week.memory)


def test_a_stay_is_told_anew_when_a_booking_of_it_asks_for_another_precision() -> None:
    memory, nodes, sizes = Memory(), cluster(gpus("a", 4, 80)), known(m=14)
    first = booking("org/m", 1, 3, key="first", booked=-10)
    plan: Plan | None = None
    for dtype, asked_bytes in ((None, 0), ("float32", 30064771072)):
        second = booking("org/m", 2, 4, key="second", booked=-5, replicas=2, dtype=dtype)
        plan = both([first, second], nodes, NOON, _asked(sizes, plan), (), memory).plan
        assert [one.asked_bytes for one in plan.promises.stays] == [0, asked_bytes]


def test_events_with_the_same_key_are_told_apart() -> None:
    memory, on = Memory(), cluster(gpus("a", 2, 80))
    one, other = booking("org/small0", key="k"), booking("org/small1", 2, 3, key="k")
    for bookings in ([one], [one, other], [other, one], [other], [one, other], []):
        both(bookings, on, NOON, Known(checkpoints=CHECKPOINTS, loads=Loads(PLAIN)), (), memory)


def test_what_is_as_it_was_is_not_made_again() -> None:
    week = Remembering(3, steps=40)
    for _ in week.run():
        pass
    week.replan()
    before = week.made
    week.at += timedelta(seconds=1)
    week.replan()
    assert [a for a in week.made.actions if a.model] == []
    again = [old is new for old, new in zip(before.verdicts, week.made.verdicts, strict=True)]
    assert sum(again) >= len(again) - len(before.placements)
    assert week.made.promises is before.promises
