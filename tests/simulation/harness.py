"""A world to run the real daemon in: a clock moved by hand, a calendar, a cluster, and people who book.

    with world(tmp_path, "2026-03-25T08:00") as lab:
        event = lab.calendar.add("phi", "2026-03-25T10:00", "2026-03-25T12:00")
        lab.run_until("2026-03-25T10:00")
        assert lab.serving() == {"phi"}

The daemon is the product's own, with its own clients on both servers and a real key file. Its scheduler is
started paused, so nothing runs by itself: `World.run_until` reads there what the daemon has asked for next
and calls it at that instant of the clock, as the scheduler would. Retries of the Google client do not pause;
nothing else is different from production.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch
from zoneinfo import ZoneInfo

import yaml
from loguru import logger
from rich.console import Console

import scheduler.bookings
from calendars.google import GoogleCalendar
from calendars.google_events import STATE_PROPERTY
from scheduler.daemon import WATCH_SECONDS, Daemon
from scheduler.settings import Settings
from tests.google_server import CalendarHandle, FakeClock, GoogleServer, google_server
from tests.ray_cluster import environment
from tests.simulation.fake_ray import FakeRay, fake_ray

MODELS = {"phi": 8.0, "llama": 16.0, "qwen": 60.0, "mistral": 14.0, "giant": 900.0}
"""What people here book: alias and GiB of weights; the repo id is ``lab/ALIAS``."""


class HurriedCalendar(GoogleCalendar):
    """The product's calendar, without pauses between tries."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **({"retry_pause_seconds": 0.0} | options))


@dataclass
class World:
    """Everything a simulation looks at and turns.

    ``after_pass`` is called after each pass of the daemon's loop; ``said`` is its log. ``poll_seconds`` is
    that of the settings until somebody changes it, to pass quickly over hours in which nothing happens.
    """

    clock: FakeClock
    google: GoogleServer
    calendar: CalendarHandle
    ray: FakeRay
    settings: Settings
    zone: ZoneInfo
    poll_seconds: float
    after_pass: Callable[[], None] = lambda: None
    said: list[str] = field(default_factory=list)
    passes: int = 0
    _daemon: Daemon | None = None
    _next_poll: datetime | None = None
    _next_watch: datetime | None = None

    # --- the daemon ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a daemon; the old one, if there is any, ends as if killed."""
        self.stop()
        self._daemon = Daemon(
            self.settings, clock=self.clock, console=Console(file=io.StringIO(), force_terminal=False)
        )
        self._daemon._jobs.start(paused=True)
        self._next_poll, self._next_watch = self.clock(), None

    def stop(self) -> None:
        """End the daemon without a word to anyone; what runs keeps running."""
        if self._daemon is not None:
            self._daemon._jobs.shutdown(wait=False)
            self._daemon._controller.close()
            self._daemon = None
        self._next_poll = self._next_watch = None

    def run_until(self, when: datetime | str) -> None:
        """Let time pass, from one thing that is due to the next. A text is in the calendar's zone."""
        until = self.at(when)
        while (due := self._due()) is not None and due[0] <= until:
            self.clock.set(max(due[0], self.clock()))
            due[1]()
        self.clock.set(until)

    def run_for(self, **parts: float) -> None:
        """Let ``timedelta(**parts)`` pass."""
        self.run_until(self.clock() + timedelta(**parts))

    def poll(self) -> None:
        """Let time pass until the daemon has polled once more, and what that led to at once."""
        assert self._next_poll is not None
        self.run_until(self._next_poll + timedelta(seconds=0.2))

    def at(self, when: datetime | str) -> datetime:
        """An instant; a text without an offset is in the calendar's zone."""
        moment = datetime.fromisoformat(when) if isinstance(when, str) else when
        return (moment if moment.tzinfo else moment.replace(tzinfo=self.zone)).astimezone(UTC)

    def _due(self) -> tuple[datetime, Callable[[], None]] | None:
        """What the daemon does next, and when."""
        if self._daemon is None or self._next_poll is None:
            return None
        jobs = {job.id: job for job in self._daemon._jobs.get_jobs()}
        coming = [(self._next_poll, self._poll)]
        if "boundary" in jobs:
            coming.append((jobs["boundary"].next_run_time.astimezone(UTC), self._boundary))
        if "watch" in jobs:
            self._next_watch = self._next_watch or self.clock() + timedelta(seconds=WATCH_SECONDS)
            coming.append((self._next_watch, self._watch))
        else:
            self._next_watch = None
        return min(coming, key=lambda one: one[0])

    def _poll(self) -> None:
        assert self._next_poll is not None
        self._next_poll += timedelta(seconds=self.poll_seconds)
        self._pass()

    def _boundary(self) -> None:
        assert self._daemon is not None
        self._daemon._jobs.remove_job("boundary")
        self._pass()

    def _watch(self) -> None:
        assert self._daemon is not None
        self._next_watch = self.clock() + timedelta(seconds=WATCH_SECONDS)
        self._daemon._watch()

    def _pass(self) -> None:
        assert self._daemon is not None
        self.passes += 1
        self._daemon.tick()
        self.after_pass()

    # --- what there is to see ------------------------------------------------------------------------------

    def serving(self) -> set[str]:
        """The models that answer now, by alias."""
        return {name for name, status in self.models().items() if status == "RUNNING"}

    def models(self) -> dict[str, str]:
        """Every model on the cluster that is not on its way out, and Serve's word for how it is."""
        statuses = self.ray.statuses()
        return {
            app.config["args"]["repo_id"].removeprefix("lab/"): statuses[name]
            for name, app in self.ray.serve.apps.items()
            if app.config.get("args", {}).get("kind") == "model" and statuses[name] != "DELETING"
        }

    def state(self, event_id: str) -> str | None:
        """What the service has written into an event, in one word; None where it has written nothing."""
        return self.calendar.private(event_id).get(STATE_PROPERTY)

    def writes(self, event_id: str | None = None) -> list[str]:
        """The states that were written (every write that arrived), in their order; of one event or all."""
        found = []
        for request in self.google.log.matching("PATCH", "/events/"):
            done = request.fault in (None, "slow", "drop_after", "truncated")
            if done and request.status in (0, 200) and event_id in (None, request.path.rpartition("/")[2]):
                body = json.loads(request.body)
                found.append(body["extendedProperties"]["private"][STATE_PROPERTY])
        return found

    def faults_of_the_loop(self) -> list[str]:
        """Passes that ended in something nobody had thought of."""
        return [line for line in self.said if "A pass of the loop failed" in line]


