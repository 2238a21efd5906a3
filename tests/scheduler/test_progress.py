"""What is told of applications from one observation to the next."""

from __future__ import annotations

from scheduler.progress import Follower, Progress, Step, settled
from scheduler.render.text import progress_line
from scheduler.types import DeploymentStatus
from tests.scheduler.builders import booking, cluster, cpu, deployed, known, planned

PLACEMENT = planned([booking("org/a")], cluster(cpu("c", 8)), known(a=1)).placements[0]
LOADING, SERVING, FAILED = (
    deployed(PLACEMENT, status)
    for status in (DeploymentStatus.LOADING, DeploymentStatus.SERVING, DeploymentStatus.FAILED)
)


def test_each_change_is_told_once_and_a_long_loading_again_and_again() -> None:
    follower = Follower(repeat_seconds=10)
    told = [
        [(p.step, p.seconds) for p in follower.update(seen, now)]
        for seen, now in [
            ([LOADING], 0.0),
            ([LOADING], 5.0),
            ([LOADING], 10.0),
            ([SERVING], 14.0),
            ([SERVING], 15.0),
            ([], 20.0),
            ([], 21.0),
        ]
    ]
    assert told == [
        [(Step.LOADING, 0.0)],
        [],
        [(Step.LOADING, 10.0)],
        [(Step.SERVING, 14.0)],
        [],
        [(Step.GONE, 20.0)],
        [],
    ]


def test_a_failure_is_told_and_loading_begins_anew_after_it() -> None:
    follower = Follower()
    steps = [
        (p.step, p.seconds)
        for now, seen in enumerate([LOADING, FAILED, LOADING, SERVING])
        for p in follower.update([seen], float(now))
    ]
    assert steps == [(Step.LOADING, 0), (Step.FAILED, 1), (Step.LOADING, 0), (Step.SERVING, 1)]


def test_every_step_has_its_line() -> None:
    lines = [
        progress_line(Progress(step, LOADING, seconds, fraction))
        for step, seconds, fraction in [
            (Step.DOWNLOADING, 0.0, None),
            (Step.DOWNLOADING, 12.0, 0.25),
            (Step.LOADING, 20.0, 0.5),
            (Step.WARMING, 30.0, None),
            (Step.SERVING, 31.0, None),
            (Step.GONE, 0.0, None),
        ]
    ]
    assert [line for _, line in lines] == [
        "Downloading org/a on c",
        "Downloading org/a on c (25%, 12 s)",
        "Loading org/a on c (50%, 20 s)",
        "Warming org/a on c (30 s)",
        "Serving org/a on c, 31 s after loading began",
        "Gone: org/a on c",
    ]


def test_nothing_is_settled_while_anything_loads() -> None:
    assert settled([SERVING, FAILED])
    assert not settled([SERVING, LOADING])
