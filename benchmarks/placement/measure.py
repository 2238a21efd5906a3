"""One policy on one instance, in a process of its own."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter, thread_time
from typing import ParamSpec, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from benchmarks.placement.baselines import baseline, look_ahead
from benchmarks.placement.check import check
from benchmarks.placement.instance import Instance, Policy, Result, Setting
from benchmarks.placement.ours import ours, ours_in_turn
from benchmarks.placement.plans import plan_times
from benchmarks.placement.rules import Rule
from benchmarks.placement.synthetic import synthetic_week
from benchmarks.placement.traces import openb, philly

FAMILIES: dict[str, Callable[..., Instance]] = {"synthetic": synthetic_week, "openb": openb, "philly": philly}

P = ParamSpec("P")
T = TypeVar("T")

OURS, IN_TURN = "ours", "ours, in turn"
POLICIES: dict[Setting, dict[str, Policy]] = {
    Setting.FREE: {
        "NDIF's way": baseline(Rule.RANDOM),
        "best fit at start": baseline(Rule.BEST),
        "first fit at start": baseline(Rule.FIRST),
        "look ahead, first fit": look_ahead,
        IN_TURN: ours_in_turn,
        OURS: ours,
    },
    Setting.PROMISED: {
        "random node, fixed": baseline(Rule.RANDOM),
        "best fit, fixed": baseline(Rule.BEST),
        "first fit, fixed": baseline(Rule.FIRST),
        OURS: ours,
    },
}


class Row(BaseModel):
    """What one policy made of one instance.

    ``share`` is the weight placed over the bound; ``late`` the part of the placed bookings that are not
    loaded at their start, ``late_seconds`` their mean. ``memory_mib`` is the most that was added while
    it ran. Verdicts are in milliseconds of processor time.
    """

    model_config = ConfigDict(frozen=True)

    family: str
    nodes: int
    load: float
    seed: int
    setting: Setting
    policy: str
    bookings: int
    offered_load: float
    bound_of_asked: float
    share: float
    placed: float
    moves: int
    withdrawn: int
    late: float
    late_seconds: float
    seconds: float
    processor_seconds: float
    memory_mib: float
    verdict_ms_p50: float | None = None
    verdict_ms_p99: float | None = None
    figures: dict[str, float] = {}


def measure(instance: Instance, load: float, seed: int, setting: Setting, policy: str, bound: float) -> Row:
    """Run a policy and check what it answers.

    Raises:
        Overbooked: it cannot be.
        RuntimeError: the policy failed, or placed more than the bound.
    """
    result, seconds, processor_seconds, memory_mib = _apart(_work, instance, setting, policy)
    late = check(instance, result)[result.placed]
    weight = float(instance.weight[result.placed].sum())
    if weight > bound * (1 + 1e-9):
        raise RuntimeError(f"{policy} placed {weight}, the bound is {bound}: one of them is wrong")
    verdicts: tuple[float | None, float | None] = (None, None)
    if result.verdict_seconds is not None:
        p50, p99 = np.percentile(result.verdict_seconds, (50, 99)) * 1e3
        verdicts = (float(p50), float(p99))
    return Row(
        family=instance.name,
        nodes=instance.nodes,
        load=load,
        seed=seed,
        setting=setting,
        policy=policy,
        bookings=len(instance),
        offered_load=instance.offered_load,
        bound_of_asked=bound / float(instance.weight.sum()),
        share=weight / bound,
        placed=float(result.placed.mean()),
        moves=result.moves,
        withdrawn=result.withdrawn,
        late=float((late > 0).mean()) if len(late) else 0.0,
        late_seconds=float(late[late > 0].mean()) if (late > 0).any() else 0.0,
        seconds=seconds,
        processor_seconds=processor_seconds,
        memory_mib=memory_mib,
        verdict_ms_p50=verdicts[0],
        verdict_ms_p99=verdicts[1],
        figures=result.figures,
    )


def plan_times_apart(instance: Instance) -> dict[str, float]:
    """`plan_times` in a process of its own, with the number of bookings."""
    return {"bookings": float(len(instance)), **_apart(plan_times, instance)}


def _apart(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    # Forked from a server that has imported everything and run nothing: clean, and at once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, *args, **kwargs).result()


def _work(instance: Instance, setting: Setting, policy: str) -> tuple[Result, float, float, float]:
    run = POLICIES[setting][policy]
    # what is imported or compiled on first use is not what is measured
    run(instance.only(np.arange(min(3, len(instance))), 0.0), setting)
    for _ in instance.fraction, instance.weight:
        pass
    before = _memory_mib("VmRSS")
    began, worked = perf_counter(), thread_time()
    result = run(instance, setting)
    seconds, processor_seconds = perf_counter() - began, thread_time() - worked
    return result, seconds, processor_seconds, max(_memory_mib("VmHWM") - before, 0.0)


def _memory_mib(what: str) -> float:
    """Memory of this process; where the system does not tell, the most it ever had."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = next(line for line in status.read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024
