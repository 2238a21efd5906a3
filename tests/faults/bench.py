"""Daemons beside a Ray cluster, somebody who asks the model all the time, and hands that kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil

from calendars.ics import write_starter_calendar
from scheduler.heartbeat import Heartbeat, last_beat
from scheduler.settings import ROOT
from tests.ray_cluster import RayCluster, wait_until
from tests.tiny_model import TINY_REPO_ID

SUICIDE = """
import os, signal, sys
from scheduler.daemon import Daemon
from scheduler.settings import load_settings
from scheduler.cluster.dashboard import Dashboard

step, after_put = sys.argv[1], sys.argv[1] == "after the PUT"
put = Dashboard.put_serve_config

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def put_and_die(self, config):
    put(self, config)
    die()

if after_put:
    Dashboard.put_serve_config = put_and_die
Daemon(load_settings(), before_step=lambda name: die() if name == step else None).run()
"""
"""A daemon that is killed as by ``kill -9`` before a step of its loop, or right after Serve's answer."""


@dataclass
class Bench:
    """One calendar and one state directory for each daemon, all on one cluster."""

    cluster: RayCluster
    folder: Path
    measured: dict[str, float] = field(default_factory=dict)

    def book(self, seconds: float = 3600) -> None:
        """The tiny model is booked from now on."""
        now = datetime.now(UTC)
        end = now + timedelta(seconds=seconds)
        new = self.folder / "new.ics"
        write_starter_calendar(new, title=TINY_REPO_ID, start=now, end=end, now=now)
        new.replace(self.calendar)

    def cancel(self) -> None:
        """Nothing is booked any more."""
        self.calendar.write_text("BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//tests//\r\nEND:VCALENDAR\r\n")

    def measure(self, what: str, since: float, most: float) -> None:
        """Note how long something took since an instant of the monotonic clock, and that it may."""
        took = time.monotonic() - since
        self.measured[what] = took
        assert took < most, f"{what} took {took:.1f} s"

    @property
    def calendar(self) -> Path:
        return self.folder / "calendar.ics"

    def environment(self, name: str, **more: str) -> dict[str, str]:
        """What a daemon of that name finds."""
        settings = self.folder / "settings.yml"
        settings.write_text("")
        return os.environ | {
            "NDIF_STATE_DIR": str(self.folder / name),
            "NDIF_CONFIG": str(settings),
            "NDIF_CALENDAR__ICS": str(self.calendar),
            "NDIF_CALENDAR__CHECK_INTERVAL_SECONDS": "1",
            "NDIF_GUARD__NODE_GRACE_SECONDS": "5",
            "NDIF_RAY__DASHBOARD_URL": self.cluster.dashboard_url,
            "NDIF_CONTROLLER__ADDRESS": self.cluster.address,
            "NDIF_SERVE__PORT": str(self.cluster.serve_port),
            "HF_HOME": str(self.cluster.hf_home),
            "HF_ENDPOINT": "http://127.0.0.1:9",
            **more,
        }

    @contextmanager
    def daemon(self, name: str, **more: str) -> Iterator[subprocess.Popen[bytes]]:
        """A daemon in its own process; ended with SIGTERM where it is still there."""
        (self.folder / name).mkdir(exist_ok=True)
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", "scheduler", "run"]
            process = subprocess.Popen(command, env=self.environment(name, **more), cwd=ROOT, stderr=log)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            assert process.wait(20) is not None

    def suicidal(self, step: str) -> int:
        """Run a daemon that is killed at a step; its exit status."""
        done = subprocess.run(
            [sys.executable, "-c", SUICIDE, step],
            env=self.environment("a", NDIF_CONTROLLER__ENABLED="false"),
            cwd=ROOT,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return done.returncode

    def beat(self, name: str) -> Heartbeat | None:
        """What a daemon last said of itself."""
        return last_beat(self.folder / name)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    # --- what runs --------------------------------------------------------------------------------------

    def ours(self) -> dict[str, Any]:
        """Our model applications."""
        return {n: a for n, a in self.cluster.applications().items() if n.startswith("ndif-model-")}

    def replicas(self) -> list[dict[str, Any]]:
        """The replicas of our models that run."""
        found = []
        for app in self.ours().values():
            for deployment in app["deployments"].values():
                found += [one for one in deployment["replicas"] if one["state"] == "RUNNING"]
        return found

    def actor(self, part: str) -> int:
        """The process of the actor with that in its name."""
        url = f"{self.cluster.dashboard_url}/api/v0/actors"
        wanted = {"filter_keys": "state", "filter_predicates": "=", "filter_values": "ALIVE"}
        rows = httpx.get(url, params={"limit": "1000", "detail": "true", **wanted}, timeout=10).json()
        pids = [one["pid"] for one in rows["data"]["result"]["result"] if part in (one.get("name") or "")]
        assert pids, f"no actor {part}"
        return int(pids[0])

    def serves(self) -> bool:
        """Whether the model answers."""
        body = {"model": TINY_REPO_ID, "prompt": "the cat", "max_tokens": 2}
        try:
            answer = httpx.post(f"{self.cluster.serve_url}/v1/completions", json=body, timeout=5)
        except httpx.TransportError:
            return False
        return answer.status_code == 200

    def until_serves(self, seconds: float = 90) -> None:
        """Wait until it does."""
        wait_until(self.serves, seconds, "the model answers", every=0.1)

    @contextmanager
    def asking(self) -> Iterator[Asking]:
        """Somebody asks the model over and over."""
        asking = Asking(self)
        asking.start()
        try:
            yield asking
        finally:
            asking.stop()


class Asking:
    """Asks again and again, and remembers the longest time without an answer."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self.answered = self.failed = 0
        self.longest_gap = 0.0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()

    def _ask(self) -> None:
        last = time.monotonic()
        while not self._end.is_set():
            if self._bench.serves():
                now = time.monotonic()
                self.longest_gap, last = max(self.longest_gap, now - last), now
                self.answered += 1
            else:
                self.failed += 1
            self._end.wait(0.1)


def kill(pid: int) -> float:
    """Kill a process as by ``kill -9``; when that was, by the monotonic clock."""
    psutil.Process(pid).kill()
    return time.monotonic()
