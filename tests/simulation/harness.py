"""A world to run the real daemon in: a clock moved by hand, a calendar, a cluster, and people who book.

    with world(tmp_path, "2026-03-25T08:00") as lab:
        event = lab.calendar.add("phi", "2026-03-25T10:00", "2026-03-25T12:00")
        lab.run_until("2026-03-25T10:00")
        assert lab.serving() == {"phi"}

The daemon is the product's own, with its own clients on both servers and a real key file. What it wants to be
done in time it tells to `SimulatedJobs`, and `World.run_until` does it at that instant. Retries of the
Google client do not pause, steps are taken in the thread of the loop, and between it and the cluster there is
no wire unless ``over_http``; nothing else is different from production.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import yaml
from loguru import logger
from rich.console import Console

from calendars.google import GoogleCalendar
from calendars.google_events import STATE_PROPERTY
from scheduler.board import Board
from scheduler.bookings import calendar_sources
from scheduler.daemon import Daemon
from scheduler.heartbeat import Heartbeat, last_beat
from scheduler.metrics.meter import Meter, Unmetered
from scheduler.settings import Settings
from scheduler.store.history import Recorder
from scheduler.store.orders import Order, OrderBook, OrderKind, Orders
from tests.google_server import CalendarHandle, FakeClock, GoogleServer, google_server
from tests.ray_cluster import environment
from tests.simulation.fake_ray import FakeRay, fake_ray
from tests.simulation.jobs import SimulatedJobs
from tests.simulation.stand_ins import DashboardAtHand, StepsInPlace

MODELS = {"phi": 8.0, "llama": 16.0, "qwen": 60.0, "mistral": 14.0, "giant": 900.0}
"""What people here book: alias and GiB of weights; the repo id is ``lab/ALIAS``."""

WATCH_SECONDS = 4.0
"""How often what is loading is looked at; the product does so every second."""


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
    over_http: bool = False
    after_pass: Callable[[], None] = lambda: None
    said: list[str] = field(default_factory=list)
    passes: int = 0
    board: Board = field(default_factory=Board)
    meter: Meter = field(default_factory=Unmetered)
    _daemon: Daemon | None = None
    _jobs: SimulatedJobs | None = None

    # --- the daemon ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a daemon; the old one, if there is any, ends as if killed."""
        self.stop()
        self._jobs = SimulatedJobs(self.clock)
        self._daemon = Daemon(
            self.settings,
            clock=self.clock,
            steady=lambda: self.clock().timestamp(),
            jobs=self._jobs,
            calendars=partial(calendar_sources, google=HurriedCalendar),
            dashboard=None if self.over_http else DashboardAtHand(self.ray, self.settings),
            console=Console(file=io.StringIO(), force_terminal=False),
            board=self.board,
            meter=self.meter,
        )
        self._daemon._steps = StepsInPlace(after=self.meter.stepped)
        self._daemon.begin()

    def stop(self) -> None:
        """End the daemon without a word to anyone; what runs keeps running."""
        if self._daemon is not None:
            self._daemon.close()
        self._daemon = self._jobs = None

    @property
    def daemon(self) -> Daemon:
        """The daemon at work."""
        assert self._daemon is not None
        return self._daemon

    @property
    def heartbeat(self) -> Heartbeat:
        """What the daemon says of itself."""
        found = last_beat(self.settings.path(self.settings.state_dir))
        assert found is not None
        return found

    def history(self) -> Recorder:
        """The daemon's history."""
        return self.daemon._history

    def order(self, kind: OrderKind, subject: str = "", hours: float | None = None) -> None:
        """The operator orders something; the daemon takes it up at once."""
        until = None if hours is None else self.clock() + timedelta(hours=hours)
        order = Order(kind=kind, subject=subject, since=self.clock(), until=until, by="op@desk")
        self._change_orders(lambda orders: orders.with_order(order))

    def take_back(self, subject: str = "") -> None:
        """The operator takes every order about a subject back."""
        self._change_orders(lambda orders: orders.without(subject, frozenset(OrderKind)))

    def _change_orders(self, change: Callable[[Orders], Orders]) -> None:
        OrderBook(self.settings.path(self.settings.state_dir)).change(change)
        if self._daemon is not None:
            self._daemon.mind()
            self.run_for(seconds=0.2)

    def run_until(self, when: datetime | str) -> None:
        """Let time pass, from one thing that is due to the next. A text is in the calendar's zone."""
        until = self.at(when)
        while self._daemon is not None and self._jobs is not None:
            due = self._jobs.due()
            if due is None or due.at > until:
                break
            self.clock.set(max(due.at, self.clock()))
            self._jobs.done(due, {"tick": self.poll_seconds, "watch": WATCH_SECONDS})
            self._daemon.mind()
            due.do()
            if due.name != "watch":
                self.passes += 1
                self.after_pass()
        self.clock.set(until)

    def run_for(self, **parts: float) -> None:
        """Let ``timedelta(**parts)`` pass."""
        self.run_until(self.clock() + timedelta(**parts))

    def poll(self) -> None:
        """Let time pass until the daemon has polled once more, and what that led to at once."""
        assert self._jobs is not None
        self.run_until(self._jobs.intervals["tick"].at + timedelta(seconds=0.2))

    def at(self, when: datetime | str) -> datetime:
        """An instant; a text without an offset is in the calendar's zone."""
        moment = datetime.fromisoformat(when) if isinstance(when, str) else when
        return (moment if moment.tzinfo else moment.replace(tzinfo=self.zone)).astimezone(UTC)

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
    guard: Mapping[str, float] | None = None,
    over_http: bool = False,
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
            guard=dict(guard or {}),
        )
        found = World(clock, google, lab, ray, settings, ZoneInfo(zone), poll_seconds, over_http)
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
