"""The daemon: one loop that makes what runs equal to what is booked."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from loguru import logger
from rich.console import Console

from calendars.source import CalendarSource
from scheduler.announcer import Announcer
from scheduler.board import Board, View, calendar_views
from scheduler.controller import Cockpit, Controller, Paused, Solver, Stale
from scheduler.errors import OperatorError
from scheduler.events import Events
from scheduler.front import Alone, Front, state_to_show
from scheduler.heartbeat import Heartbeat, beat
from scheduler.instants import instants
from scheduler.jobs import ClockJobs, Jobs
from scheduler.logutil.logger import set_up_logging
from scheduler.metrics.meter import Meter, PassOutcome, Unmetered
from scheduler.progress import settled
from scheduler.recording import Chronicle
from scheduler.render.text import summary
from scheduler.reports import reports
from scheduler.requests import ordered
from scheduler.settings import Settings, load_settings
from scheduler.signals import Asked
from scheduler.steps import Steps, Stuck
from scheduler.store.history import FILE, Recorder
from scheduler.store.records import Outcome
from scheduler.types import Observed, Plan
from scheduler.watching import Watcher

WATCH_SECONDS = 1.0
MIND_SECONDS = 1.0
STOP_SECONDS = 3.0
"""How long the end waits for a pass that is under way."""
MOST_AT_ONCE = 3
"""So many passes follow each other without a pause at most."""
FORGET_EVERY = timedelta(hours=12)
LONGEST_BACKOFF = timedelta(minutes=5)


class Daemon:
    """Reads, plans and applies at every interval and at every boundary the plan knows.

    Args:
        on_first_serving: called once, with the name of the first booked model that answers.
        clock: tells the present instant; ``jobs`` does things in time by it.
        steady: seconds of a clock that nobody sets.
        calendars: makes the calendars from the settings. ``dashboard`` is Ray's, or a stand-in.
        front: stands between this daemon and the rest of its cluster.
        solver: gives second opinions on refusals, if there is one.
        before_step: called with the name of each step of the loop before it is taken.
        reload: reads the settings anew.
        board: where it is shown what is known after each pass. ``meter`` is told of all that is done.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        on_first_serving: Callable[[str], None] | None = None,
        console: Console | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        steady: Callable[[], float] = time.monotonic,
        jobs: Jobs | None = None,
        calendars: Callable[[Settings], tuple[CalendarSource, ...]] | None = None,
        dashboard: Cockpit | None = None,
        front: Front | None = None,
        solver: Solver | None = None,
        before_step: Callable[[str], None] = lambda _: None,
        reload: Callable[[], Settings] = load_settings,
        board: Board | None = None,
        meter: Meter | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._reload = reload
        self._board = board
        self._meter = meter or Unmetered()
        self._history = Recorder(settings.in_state_dir(FILE), settings.history.keep_days)
        self._connect = partial(
            Controller,
            recorder=self._history,
            clock=clock,
            calendars=calendars,
            dashboard=dashboard,
            solver=solver,
        )
        self._controller = self._connect(settings)
        self._chronicle = Chronicle(self._history, clock(), self._meter)
        self._front = front or Alone()
        self._jobs = jobs or ClockJobs()
        self._steps = Steps(before_step, self._meter.stepped)
        self._announcer = Announcer(console or Console(stderr=True, highlight=False, soft_wrap=True))
        self._events = Events(settings.controller.api_url)
        told = (self._announcer, self._events, self._meter)
        self._watcher = Watcher(self._history, self._front, clock, steady, on_first_serving, *told)
        self._busy = threading.Lock()
        self._asked = Asked()
        self._started, self._passes, self._in_a_row = clock(), 0, 0
        self._forgotten_at: datetime | None = None
        self._next_edge: datetime | None = None
        self._passed_at = clock()
        self._failures, self._not_before = 0, clock()
        self._led: bool | None = None
        self.last_plan: Plan | None = None
        """The plan of the last pass that got so far."""
        self._orders_seen = self._controller.order_book.changed_at

    # --- life -------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until SIGINT or SIGTERM; what serves keeps serving afterwards. SIGHUP reads the settings."""
        self._asked.listen()
        self.begin()
        try:
            while not self._asked.to_stop(MIND_SECONDS):
                self.mind()
        finally:
            logger.info("Stopping.")
            self._jobs.stop()
            if not self._busy.acquire(timeout=STOP_SECONDS):
                self._steps.give_up()  # what Serve is just being asked goes on without an answer
                self._busy.acquire(timeout=STOP_SECONDS)
            self.close()

    def begin(self) -> None:
        """Start, without waiting for anything."""
        self._front.start()
        self._jobs.every("tick", self._settings.calendar.check_interval_seconds, self._on_time)
        self._jobs.start()

    def close(self) -> None:
        """Give everything back."""
        self._front.close()
        self._events.close()
        self._controller.close()
        self._history.close()

    def mind(self) -> None:
        """What is looked after every second, beside the loop: the clock, signals, orders, the lease."""
        self._jobs.look_at_clock()
        if self._asked.to_reload():
            self._take_up_settings()
        if requests := self._front.requests():
            ordered(requests, self._controller.order_book, self._settings.controller, self._clock())
        changed = self._controller.order_book.changed_at
        leads = self._front.lease().ours
        if changed != self._orders_seen or (leads and self._led is False):
            self._orders_seen = changed
            self._jobs.soon(self.tick)
        for name, seconds in self._steps.stuck.items():
            self._announcer.say(
                f"stuck {name}", f"{name[0].upper()}{name[1:]} got stuck.", f"It began {seconds:.0f} s ago."
            )

    def _take_up_settings(self) -> None:
        try:
            settings = self._reload()
        except OperatorError as problem:
            self._announcer.trouble(problem, "settings")
            return
        fixed = ("state_dir", "controller", "history", "influx", "web")
        if any(getattr(settings, name) != getattr(self._settings, name) for name in fixed):
            logger.warning("{} take effect at the next start only.", " and ".join(fixed))
        with self._busy:
            self._controller.close()
            self._settings = settings
            self._controller = self._connect(settings)
            self._jobs.every("tick", settings.calendar.check_interval_seconds, self._on_time)
        set_up_logging(settings.log.level, settings.log.format)
        logger.success("The settings were read anew.")

    # --- the loop ---------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One pass of the loop. Never raises: a problem is said, and the next pass tries again."""
        with self._busy:
            ended: PassOutcome = "waiting"
            lag_seconds = max(0.0, (self._clock() - self._due_at()).total_seconds())
            try:
                if self._leads():
                    self._pass()
                    ended = "done"
                    self._announcer.over("problem")
            except Stale as stale:
                ended = "stale"
                logger.info("Planning again: {}.", stale)
                self._again()
            except OperatorError as problem:
                ended = "problem"
                self._announcer.trouble(problem)
            except Exception:  # noqa: BLE001  the loop outlives any single pass; the fault is logged whole
                ended = "fault"
                logger.exception("A pass of the loop failed; nothing more was changed. Trying again.")
            self._meter.passed(ended, lag_seconds)
            self._passes += 1
            self._passed_at = self._clock()
            self._beat()

    def _pass(self) -> None:
        at, controller, seconds = self._clock(), self._controller, self._settings.steps
        # 1. Read the calendars; one that fails keeps its last good reading.
        self._read(at)
        # 2. Observe what runs, and on what, and what the operator ordered.
        observed, state = self._steps.take("observing", controller.observe, seconds.observe_seconds)
        self._watcher.tell(observed, state)
        # 3. Plan; a model that has failed to load is parked, and the plan made without it.
        plan = self._steps.take("planning", partial(self._plan, at, observed), seconds.plan_seconds)
        # 4. Guard: what would take down much at once waits, and so does everything while paused.
        self._guard(plan, at)
        self._return_at(plan)
        try:
            # 5. Carry it out.
            self._apply(plan, at)
        finally:
            self._watch_soon()  # also where no answer came: it may have arrived
            # 6. Tell those who booked, also where it could not be carried out.
            self._write_back(plan, observed)
            # 7. Record what was said and promised.
            self._record(plan, observed, at)

    def _read(self, at: datetime) -> None:
        deadline = self._settings.steps.read_seconds
        try:
            self._steps.take(
                "reading the calendars", partial(self._controller.bookings.refresh, at), deadline
            )
        except Stuck as stuck:
            self._announcer.trouble(stuck, "reading")  # what was read before still has its ends and starts
        else:
            self._announcer.over("reading")
        bookings = self._controller.bookings
        for source in bookings.sources:
            self._meter.polled(source.name, source.name not in bookings.failing)
        self._announcer.calendars(bookings)

    def _plan(self, at: datetime, observed: Observed) -> Plan:
        plan = self._controller.plan(at, observed)
        parked = self._controller.park(observed, self._watcher.loading_seconds)
        names = {one.model.key: one.model for one in observed.deployments}
        self._announcer.parked(parked, names)
        return self._controller.plan(at, observed) if parked else plan

    def _guard(self, plan: Plan, at: datetime) -> None:
        controller = self._controller
        pause, in_use = controller.orders.paused(at), controller.leftovers.words
        self._announcer.hindrances(controller.held, pause, controller.away, in_use)
        self._announcer.plan(plan)
        self.last_plan = plan
        self._controller.keep_promises(plan)  # before it is acted on: a daemon may be killed at any moment

    def _apply(self, plan: Plan, at: datetime) -> None:
        # what lies farther ahead than any pause was meant by a clock that has been set back since
        if not plan.actions or at < self._not_before <= at + LONGEST_BACKOFF:
            return
        deadline, began = self._settings.steps.apply_seconds, self._clock()
        outcome: Outcome = "failed"
        detail = ""
        try:
            self._steps.take("applying", partial(self._controller.apply, plan), deadline)
            outcome, self._failures = "applied", 0
        except Paused:
            outcome = "held"
        except Stale:
            outcome = "stale"
            raise
        except OperatorError as problem:
            detail = problem.reason
            self._failures += 1
            self._not_before = at + min(LONGEST_BACKOFF, timedelta(seconds=2.0 ** min(self._failures, 10)))
            raise
        finally:
            if outcome != "held":
                took = (self._clock() - began).total_seconds()
                actions = [f"{a.kind} {a.model.name} {a.node}" for a in plan.actions if a.model]
                self._history.planned(at, summary(plan), actions, outcome, detail, took)
                self._meter.applied(plan, outcome)

    def _write_back(self, plan: Plan, observed: Observed) -> None:
        self._reports = reports(
            plan,
            self._controller.bookings.readings,
            observed.deployments,
            self._watcher.took_seconds,
            self._settings.serve.url_for_clients,
            warn_before=timedelta(minutes=self._settings.calendar.warn_before_end_minutes),
            progress=self._front.said(),
        )
        write = partial(self._controller.bookings.write_back, self._reports)
        try:
            notices = self._steps.take(
                "answering in the calendars", write, self._settings.steps.write_back_seconds
            )
        except Stuck as stuck:
            self._announcer.trouble(stuck, "answering")
            return
        for notice in notices:
            logger.warning("{} {}", notice.reason, notice.remedy)

    def _record(self, plan: Plan, observed: Observed, at: datetime) -> None:
        bookings = self._controller.bookings
        readable = (one.name for one in bookings.sources if one.name not in bookings.failing)
        self._chronicle.note(plan, self._reports, readable, at)
        if self._forgotten_at is None or at - self._forgotten_at > FORGET_EVERY:
            self._forgotten_at = at
            self._history.forget(at)
        self._front.show(state_to_show(plan, observed))

    # --- following --------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Tell what becomes of what is loading, until nothing is."""
        with self._busy:
            if not self._front.lease().ours:
                self._jobs.cancel("watch")
                return
            try:
                deadline = self._settings.steps.observe_seconds
                observed, state = self._steps.take("observing", self._controller.observe, deadline)
            except OperatorError as problem:
                self._announcer.trouble(problem)
                return
            if self._watcher.tell(observed, state):
                self._again()  # those who booked want to know, too
            gateway_settled = state.gateway_status[0] not in ("DEPLOYING", "NOT_STARTED")
            # what vanished is looked for all the time: two glances could both fall on a bad moment
            if settled(observed.deployments) and gateway_settled and not self._controller.doubtful:
                self._jobs.cancel("watch")
            self._beat()

    # --- what comes next --------------------------------------------------------------------------------

    def _leads(self) -> bool:
        lease = self._front.lease()
        self._announcer.lease(lease)
        self._led = lease.ours
        return lease.ours

    def _watch_soon(self) -> None:
        if not self._jobs.has("watch"):
            self._jobs.every("watch", WATCH_SECONDS, self.watch)

    def _again(self) -> None:
        """Have another pass at once, unless there were several already."""
        self._in_a_row += 1
        if self._in_a_row <= MOST_AT_ONCE:
            self._jobs.soon(self.tick)

    def _return_at(self, plan: Plan) -> None:
        warn = timedelta(minutes=self._settings.calendar.warn_before_end_minutes)
        coming = [when for when in (*instants(plan, warn), *self._controller.boundaries) if when > plan.at]
        self._jobs.at(coming, self._on_time)
        self._next_edge = min(coming, default=None)

    def _due_at(self) -> datetime:
        """When the loop runs again at the latest."""
        due = self._passed_at + timedelta(seconds=self._settings.calendar.check_interval_seconds)
        return min(due, self._next_edge) if self._next_edge and self._next_edge > self._passed_at else due

    def _on_time(self) -> None:
        self._in_a_row = 0
        self.tick()

    def _beat(self) -> None:
        at, controller = self._clock(), self._controller
        lease, stuck = self._front.lease(), self._steps.stuck
        now = Heartbeat(
            pid=os.getpid(),
            started=self._started,
            at=at,
            passes=self._passes,
            problem=self._announcer.problem or lease.problem,
            waits_for="" if lease.ours else lease.holder or "an answer whose the cluster is",
            held=controller.held.words if controller.held else "",
            pause=controller.orders.paused(at),
            orders=tuple(one for one in controller.orders.orders if one.holds(at)),
            parked=tuple(controller.parking.resting(at).values()),
            away=controller.away,
            in_use=controller.leftovers.words,
            stuck=stuck,
            on_its_way=self._watcher.on_its_way,
            unreadable=self._watcher.unreadable,
            lost_records=self._history.lost,
        )
        if self._board is not None:
            calendars, readings = calendar_views(controller.bookings), controller.bookings.readings
            seen = self._watcher.seen
            self._board.publish(View(now, self.last_plan, *seen, readings, calendars, lease, self._due_at()))
        beat_problem = beat(self._settings.path(self._settings.state_dir), now)
        self._announcer.standing(
            "heartbeat", beat_problem and f"The state directory cannot be written to: {beat_problem}.", ""
        )
