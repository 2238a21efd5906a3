"""How long the whole plan takes: everything that `plan` and the daemon do with what calendars said."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from time import thread_time

import numpy as np

from benchmarks.placement.instance import SLOT_SECONDS, Instance
from benchmarks.placement.ours import EPOCH, cluster_of
from calendars.reservation import ModelRequest, Reading, Reservation
from scheduler.planning.footprint import Loads, Sizing
from scheduler.planning.memory import Memory
from scheduler.planning.plan import Known, decide
from scheduler.quiet import without_collection
from scheduler.types import Checkpoint, Deployment, Model, Observed, Placement, Plan
from tests.scheduler.builders import deployed

EXACT_SIZES = Sizing(padding_fraction=0.0, padding_bytes=0)
IDLE = 5
CALENDAR = "lab@group.calendar.google.com"


def plan_times(instance: Instance, *, full: int = 3, changes: int = 12) -> dict[str, float]:
    """Processor seconds of a full plan, and of plans that follow it after one event changed each.

    Nothing is known before the first. Each of the others starts from what the plan before promised, from
    its placements, carried out, and from the planner's memory; by turns an event is prolonged by a
    quarter of an hour, taken away, and booked again. The first plan after all was carried out is not
    counted. Last, the same is asked again ten seconds later, with nothing changed. Medians; the slowest
    change, too.
    """
    at = datetime.fromtimestamp(EPOCH, UTC)
    reservations = reservations_of(instance)
    cluster = cluster_of(instance)
    observed = Observed(cluster=cluster)
    known = Known(checkpoints=checkpoints_of(instance, reservations), loads=Loads(sizing=EXACT_SIZES))
    spent = []
    for _ in range(full):
        plan, seconds = _timed(reservations, observed, at, known)
        spent.append(seconds)
    memory, again, idle = Memory(), list[float](), list[float]()
    plan, _ = _timed(reservations, observed, at, known, memory)
    there = _There()
    rng = np.random.default_rng(0)
    for turn in range(-1, changes + IDLE):
        at += timedelta(seconds=60 if turn < changes else 10)
        observed = Observed(cluster=cluster, deployments=there.carried_out(plan))
        known = Known(checkpoints=known.checkpoints, loads=known.loads, previous=plan.promises)
        if 0 <= turn < changes:
            reservations = _changed(reservations, turn, rng)
        plan, seconds = _timed(reservations, observed, at, known, memory)
        if turn >= 0:
            (again if turn < changes else idle).append(seconds)
    return {
        "full_plan_seconds": statistics.median(spent),
        "changed_plan_seconds": statistics.median(again),
        "changed_plan_seconds_most": max(again),
        "idle_plan_seconds": statistics.median(idle),
    }


class _There:
    """What runs once plans were carried out; as the daemon sees it, what is as it was is the same object."""

    def __init__(self) -> None:
        self._known: dict[Placement, Deployment] = {}

    def carried_out(self, plan: Plan) -> tuple[Deployment, ...]:
        self._known = {one: self._known.get(one) or deployed(one) for one in plan.placements}
        return tuple(self._known.values())


def _timed(
    reservations: Iterable[Reservation],
    observed: Observed,
    at: datetime,
    known: Known,
    memory: Memory | None = None,
) -> tuple[Plan, float]:
    readings = (Reading(calendar=CALENDAR, reservations=tuple(reservations)),)
    began = thread_time()
    with without_collection():  # as the controller does
        plan = decide(readings, observed, at, known, memory).plan
    return plan, thread_time() - began


def _changed(reservations: list[Reservation], turn: int, rng: np.random.Generator) -> list[Reservation]:
    number = int(rng.integers(len(reservations)))
    one = reservations[number]
    rest = [*reservations[:number], *reservations[number + 1 :]]
    if turn % 3 == 1:
        return rest
    update: dict[str, object] = {"end": one.end + timedelta(seconds=SLOT_SECONDS)}
    if turn % 3 == 2:
        update["key"] = f"{one.key} again {turn}"
    return [*rest, one.model_copy(update=update)]


def reservations_of(instance: Instance) -> list[Reservation]:
    """The bookings as calendars tell them, each of a model of its own."""
    found = []
    for number in range(len(instance)):
        request = ModelRequest(
            model=f"lab/model-{number:06d}",
            dtype="bfloat16",
            gpus=int(instance.asked[number]) or None,
            accelerator=instance.accelerator[number] or None,
        )
        found.append(
            Reservation(
                key=f"{number:06d}",
                calendar=CALENDAR,
                title=f"Booking {number}",
                start=_moment(float(instance.start[number]) * SLOT_SECONDS),
                end=_moment(float(instance.end[number]) * SLOT_SECONDS),
                booked_at=_moment(float(instance.booked[number])),
                owner="ada@example.org",
                request=request,
            )
        )
    return found


def checkpoints_of(instance: Instance, reservations: Iterable[Reservation]) -> dict[str, Checkpoint]:
    """Sizes that come to the footprints of the instance, to the byte."""
    return {
        Model(repo_id=one.request.model).key: Checkpoint(parameters=int(footprint) // 2, source="benchmark")
        for one, footprint in zip(reservations, instance.footprint, strict=True)
    }


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(EPOCH + seconds, UTC)
