"""Seeded weeks of a whole daemon in which everything fails that can: people, calendar, Ray, nodes, itself.

The daemon is the product's own, with its real steps, planning, history and orders; only the clock, the
calendar, Ray and the scheduler of jobs are stand-ins. Each day has some hours of faults and ends calm.

What must hold at every step (`Rules`):

- what others declared is in every configuration, as they declared it;
- no node is given more GPUs than it has;
- a model that serves and is booked goes only for a stated cause, and is moved only off a node that needs it;
- no model is given more replicas than are booked;
- no model is deployed again and again: at most `MOST_DEPLOYS` times on a node in an hour;
- no pass of the loop ends in an exception.

And once the faults of a day are over: within `MOST_TICKS` passes everything that is admitted serves and
nothing else does; from then on every booking serves at its start, but for those the plan says will be late.
"""

from __future__ import annotations

import io
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import yaml
from loguru import logger
from rich.console import Console

from scheduler.daemon import Daemon
from scheduler.settings import Settings
from scheduler.store.orders import Order, OrderBook, OrderKind
from scheduler.types import DeploymentStatus, Verdict
from tests.google_server import FakeClock
from tests.simulation.fake_ray import FakeRay
from tests.simulation.fake_serve import Needs
from tests.simulation.jobs import SimulatedJobs
from tests.simulation.rules import Broken, Rules
from tests.simulation.stand_ins import FakeCalendar, FakeCockpit, Killed, StepsInPlace

MONDAY = datetime(2026, 3, 23, tzinfo=UTC)
GPUS = {"gpu-a": 2, "gpu-b": 2, "gpu-c": 1}
MODELS = {"small": 8, "medium": 30, "large": 60, "double": 120}
"""Alias and GiB of weights; the repo id is ``lab/ALIAS``. ``double`` takes two GPUs."""

STEPS = ("reading the calendars", "observing", "planning", "applying", "answering in the calendars")
POLL = timedelta(hours=1)
"""In hours in which nothing happens; what people book in them the daemon looks at at once."""

STORM_POLL = timedelta(seconds=60)
SETTLE_POLL = timedelta(seconds=30)
LOAD_SECONDS = 25.0
SLOW_SECONDS = 240.0
MOST_TICKS = 12
CALM_BEFORE = timedelta(minutes=40)
"""So long after the last fault every booking is on time again."""
PACES = {"watch": 10.0}


@dataclass
class Figures:
    """What a week came to."""

    seed: int
    passes: int = 0
    bookings: int = 0
    on_time: int = 0
    ticks_to_settle: int = 0
    kills: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


