"""A daemon in a process of its own: stopped while Serve has not answered, started on a disk that is full."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from calendars.ics import write_starter_calendar
from scheduler.heartbeat import last_beat
from scheduler.settings import ROOT
from tests.ray_cluster import wait_until
from tests.simulation.fake_ray import APPLICATIONS, FakeRay
from tests.simulation.harness import write_models

STOPPED_SECONDS = 15.0


def now() -> datetime:
    return datetime.now(UTC)


class SlowRay(FakeRay):
    """Answers a configuration only once it ``may_answer``; takes it up before that, or after."""

    def __init__(self, takes_up_first: bool) -> None:
        super().__init__(now, load_seconds=0.3, build_seconds=0.2, delete_seconds=0.2)
        self.takes_up_first = takes_up_first
        self.asked, self.may_answer = threading.Event(), threading.Event()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        if (method, path) != ("PUT", APPLICATIONS):
            return super().answer(method, path, body)
        answered = super().answer(method, path, body) if self.takes_up_first else None
        self.asked.set()
        self.may_answer.wait(60)
        return answered or (503, "Nobody waits for this any more.")


def no_room() -> None:
    """From now on nothing can be written into any file of this process."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@contextmanager
def daemon(
    folder: Path, ray: FakeRay, before: Callable[[], None] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {
        "NDIF_STATE_DIR": str(folder / "state"),
        "NDIF_CONFIG": str(folder / "settings.yml"),
        "NDIF_CALENDAR__ICS": str(folder / "calendar.ics"),
        "NDIF_CALENDAR__CHECK_INTERVAL_SECONDS": "1",
        "NDIF_MODELS__CATALOG": str(folder / "models.yml"),
        "NDIF_RAY__DASHBOARD_URL": ray.url,
        "NDIF_CONTROLLER__ENABLED": "false",
        "NDIF_WEB__ENABLED": "false",
        "HF_HOME": str(folder / "huggingface"),
        "HF_ENDPOINT": "http://127.0.0.1:9",
    }
    command = [sys.executable, "-m", "scheduler", "run"]
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, preexec_fn=before)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def book(folder: Path) -> None:
    """Phi, from now on for an hour."""
    write_models(folder)
    (folder / "settings.yml").write_text("")
    start = now()
    calendar = folder / "calendar.ics"
    write_starter_calendar(calendar, title="phi", start=start, end=start + timedelta(hours=1), now=start)


@pytest.mark.parametrize("takes_up_first", [True, False], ids=["taken up", "not taken up"])
def test_a_daemon_that_is_stopped_while_it_applies_ends_and_the_next_one_carries_on(
    takes_up_first: bool, tmp_path: Path
) -> None:
    book(tmp_path)
    ray = SlowRay(takes_up_first)
    ray.add_node("gpu-a", gpus=1)
    ray.start()
    try:
        with daemon(tmp_path, ray) as process:
            assert ray.asked.wait(30)
            process.send_signal(signal.SIGTERM)
            assert process.wait(STOPPED_SECONDS) == 0
        ray.may_answer.set()
        assert len(_models(ray)) == takes_up_first
        if takes_up_first:
            wait_until(lambda: "RUNNING" in _models(ray).values(), 10, "Serve loads it without the daemon")
        replicas = _replicas(ray)
        ray.takes_up_first = True
        with daemon(tmp_path, ray) as process:
            wait_until(
                lambda: (beat := last_beat(tmp_path / "state")) and beat.pid == process.pid, 30, "it looks"
            )
            wait_until(lambda: "RUNNING" in _models(ray).values(), 30, "phi serves")
            process.send_signal(signal.SIGTERM)
            assert process.wait(STOPPED_SECONDS) == 0
        assert len(_replicas(ray)) == 1
        assert not replicas or _replicas(ray) == replicas
    finally:
        ray.may_answer.set()
        ray.stop()


@pytest.mark.parametrize("first_start", [True, False], ids=["first start", "later start"])
def test_a_daemon_that_is_started_on_a_full_disk_does_its_work_and_says_so(
    first_start: bool, tmp_path: Path
) -> None:
    book(tmp_path)
    ray = SlowRay(takes_up_first=True)
    ray.may_answer.set()
    ray.add_node("gpu-a", gpus=1)
    ray.start()
    try:
        if not first_start:
            with daemon(tmp_path, ray) as process:
                wait_until(lambda: "RUNNING" in _models(ray).values(), 30, "phi serves")
                process.kill()
            ray.serve.put({"applications": []}, now())
            wait_until(lambda: not _models(ray), 30, "phi is gone")
        with daemon(tmp_path, ray, no_room) as process:
            wait_until(lambda: "RUNNING" in _models(ray).values(), 30, "phi serves")
            process.send_signal(signal.SIGTERM)
            assert process.wait(STOPPED_SECONDS) == 0
            assert process.stderr is not None
            said = process.stderr.read().decode()
        assert "cannot be written" in said
        assert "Traceback" not in said
    finally:
        ray.stop()


def _replicas(ray: FakeRay) -> list[int]:
    return [one.number for name in _models(ray) for one in ray.serve.apps[name].replicas]


def _models(ray: FakeRay) -> dict[str, str]:
    return {name: status for name, status in ray.statuses().items() if name.startswith("ndif-model-")}
