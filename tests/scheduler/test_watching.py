"""What is timed of what is seen."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from scheduler.announcer import Announcer
from scheduler.events import Events
from scheduler.front import Alone
from scheduler.store.history import Recorder
from scheduler.types import Deployment, DeploymentStatus, Observed
from scheduler.watching import Watcher
from tests.scheduler.builders import NOON, booking, cluster, deployed, gpus, known, planned

ON = cluster(gpus("g", 8, 80))
PLACED = planned([booking("org/a")], ON, known(a=7)).placements[0]
STATE: Any = SimpleNamespace(unreadable={}, gateway_status=("RUNNING", ""))


class Watched:
    """A watcher with a history, by a clock of its own."""

    def __init__(self, folder: Path) -> None:
        self.history = Recorder(folder / "history.db", 90)
        self.now = 100.0
        console = Console(file=io.StringIO())
        self.watcher = Watcher(
            self.history, Alone(), lambda: NOON, lambda: self.now, None, Announcer(console), Events(None)
        )

    def sees(self, status: DeploymentStatus, ready: int) -> None:
        """A second later the model is so."""
        self.now += 1
        one: Deployment = deployed(PLACED, status=status, ready_replicas=ready)
        self.watcher.tell(Observed(cluster=ON, deployments=(one,)), STATE)

    @property
    def times(self) -> list[float]:
        return [one.seconds_p50 for one in self.history.load_times().values()]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    found = Watched(tmp_path)
    found.watcher.tell(Observed(cluster=ON, deployments=()), STATE)
    return found


def test_a_load_is_timed_from_its_beginning_to_serving(watched: Watched) -> None:
    for _ in range(3):
        watched.sees(DeploymentStatus.LOADING, 0)
    watched.sees(DeploymentStatus.SERVING, 1)
    assert watched.times == [3.0]


def test_what_is_changed_in_place_was_not_loaded(watched: Watched) -> None:
    watched.sees(DeploymentStatus.LOADING, 0)
    watched.sees(DeploymentStatus.LOADING, 0)
    watched.sees(DeploymentStatus.SERVING, 1)
    watched.sees(DeploymentStatus.LOADING, 1)
    watched.sees(DeploymentStatus.SERVING, 1)
    assert watched.times == [2.0]


def test_what_was_loading_at_the_start_is_not_timed(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.sees(DeploymentStatus.LOADING, 0)
    watched.sees(DeploymentStatus.SERVING, 1)
    assert watched.times == []