class Week:
    """One seeded week."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.figures = Figures(seed)
        self.clock = FakeClock(MONDAY)
        self.calendar = FakeCalendar()
        self.ray = FakeRay(self.clock, load_seconds=LOAD_SECONDS)
        self.cockpit = FakeCockpit(self.ray, self.clock, self._on_put)
        self.settings = _settings(folder)
        self.said: list[str] = []
        self.rules = Rules(self)
        self.kill_at: str | None = None
        self.last_fault = MONDAY - timedelta(days=1)
        self.evicted_until: dict[str, datetime] = {}
        self.pinned_until: dict[str, datetime] = {}
        self._after: list[tuple[datetime, Callable[[], None]]] = []
        self._daemon: Daemon | None = None
        self._jobs: SimulatedJobs | None = None
        self._pace = POLL
        self._number = 0
        self._set_by = 0.0
        for name, count in GPUS.items():
            self.ray.add_node(name, gpus=count)
        self.ray.run_in_code("theirs", Needs("theirs", num_gpus=0.0))
        self.start()

    # --- the daemon -------------------------------------------------------------------------------------

    @property
    def daemon(self) -> Daemon | None:
        """The one at work."""
        return self._daemon

    def start(self) -> None:
        """Start a daemon, as after a power cut if one was at work."""
        if self._daemon is not None:
            self.stop()
        self._jobs = SimulatedJobs(self.clock)
        self._daemon = Daemon(
            self.settings,
            clock=self.clock,
            steady=lambda: self.clock().timestamp() - self._set_by,
            jobs=self._jobs,
            calendars=lambda _: (self.calendar,),
            dashboard=self.cockpit,
            console=Console(file=io.StringIO()),
        )
        self._daemon._steps = StepsInPlace(self._before_step)
        self._daemon.begin()

    def stop(self) -> None:
        """The daemon is gone; what runs keeps running."""
        if self._daemon is not None:
            self._daemon.close()
        self._daemon = self._jobs = None

    def run_until(self, until: datetime) -> None:
        """Let time pass."""
        while (due := self._due()) is not None and due[0] <= until:
            self.clock.set(max(due[0], self.clock()))
            try:
                due[1]()
            except Killed:
                self.figures.kills += 1
                self.kill_at = None
                self.stop()
                self._after.append((self.clock() + timedelta(seconds=self.chance.uniform(1, 60)), self.start))
        self.clock.set(max(until, self.clock()))

    def _due(self) -> tuple[datetime, Callable[[], None]] | None:
        coming: list[tuple[datetime, Callable[[], None]]] = [
            (when, lambda one=(when, do): self._do_later(one))
            for when, do in self._after  # type: ignore[misc]
        ]
        job = self._jobs.due() if self._jobs else None
        if job is not None:
            coming.append((job.at, self._take))
        return min(coming, key=lambda one: one[0], default=None)

    def _do_later(self, one: tuple[datetime, Callable[[], None]]) -> None:
        self._after.remove(one)
        one[1]()

    def _take(self) -> None:
        assert self._jobs is not None
        assert self._daemon is not None
        job = self._jobs.due()
        assert job is not None
        self._jobs.done(job, {"tick": self._pace.total_seconds(), **PACES})
        self._daemon.mind()
        job.do()
        if job.name != "watch":
            self.figures.passes += 1
            self.rules.after_pass()

    def _before_step(self, name: str) -> None:
        if self.kill_at == name:
            raise Killed

    def _on_put(self, config: dict[str, Any]) -> None:
        self.rules.on_put(config)

    # --- the week ---------------------------------------------------------------------------------------

    def run(self) -> Figures:
        """The whole of it.

        Raises:
            Broken: a rule was broken; the message says which, when, and what the daemon said.
        """
        began = perf_counter()
        sink = logger.add(
            lambda line: self.said.append(str(line)), format="{level} {message}", level="INFO", diagnose=False
        )
        try:
            for day in range(7):
                self._book_day(MONDAY + timedelta(days=day))
                self._storm(MONDAY + timedelta(days=day, hours=self.chance.uniform(1, 10)))
                self._settle()
                self.run_until(MONDAY + timedelta(days=day + 1))
        finally:
            logger.remove(sink)
            self.stop()
        self.figures.seconds = perf_counter() - began
        self.figures.bookings = self._number
        return self.figures

    def _book_day(self, day: datetime) -> None:
        for _ in range(self.chance.randint(4, 7)):
            self.book(day + timedelta(minutes=15 * self.chance.randrange(2, 92)))
        _tick(self)

    def book(self, start: datetime, model: str | None = None) -> None:
        """Somebody books something."""
        self._number += 1
        end = start + timedelta(minutes=15 * self.chance.randint(2, 16))
        more: dict[str, Any] = {"replicas": 2} if self.chance.random() < 0.1 else {}
        model = model or self.chance.choice(list(MODELS))
        self.calendar.book(f"e{self._number}", model, start, end, self.clock(), **more)

    def _storm(self, begins: datetime) -> None:
        self.run_until(begins)
        self._go_at(STORM_POLL)
        for _ in range(self.chance.randint(4, 10)):
            kind = self.chance.choice(sorted(FAULTS))
            self.figures.faults[kind] += 1
            FAULTS[kind](self)
            self.last_fault = self.clock()
            self.run_until(self.clock() + timedelta(seconds=self.chance.uniform(5, 900)))

    def _go_at(self, pace: timedelta) -> None:
        self._pace = pace
        if self._jobs is not None:
            self._jobs.at_least_every("tick", pace.total_seconds())

    def set_clock(self, seconds: float) -> None:
        """Somebody sets the clock forward, or back."""
        self.clock.set(self.clock() + timedelta(seconds=seconds))
        self._set_by += seconds
        self.cockpit.blank_until = None  # what is over is not to come once more
        if self._jobs is not None:
            self._jobs.clock_was_set()

    def _settle(self) -> None:
        """Everything works again; the daemon has so many passes to put everything right."""
        while self._after:
            self.run_until(min(when for when, _ in self._after))
        self.cockpit.faults.clear()
        self.kill_at = None
        self.last_fault = self.clock()
        if self._daemon is None:
            self.start()
        self._go_at(SETTLE_POLL)
        before = self.figures.passes
        while not self.rules.settled():
            if self.figures.passes - before > MOST_TICKS:
                raise Broken(self.rules.words(f"not settled after {MOST_TICKS} passes"))
            self.run_until(self.clock() + SETTLE_POLL)
        self.figures.ticks_to_settle = max(self.figures.ticks_to_settle, self.figures.passes - before)
        self._pace = POLL

    # --- what goes wrong --------------------------------------------------------------------------------

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        """Do something after a while."""
        self._after.append((self.clock() + timedelta(seconds=seconds), do))

    def order(self, kind: OrderKind, subject: str, seconds: float) -> None:
        """The operator orders something for a while."""
        now = self.clock()
        order = Order(kind=kind, subject=subject, since=now, until=now + timedelta(seconds=seconds))
        OrderBook(self.settings.path(self.settings.state_dir)).change(lambda all_: all_.with_order(order))

    def verdicts(self) -> dict[str, Verdict]:
        """What the last plan says to each event."""
        plan = self._daemon.last_plan if self._daemon else None
        return {one.event: one for one in plan.verdicts} if plan else {}

    def running(self) -> dict[str, DeploymentStatus]:
        """Applications of ours on the cluster, and how they are."""
        names = {"RUNNING": DeploymentStatus.SERVING, "DEPLOY_FAILED": DeploymentStatus.FAILED}
        return {
            name: names.get(status, DeploymentStatus.LOADING)
            for name, status in self.ray.statuses().items()
            if name.startswith("ndif-model") and status != "DELETING"
        }


def _settings(folder: Path) -> Settings:
    catalog = folder / "models.yml"
    entries = [
        {"alias": alias, "repo_id": f"lab/{alias}", "parameters": gib * 1024**3 // 2, "dtype": "bfloat16"}
        for alias, gib in MODELS.items()
    ]
    catalog.write_text(yaml.safe_dump({"models": entries}))
    return Settings(
        state_dir=folder / "state",
        calendar={"ics": "unused.ics", "check_interval_seconds": 30.0},
        ray={"dashboard_url": "http://127.0.0.1:9"},
        models={"catalog": catalog},
        guard={
            "min_models": 1,
            "park_seconds": 30,
            "longest_park_seconds": 120,
            "load_deadline_seconds": 900,
        },
        planning={"load_mib_per_second": 800, "lead_base_seconds": 60},
    )


# --- the faults -----------------------------------------------------------------------------------------


def _one_request(kind: str) -> Callable[[Week], None]:
    def fault(week: Week) -> None:
        week.cockpit.faults += [kind] * week.chance.randint(1, 3)

    return fault


def _serve_blank(week: Week) -> None:
    week.cockpit.blank_until = week.clock() + timedelta(seconds=week.chance.uniform(0.5, 6))
    _tick(week)


def _tick(week: Week) -> None:
    """The daemon looks at once."""
    if week.daemon is not None:
        try:
            week.daemon.tick()
        except Killed:
            week.stop()
            week.later(5.0, lambda: week.start() if week.daemon is None else None)


def _kill(week: Week) -> None:
    week.kill_at = week.chance.choice(STEPS)


def _daemon_down(week: Week) -> None:
    week.stop()
    week.later(week.chance.uniform(10, 1200), lambda: week.start() if week.daemon is None else None)


def _cockpit_down(week: Week) -> None:
    week.cockpit.down = True
    week.later(week.chance.uniform(10, 900), lambda: setattr(week.cockpit, "down", False))


def _calendar_down(week: Week) -> None:
    week.calendar.down = True
    week.later(week.chance.uniform(10, 1800), lambda: setattr(week.calendar, "down", False))


def _calendar_empty(week: Week) -> None:
    if len(week.running()) > 1:
        week.rules.calendar_lied_at = week.clock()
        week.calendar.empty = True
        week.later(5.0, lambda: _calendar_back(week))
        _tick(week)


def _calendar_back(week: Week) -> None:
    week.calendar.empty = False
    _tick(week)  # nobody polls so seldom that this goes unseen


def _node_dies(week: Week) -> None:
    name = week.chance.choice([one for one, room in week.ray.rooms.items() if room.alive] or ["gpu-a"])
    if week.ray.rooms[name].alive:
        week.ray.kill_node(name)
        week.later(week.chance.uniform(5, 1500), lambda: week.ray.add_node(name, gpus=GPUS[name]))


def _slow_loads(week: Week) -> None:
    week.ray.serve.load_seconds = SLOW_SECONDS
    week.later(week.chance.uniform(60, 900), lambda: setattr(week.ray.serve, "load_seconds", LOAD_SECONDS))


def _failing_loads(week: Week) -> None:
    part = week.chance.choice([*MODELS, *GPUS])
    where = week.chance.choice((week.ray.serve.fail_build, week.ray.serve.fail_start))
    where[part] = "RuntimeError: out of luck"
    week.later(week.chance.uniform(30, 900), lambda: where.clear())


def _clock_forward(week: Week) -> None:
    week.set_clock(week.chance.uniform(60, 1800))


def _clock_back(week: Week) -> None:
    week.set_clock(-week.chance.uniform(60, 1800))


def _full_disk(week: Week) -> None:
    if week.daemon is not None:
        connection = week.daemon._history._database._connection
        connection.execute("PRAGMA query_only = 1")


def _memory_held(week: Week) -> None:
    name = week.chance.choice(list(GPUS))
    if name not in week.ray.left_over:
        week.ray.left_over[name] = 1
        week.later(week.chance.uniform(5, 300), lambda: week.ray.left_over.pop(name) and None)


def _others_come_and_go(week: Week) -> None:
    app = {"name": f"other{week.chance.randrange(9)}", "route_prefix": None, "import_path": "other:app"}
    week.ray.serve.builders["other:app"] = lambda _: Needs("other")
    there = [one.config for one in week.ray.serve.apps.values() if one.declarative and one.gone_at is None]
    listed = [one for one in there if one["name"] != app["name"]]
    week.ray.serve.put(
        {"applications": [*listed, *([app] if len(listed) == len(there) else [])]}, week.clock()
    )
    week.rules.others_changed_at = week.clock()


def _people_edit(week: Week) -> None:
    now = week.clock()
    coming = [one for one in week.calendar.events.values() if one.end > now + timedelta(minutes=20)]
    if not coming or week.chance.random() < 0.3:
        week.book(now + timedelta(minutes=week.chance.randrange(5, 120)))
        return
    one = week.chance.choice(coming)
    week.rules.edited[one.request.model] = now
    if week.chance.random() < 0.4:
        del week.calendar.events[one.key]
        return
    by = timedelta(minutes=15 * week.chance.randint(1, 6))
    moved = {"end": one.end + by} | ({"start": one.start + by} if one.start > now else {})
    week.calendar.events[one.key] = one.model_copy(update=moved)


def _pause(week: Week) -> None:
    week.order(OrderKind.PAUSE, "", week.chance.uniform(30, 600))


def _pin(week: Week) -> None:
    model, seconds = week.chance.choice(list(MODELS)), week.chance.uniform(300, 3600)
    week.pinned_until[model] = week.clock() + timedelta(seconds=seconds + 600)
    week.evicted_until.pop(model, None)
    week.order(OrderKind.PIN, model, seconds)


def _evict(week: Week) -> None:
    model, seconds = week.chance.choice(list(MODELS)), week.chance.uniform(300, 1200)
    week.evicted_until[model] = week.clock() + timedelta(seconds=seconds)
    week.order(OrderKind.EVICT, model, seconds)


def _cordon(week: Week) -> None:
    name = week.chance.choice(list(GPUS))
    kind = week.chance.choice((OrderKind.CORDON, OrderKind.DRAIN))
    week.order(kind, name, week.chance.uniform(60, 900))


FAULTS: dict[str, Callable[[Week], None]] = {
    "request lost": _one_request("lost"),
    "answer lost": _one_request("unanswered"),
    "half applied": _one_request("half"),
    "serve blank": _serve_blank,
    "rejected": _one_request("rejected"),
    "killed before put": _one_request("killed before"),
    "killed after put": _one_request("killed after"),
    "killed at a step": _kill,
    "daemon down": _daemon_down,
    "dashboard down": _cockpit_down,
    "calendar down": _calendar_down,
    "calendar empty": _calendar_empty,
    "node dies": _node_dies,
    "slow loads": _slow_loads,
    "failing loads": _failing_loads,
    "clock forward": _clock_forward,
    "clock back": _clock_back,
    "disk full": _full_disk,
    "memory held": _memory_held,
    "others": _others_come_and_go,
    "people edit": _people_edit,
    "pause": _pause,
    "pin": _pin,
    "evict": _evict,
    "cordon": _cordon,
}


@contextmanager
def folder() -> Iterator[Path]:
    """A folder in memory, where there is one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


def run_week(seed: int) -> Figures:
    """One week from its beginning to its end.

    Raises:
        Broken: a rule was broken.
    """
    with folder() as place:
        return Week(place, seed).run()