@contextmanager
def world(
    folder: Path,
    start: str,
    *,
    zone: str = "Europe/Berlin",
    poll_seconds: float = 30.0,
    timeout_seconds: float = 10.0,
    gpus: Mapping[str, int] | None = None,
    role: str = "writer",
    load_seconds: float = 25.0,
    **calendar: Any,
) -> Iterator[World]:
    """A cluster of ``gpus`` (node name to number, 80 GiB each), a calendar shared as ``role``, a daemon."""
    clock = FakeClock(datetime.fromisoformat(start).replace(tzinfo=ZoneInfo(zone)))
    write_models(folder)
    (folder / "settings.yml").write_text("")
    with ExitStack() as stack:
        stack.enter_context(
            environment({"HF_HOME": str(folder / "huggingface"), "NDIF_CONFIG": str(folder / "settings.yml")})
        )
        stack.enter_context(patch.object(scheduler.bookings, "GoogleCalendar", HurriedCalendar))
        google = stack.enter_context(google_server(clock=clock))
        ray = stack.enter_context(fake_ray(clock, load_seconds=load_seconds))
        for name, count in (gpus or {"gpu-a": 2, "gpu-b": 1}).items():
            ray.add_node(name, gpus=count)
        lab = google.calendar("lab@group.calendar.google.com", zone, role=role)
        settings = Settings(
            state_dir=folder / "state",
            calendar={
                "google_calendar_id": lab.id,
                "google_creds_path": google.key_file(folder),
                "google_endpoint": google.api_endpoint,
                "check_interval_seconds": poll_seconds,
                "timeout_seconds": timeout_seconds,
                **calendar,
            },
            ray={"dashboard_url": ray.url},
            serve={"host": "127.0.0.1", "port": 8267},
            models={"catalog": folder / "models.yml"},
        )
        found = World(clock, google, lab, ray, settings, ZoneInfo(zone), poll_seconds)
        sink = logger.add(found.said.append, format="{level} {message}", level="DEBUG")
        stack.callback(logger.remove, sink)
        stack.callback(found.stop)
        found.start()
        yield found


def write_models(folder: Path) -> None:
    """A catalog, and of each model as much of a checkpoint as tells its size."""
    models = [{"alias": alias, "repo_id": f"lab/{alias}"} for alias in MODELS]
    (folder / "models.yml").write_text(yaml.safe_dump({"models": models}))
    for alias, gib in MODELS.items():
        repository = folder / "huggingface" / "hub" / f"models--lab--{alias}"
        snapshot = repository / "snapshots" / "one"
        snapshot.mkdir(parents=True, exist_ok=True)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / "main").write_text("one")
        (snapshot / "config.json").write_text('{"dtype": "bfloat16"}')
        index = {"metadata": {"total_size": int(gib * 1024**3)}, "weight_map": {"w": "elsewhere.safetensors"}}
        (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
