"""Seeded weeks of bookings, edits and lost nodes for the planner alone; every plan is carried out at once.

``python -m tests.simulation.planner_weeks --seeds 200`` runs many and tells how fast; a seed that fails
is named, and ``--seeds 1 --first SEED`` replays it.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from calendars.reservation import Reservation
from scheduler.cluster.node import Cluster, DeviceKind, Node
from scheduler.types import ActionKind, Deployment, Plan, ReasonCode, Verdict, VerdictState
from tests.scheduler.builders import GIB, NOON, booking, carried_out, cluster, cpu, gpus, known, planned

SIZES = {"tiny": 2.0, "small": 14.0, "medium": 60.0, "large": 140.0, "huge": 400.0, "giant": 5000.0}
MODELS = {f"{size}{number}": gib for size, gib in SIZES.items() for number in range(4)}
CHECKPOINTS = known(**MODELS)
HELD = (VerdictState.PLACED, VerdictState.COMING)


@dataclass
class Week:
    """A week of one seed. ``run`` yields after every plan, when it has been carried out."""

    seed: int
    steps: int = 60
    priorities: tuple[int, ...] = (0,)
    lose_nodes: bool = False
    crowded: bool = False
    """Few small nodes, some of which others use a part of, and few models, all booked for the same hours."""
    choosy: bool = False
    """Bookings ask for precisions, GPUs and kinds of them, are edited to ask for others, and begin and end
    with each other. Time stops at every boundary.
    """
    at: datetime = NOON
    bookings: dict[str, Reservation] = field(default_factory=dict)
    plan: Plan | None = None
    before: Plan | None = None
    running: tuple[Deployment, ...] = ()
    touched: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.all_nodes: tuple[Node, ...] = (
            gpus("a", 8, 80),
            gpus("b", 4, 80),
            gpus("c", 2, 24),
            cpu("d", 32),
        )
        self.models = sorted(MODELS)
        if self.crowded:
            names = "abcd"[: self.chance.randint(2, 4)]
            self.all_nodes = tuple(self.chance.choice(SMALL)(name) for name in names)
            self.models = self.chance.sample([name for name in sorted(MODELS) if MODELS[name] < 200], 7)
        if self.choosy:
            kinds = {node.name: self.chance.choice([None, *ACCELERATORS]) for node in self.all_nodes}
            self.all_nodes = tuple(_of_kind(node, kinds[node.name]) for node in self.all_nodes)
            self.models = self.models[:4]
        self.broken: set[str] = set()

    @property
    def nodes(self) -> Cluster:
        there = [node for node in self.all_nodes if node.name not in self.lost]
        return cluster(*(_without_a_device(node) if node.name in self.broken else node for node in there))

    def run(self) -> Iterator[Week]:
        for number in range(self.steps):
            self.touched.clear()
            self._edit(number)
            self.replan()
            yield self

    @property
    def made(self) -> Plan:
        """The last plan."""
        assert self.plan is not None
        return self.plan

    def replan(self) -> None:
        """Plan, and carry the plan out."""
        self.before = self.plan
        self.plan = planned(
            self.bookings.values(),
            self.nodes,
            CHECKPOINTS,
            running=self.running,
            at=self.at,
            previous=self.plan,
        )
        self.running = carried_out(self.plan)

    def _edit(self, number: int) -> None:
        what = self.chance.random()
        if what < 0.5 or not self.bookings:
            self._book(number)
        elif what < 0.6:
            self._change(self.chance.choice(sorted(self.bookings)))
        elif what < 0.67:
            key = self.chance.choice(sorted(self.bookings))
            self.log.append(f"cancel {key}")
            self.touched.add(key)
            del self.bookings[key]
        elif what < 0.72 and self.lose_nodes:
            name = self.chance.choice([node.name for node in self.all_nodes])
            of = self.chance.choice([self.lost, self.broken])
            of ^= {name}
            self.log.append(f"node {name}: lost {sorted(self.lost)}, a device less {sorted(self.broken)}")
        else:
            self._advance()

    def _book(self, number: int) -> None:
        hours = (self.at - NOON) / timedelta(hours=1)
        soon, longest = ([-0.5, 0, 0.05, 1, 4], 4) if self.crowded else ([-0.5, 0.5, 2, 8, 20, 40], 6)
        start = round(hours + self.chance.choice(soon) + self.chance.random() * (2 if self.crowded else 8), 2)
        if self.choosy and self.bookings and self.chance.random() < 0.4:
            other = self.bookings[self.chance.choice(sorted(self.bookings))]
            start = (self.chance.choice([other.start, other.end]) - NOON) / timedelta(hours=1)
        end = start + self.chance.choice([0.5, 1, 2, 4, 8, 24][:longest])
        if end <= hours:
            return
        key = f"k{number:03}"
        self.bookings[key] = booking(
            f"org/{self.chance.choice(self.models)}",
            start,
            end,
            key=key,
            booked=hours,
            priority=self.chance.choice(self.priorities),
            replicas=self.chance.choice([1, 1, 1, 2, 3 if self.crowded else 5]),
            **self._wishes(),
        )
        self.touched.add(key)
        self.log.append(f"book {self.bookings[key]}")

    def _wishes(self) -> dict[str, Any]:
        """What a booking asks for besides its model and replicas."""
        if not self.choosy:
            return {}
        return {
            "accelerator": self.chance.choice([None] * 9 + ACCELERATORS),
            "gpus": self.chance.choice([None] * 12 + [1, 2]),
            "dtype": self.chance.choice([None] * 12 + ["int8", "float32"]),
        }

    def _change(self, key: str) -> None:
        old = self.bookings[key]
        if self.choosy and self.chance.random() < 0.4:
            self.bookings[key] = old.model_copy(
                update={"request": old.request.model_copy(update=self._wishes())}
            )
            self.touched.add(key)
            self.log.append(f"{key} asks for {self.bookings[key].request}")
            return
        move = timedelta(hours=self.chance.choice([-1, 0, 1, 5]))
        longer = timedelta(hours=self.chance.choice([0, 1, 3]))
        self.bookings[key] = old.model_copy(
            update={"start": old.start + move, "end": old.end + move + longer}
        )
        self.touched.add(key)
        self.log.append(f"move {key} by {move}, longer by {longer}")

    def _advance(self) -> None:
        boundary = self.plan.next_boundary if self.plan else None
        if boundary is not None and self.chance.random() < 0.8:
            self.at = boundary
        else:
            later = self.at + timedelta(minutes=self.chance.choice([1, 30, 240]))
            self.at = min(later, boundary) if self.choosy and boundary is not None else later
        self.log.append(f"now {self.at}")


SMALL: tuple[Callable[[str], Node], ...] = (
    lambda name: gpus(name, 1, 80),
    lambda name: gpus(name, 2, 80),
    lambda name: gpus(name, 2, 80, taken=0.5),
    lambda name: gpus(name, 4, 24),
    lambda name: gpus(name, 8, 80),
    lambda name: cpu(name, 32),
)


ACCELERATORS = ["H100", "L4"]


def _of_kind(node: Node, accelerator: str | None) -> Node:
    return node.model_copy(update={"accelerator": accelerator}) if node.kind is DeviceKind.GPU else node


def _without_a_device(node: Node) -> Node:
    return node.model_copy(update={"devices": node.devices[1:]}) if len(node.devices) > 1 else node


def verdict_of(plan: Plan, key: str) -> Verdict | None:
    return next((verdict for verdict in plan.verdicts if verdict.event == key), None)


def overbooked(plan: Plan, bookings: Iterable[Reservation]) -> list[str]:
    """Nodes on which more is promised at some instant than there is, by the promises alone.

    Independent of the planner's own book: whole GPUs are counted, shares packed as bytes, so it finds
    less than it could for shares, but never too much.
    """
    by_key = {one.key: one for one in bookings}
    found = []
    for node in plan.cluster.nodes:
        stays = [stay for stay in plan.promises.stays if stay.node == node.name]
        for instant in {stay.start for stay in stays}:
            here = [stay for stay in stays if stay.start <= instant < stay.end]
            taken = sum(_bytes(by_key[stay.events[0]], node) for stay in here)
            if taken > node.memory_bytes:
                found.append(f"{node.name} at {instant}: {taken / GIB:.1f} GiB")
    return found


def _bytes(reservation: Reservation, node: Node) -> int:
    size = int(MODELS[reservation.request.model.removeprefix("org/")] * GIB)
    memory = node.devices[0].memory_bytes
    if node.kind is DeviceKind.CPU or size < memory:
        return size
    return -(-size // memory) * memory


def no_gpu_is_promised_twice(week: Week) -> None:
    """Those taken whole and those shared are no more than there are, and of none is more than all shared."""
    for node in week.made.cluster.nodes:
        shared = [
            device for device in node.devices if device.kind is DeviceKind.CPU or 0 < device.taken_share < 1
        ]
        free = sum(device.kind is DeviceKind.GPU and not device.taken_share for device in node.devices)
        stays = [stay for stay in week.made.promises.stays if stay.node == node.name]
        for instant in {max(stay.start, week.at) for stay in stays}:
            here = [stay for stay in stays if stay.start <= instant < stay.end]
            taken = sum(stay.devices for stay in here if stay.lane is None)
            lanes = {stay.lane for stay in here if stay.lane is not None}
            for lane in lanes:
                room = 1 - shared[lane].taken_share if lane < len(shared) else 1
                assert sum(stay.devices for stay in here if stay.lane == lane) <= room + 1e-4, week.log
            assert taken + sum(lane >= len(shared) for lane in lanes) <= free, week.log


def nothing_is_rebuilt_by_time_alone(week: Week) -> None:
    """But where the next booking begins as the last one ends, and asks for something else."""
    for action in () if week.touched or week.before is None else week.made.actions:
        if action.kind is ActionKind.REBUILD:
            for verdict in week.made.verdicts:
                old = verdict_of(week.before, verdict.event)
                served = old is not None and old.state is VerdictState.PLACED
                of_it = action.node in verdict.nodes and verdict.title == action.model.repo_id
                assert not (served and of_it), (action, week.log)


def memory_is_never_overbooked(week: Week) -> None:
    plan = week.made
    assert overbooked(plan, week.bookings.values()) == [], week.log
    for node in plan.cluster.nodes:
        here = [p for p in plan.placements if p.node == node.name]
        if node.kind is DeviceKind.GPU:
            assert sum(p.num_gpus * p.replicas for p in here) <= len(node.devices) + 1e-6, week.log
        else:
            assert sum(p.memory_bytes * p.replicas for p in here) <= node.memory_bytes, week.log


def what_was_promised_stays_promised(week: Week) -> None:
    """Whatever is booked, moved or cancelled besides, and as time goes by; while capacity stands.

    Only when something is edited, and then only a higher priority takes its room: one that was booked or
    edited, or was refused before. Not looked at is who has a replica as another asks for it, who may leave.
    """
    before = week.before.verdicts if week.before else ()
    taking = week.touched | {one.event for one in before if one.state is VerdictState.REFUSED}
    priorities = {key: one.request.priority for key, one in week.bookings.items()}
    strongest = min(week.priorities)
    if week.touched:
        strongest = max((priorities[key] for key in taking if key in priorities), default=strongest)
    for old in before:
        new = verdict_of(week.made, old.event)
        if old.reason.detail is not None and old.reason.detail.startswith("shared"):
            continue
        if old.state in HELD and old.event not in week.touched and new is not None:
            assert new.state in HELD or priorities[old.event] < strongest, (old.event, new.reason, week.log)


def asked_again_nothing_is_otherwise(week: Week) -> None:
    again = planned(
        week.bookings.values(),
        week.nodes,
        CHECKPOINTS,
        running=week.running,
        at=week.at,
        previous=week.made,
    )
    states = {verdict.event: verdict.state for verdict in week.made.verdicts}
    assert {verdict.event: verdict.state for verdict in again.verdicts} == states, week.log
    assert [action for action in again.actions if action.model] == [], week.log


def what_is_promised_for_now_runs_with_all_its_replicas(week: Week) -> None:
    for verdict in week.made.verdicts:
        if verdict.state is VerdictState.PLACED:
            there = [p for p in week.made.placements if verdict.event in p.target.reservations]
            wanted = week.bookings[verdict.event].request.replicas
            assert sum(p.replicas for p in there) >= wanted, (verdict.event, week.log)


def nothing_that_runs_is_moved_without_need(week: Week) -> None:
    """It leaves its node only when nobody asks for it any more, or when bookings were edited."""
    for action in week.made.actions:
        if action.kind is ActionKind.UNDEPLOY and not week.touched:
            assert action.reason.code is ReasonCode.NO_BOOKING, (action, week.log)
        assert action.kind is not ActionKind.REBUILD, (action, week.log)


def bookings_of_a_model_share_its_replicas(week: Week) -> None:
    """One stay: what is to come has no more replicas at once than one of its bookings asks for.

    What has begun may have more: two stays that began apart are not joined by moving one of them.
    """
    stays = week.made.promises.stays
    for stay in stays:
        at_once = [one for one in stays if one.model == stay.model and one.start <= stay.start < one.end]
        if any(one.start <= week.at for one in at_once):
            continue
        asked = [week.bookings[key].request.replicas for one in at_once for key in one.events]
        assert len(at_once) <= max(asked), (stay, week.log)


def what_is_on_time_is_loaded_before_its_start(week: Week) -> None:
    for verdict in week.made.verdicts:
        if verdict.state is VerdictState.COMING and verdict.ready_by and not verdict.late_seconds:
            assert verdict.start is not None
            lead = timedelta(seconds=60 + MODELS[verdict.title.removeprefix("org/")])
            if verdict.start - lead <= week.at:
                assert verdict.nodes, (verdict.event, week.log)


ALWAYS = (
    memory_is_never_overbooked,
    what_is_promised_for_now_runs_with_all_its_replicas,
)
PROPERTIES: dict[str, Callable[[int], tuple[Week, tuple[Callable[[Week], None], ...]]]] = {
    "calm": lambda seed: (
        Week(seed),
        (
            *ALWAYS,
            what_was_promised_stays_promised,
            nothing_that_runs_is_moved_without_need,
            bookings_of_a_model_share_its_replicas,
            what_is_on_time_is_loaded_before_its_start,
        ),
    ),
    "faults and priorities": lambda seed: (
        Week(seed, priorities=(0, 0, 5), lose_nodes=True),
        (*ALWAYS, asked_again_nothing_is_otherwise),
    ),
    "crowded": lambda seed: (
        Week(seed, crowded=True),
        (
            *ALWAYS,
            what_was_promised_stays_promised,
            asked_again_nothing_is_otherwise,
            nothing_that_runs_is_moved_without_need,
        ),
    ),
    "crowded and choosy": lambda seed: (
        Week(seed, steps=40, crowded=True, choosy=True),
        (
            no_gpu_is_promised_twice,
            what_is_promised_for_now_runs_with_all_its_replicas,
            what_was_promised_stays_promised,
            asked_again_nothing_is_otherwise,
            nothing_is_rebuilt_by_time_alone,
        ),
    ),
    "crowded, with priorities": lambda seed: (
        Week(seed, priorities=(0, 0, 5), crowded=True),
        (*ALWAYS, what_was_promised_stays_promised, asked_again_nothing_is_otherwise),
    ),
    "crowded, with faults": lambda seed: (
        Week(seed, lose_nodes=True, crowded=True),
        (*ALWAYS, asked_again_nothing_is_otherwise),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    began, plans, failed = time.monotonic(), 0, []
    for seed in range(asked.first, asked.first + asked.seeds):
        for kind, make in PROPERTIES.items():
            week, properties = make(seed)
            try:
                for _ in week.run():
                    plans += 1
                    for holds in properties:
                        holds(week)
            except AssertionError as error:
                failed.append(seed)
                print(f"{kind}, seed {seed}: {str(error)[:2000]}")  # noqa: T201
    seconds = time.monotonic() - began
    print(f"{plans} plans of {asked.seeds} seeds in {seconds:.0f} s; failed: {sorted(set(failed)) or 'none'}")  # noqa: T201


if __name__ == "__main__":
    main()
