"""The daemon: one loop that makes what runs equal to what is booked."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from loguru import logger
from rich.console import Console

from scheduler.controller import Controller, Stale
from scheduler.errors import OperatorError
from scheduler.progress import Follower, Step, settled
from scheduler.render.sentences import sentence
from scheduler.render.text import progress_line, show_plan
from scheduler.reports import reports
from scheduler.settings import Settings
from scheduler.types import DeploymentStatus, Observed, Plan

WATCH_SECONDS = 1.0
STOP_SECONDS = 5.0
"""How long the end waits for a pass that is under way."""
BOUNDARY_GRACE = timedelta(milliseconds=50)
"""A boundary is looked at this long after its instant, so that it lies in the past for sure."""


class Daemon:
    """Reads, plans and applies at every interval and at every boundary the plan knows.

    Args:
        on_first_serving: called once, with the name of the first booked model that answers.
        clock: tells the present instant.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        on_first_serving: Callable[[str], None] | None = None,
        console: Console | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._controller = Controller(settings, keep_readings=True)
        self._busy = threading.Lock()
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._on_first_serving = on_first_serving
        self._follower = Follower()
        self._said: dict[str, str] = {}
        self._stop = threading.Event()
        # One worker: whatever comes due, one step is taken at a time.
        self._jobs = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(1)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=UTC,
        )

    def run(self) -> None:
        """Work until SIGINT or SIGTERM; what serves keeps serving afterwards."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._stop.set())
        interval = self._settings.calendar.check_interval_seconds
        self._jobs.add_job(
            self.tick, "interval", seconds=interval, id="tick", next_run_time=datetime.now(UTC)
        )
        self._jobs.start()
        try:
            self._stop.wait()
        finally:
            logger.info("Stopping.")
            self._jobs.shutdown(wait=False)
            if self._busy.acquire(timeout=STOP_SECONDS):
                self._controller.close()

    def tick(self) -> None:
        """One pass of the loop. Never raises: a problem is said, and the next pass tries again."""
        with self._busy:
            self._pass()

    def _pass(self) -> None:
        at = self._clock()
        try:
            # 1. Read the calendars; one that fails keeps its last good reading.
            self._controller.bookings.refresh(at)
            self._say_calendars()
            # 2. Observe what runs, and on what.
            observed, _ = self._controller.observe()
            self._tell(observed)
            # 3. Plan.
            plan = self._controller.plan(at, observed)
            # 4. Show it, if it is news.
            self._show(plan)
            self._return_at(plan.next_boundary)
            try:
                # 5. Carry it out, and follow what is on its way.
                if plan.actions:
                    self._controller.apply(plan)
                self._watch_soon()
            finally:
                # 6. Tell those who booked, also where it could not be carried out.
                self._write_back(plan, observed)
            self._said.pop("problem", None)
        except Stale as stale:
            logger.info("Planning again: {}.", stale)
            self._return_at(self._clock())
        except OperatorError as problem:
            self._say("problem", f"{problem.reason} {problem.remedy}")
        except Exception:  # noqa: BLE001  the loop outlives any single pass; the fault is logged whole
            logger.exception("A pass of the loop failed; nothing more was changed. Trying again.")

    def _watch(self) -> None:
        """Tell what becomes of what is loading, until nothing is."""
        with self._busy:
            self._look()

    def _look(self) -> None:
        try:
            observed, state = self._controller.observe()
        except OperatorError as problem:
            self._say("problem", f"{problem.reason} {problem.remedy}")
            return
        if self._tell(observed):
            self._return_at(self._clock())  # those who booked want to know, too
        status, message = state.gateway_status
        serving = [one for one in observed.deployments if one.status is DeploymentStatus.SERVING]
        if status == "DEPLOY_FAILED":
            self._say("gateway", f"The gateway cannot start: {message}")
        if self._on_first_serving and serving and status == "RUNNING":
            self._on_first_serving(serving[0].model.name)
            self._on_first_serving = None
        if settled(observed.deployments) and status not in ("DEPLOYING", "NOT_STARTED"):
            self._jobs.remove_job("watch")

    def _tell(self, observed: Observed) -> bool:
        """Log what has become of the applications; returns whether one began or ceased to serve."""
        told = self._follower.update(observed.deployments, self._clock().timestamp())
        for progress in told:
            level, line = progress_line(progress)
            logger.log(level, "{}", line)
        return any(progress.step is not Step.LOADING for progress in told)

    def _watch_soon(self) -> None:
        if self._jobs.get_job("watch") is None:
            self._jobs.add_job(self._watch, "interval", seconds=WATCH_SECONDS, id="watch")

    def _return_at(self, instant: datetime | None) -> None:
        if instant is not None:
            run_at = instant + BOUNDARY_GRACE
            self._jobs.add_job(self.tick, "date", run_date=run_at, id="boundary", replace_existing=True)

    def _show(self, plan: Plan) -> None:
        """Print a plan that has something new to do or to refuse."""
        doing = "\n".join(
            f"{a.kind} {a.model} {a.node} {a.replicas} {a.reason}" for a in plan.actions if a.model
        )
        refusing = "\n".join(f"{v.event} {v.state} {sentence(v.reason)}" for v in plan.refused)
        news = (doing and doing != self._said.get("doing")) or refusing != self._said.get("refusing", "")
        self._said |= {"doing": doing, "refusing": refusing}
        if news:
            show_plan(self._console, plan)

    def _write_back(self, plan: Plan, observed: Observed) -> None:
        bookings = self._controller.bookings
        said = reports(
            plan,
            bookings.readings,
            observed.deployments,
            self._follower.took_seconds,
            self._settings.serve.url_for_clients,
        )
        for notice in bookings.write_back(said):
            logger.warning("{} {}", notice.reason, notice.remedy)

    def _say_calendars(self) -> None:
        bookings = self._controller.bookings
        for name in [said for said in self._said if said.startswith("calendar ")]:
            if name.removeprefix("calendar ") not in bookings.failing:
                del self._said[name]
                logger.success("The calendar {} can be read again.", name.removeprefix("calendar "))
        for name, problem in bookings.failing.items():
            if known := bookings.known(name):
                kept = f"What was booked at {known.read_at:%d %b %H:%M} UTC stands; nothing is taken down."
                self._say(f"calendar {name}", f"{problem.reason} {problem.remedy}", kept)

    def _say(self, subject: str, text: str, more: str = "") -> None:
        """Log a problem once, and again only when it changes."""
        if self._said.get(subject) != text:
            self._said[subject] = text
            logger.error("{}", f"{text} {more}".strip())
