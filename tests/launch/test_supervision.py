"""A node is kept up while it is wanted, and signals end it in order."""

from __future__ import annotations

import io
import os
import signal
import threading
from pathlib import Path

import pytest
from rich.console import Console

from scheduler.errors import OperatorError
from scheduler.launch import supervision
from scheduler.launch.ray_node import RayNode
from scheduler.launch.supervision import interruptible, running, undisturbed
from scheduler.settings import Settings
from tests.ray_cluster import wait_until


class PaperNode(RayNode):
    """A node without processes, whose life is a flag. ``refusals``: starts that fail, by number."""

    role = "paper"

    def __init__(self, folder: Path, *refusals: int) -> None:
        super().__init__(Settings(state_dir=folder), Console(file=io.StringIO()))
        self.alive = threading.Event()
        self.starts = 0
        self.refusals = refusals

    def start(self) -> None:
        self.starts += 1
        if self.starts in self.refusals:
            raise OperatorError("No.", "Later.")
        self.alive.set()

    def stop(self, seconds: float = 0) -> int | None:
        self.alive.clear()
        return 0

    def wait(self, seconds: float) -> bool:
        threading.Event().wait(0.01)
        return not self.alive.is_set()


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE_SECONDS", 0.01)


def console() -> Console:
    return Console(file=io.StringIO())


def test_a_node_runs_inside_and_only_inside(tmp_path: Path) -> None:
    node = PaperNode(tmp_path)
    with running(node, console()):
        assert node.alive.is_set()
    assert not node.alive.is_set()
    assert (node.starts, node.given_up) == (1, True)


def test_a_node_that_dies_is_started_again_until_it_is_up(tmp_path: Path) -> None:
    node = PaperNode(tmp_path, 2, 3)
    with running(node, console()):
        node.alive.clear()
        wait_until(
            lambda: node.starts == 4 and node.alive.is_set(), 5, "the fourth start, after two failures"
        )


def test_a_node_that_never_starts_is_said_at_once(tmp_path: Path) -> None:
    node = PaperNode(tmp_path, 1)
    with pytest.raises(OperatorError), running(node, console()):
        pass
    assert node.starts == 1


def test_a_node_is_stopped_when_what_it_ran_for_fails(tmp_path: Path) -> None:
    node = PaperNode(tmp_path)
    with pytest.raises(ZeroDivisionError), running(node, console()):
        raise ZeroDivisionError
    assert not node.alive.is_set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_way_of_asking_for_an_end_interrupts(number: signal.Signals) -> None:
    # whoever runs the tests under nohup has it ignored
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt), interruptible():
            os.kill(os.getpid(), number)
            threading.Event().wait(5)
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_impatient_second_signal_does_not_cut_the_stop_short() -> None:
    with interruptible(), undisturbed():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
