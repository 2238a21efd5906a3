"""Observes what runs, plans, and carries plans out: the hands of the daemon and of ``apply``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from loguru import logger
from pydantic import ValidationError

from calendars.called import command
from calendars.reservation import Reading
from calendars.source import CalendarSource
from scheduler.amend import amended, held_back
from scheduler.bookings import Bookings
from scheduler.catalog import load_catalog
from scheduler.checkpoints import Checkpoints
from scheduler.cluster.absence import Absence
from scheduler.cluster.dashboard import Dashboard
from scheduler.cluster.leftovers import GpuMemory, Held, Leftovers, left_over, occupied
from scheduler.cluster.node import Cluster, DeviceKind
from scheduler.cluster.observe import cluster_from
from scheduler.errors import OperatorError
from scheduler.guard import GuardRule, Hold, MassChangeGuard
from scheduler.orders import closed_by, letting_the_operator_pass, with_orders
from scheduler.parking import Parking, ParkRule
from scheduler.planning.exact import Opinion, Question
from scheduler.planning.footprint import Loads, Sizing
from scheduler.planning.memory import Memory
from scheduler.planning.plan import Known, Policy, decide
from scheduler.planning.targets import identify
from scheduler.quiet import without_collection
from scheduler.serve.config import ServeState, serve_config
from scheduler.settings import MIB, Settings
from scheduler.store.history import FILE, Recorder, reading
from scheduler.store.orders import OrderBook, Orders
from scheduler.store.records import LoadTime, ManualRecord, Parked
from scheduler.types import Catalog, Model, Observed, Plan, Promises, Tier

HANDING_OVER_SECONDS = 2.0
"""From a boundary until Serve begins to load, and from its end until that is seen."""


class Stale(Exception):
    """What runs has changed since a plan was made; it was not carried out. Plan again."""


class Vanished(OperatorError):
    """What others declared was there a moment ago, and is not now; nothing is done until that is sure."""


class Paused(OperatorError):
    """The operator's hand brake is on."""


class Cockpit(Protocol):
    """What is asked of Ray: `cluster.dashboard.Dashboard`, or a stand-in for it."""

    def nodes(self) -> list[dict[str, Any]]: ...
    def actors(self) -> list[dict[str, Any]]: ...
    def gpu_memory(self) -> list[dict[str, Any]]: ...
    def serve_details(self) -> dict[str, Any]: ...
    def put_serve_config(self, config: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


class Solver(Protocol):
    """Who gives second opinions: `second_opinion.SecondOpinions`."""

    def answer(self, questions: Iterable[Question]) -> Mapping[str, Opinion]: ...


MAX_QUESTIONS = 8
"""Refusals of one plan that get a second opinion, the nearest first."""


class Controller:
    """One service: its calendars, its cluster, its Serve.

    Args:
        recorder: the history, of the one daemon of a state directory; others only read it.
        clock: tells the present instant.
        calendars: makes the calendars from the settings.
        dashboard: Ray's, or a stand-in.
        solver: gives second opinions on refusals, if there is one.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        recorder: Recorder | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        calendars: Callable[[Settings], tuple[CalendarSource, ...]] | None = None,
        dashboard: Cockpit | None = None,
        solver: Solver | None = None,
    ) -> None:
        self.settings = settings
        self.bookings = Bookings(settings, keep=recorder is not None, calendars=calendars)
        self.dashboard = dashboard or Dashboard(
            settings.ray.dashboard, settings.token_file, settings.ray.timeout_seconds
        )
        self.order_book = OrderBook(settings.path(settings.state_dir))
        self.orders = Orders()
        self.held: Hold | None = None
        """Why the last plan is not that of the last reading."""
        self.handed_over: Plan | None = None
        """The plan that was handed to Serve last, or is just being."""
        self.away: tuple[str, ...] = ()
        """Nodes that are gone, and may be back any moment."""
        self._warn_minutes = settings.calendar.warn_before_end_minutes
        self._clock = clock
        self._solver = solver
        self._opinions: Mapping[str, Opinion] = {}
        self._recorder = recorder
        self._state: ServeState | None = None
        self._there: set[str] = set()
        self._missed: dict[str, datetime] = {}
        self.doubtful: tuple[str, ...] = ()
        self._memory = Memory()
        self._checkpoints = Checkpoints(settings.hub_cache)
        self._sizing = sizing(settings)
        self._absence = Absence(settings.guard.node_grace_seconds)
        self._gpu_memory = GpuMemory(self.dashboard.gpu_memory)
        self.leftovers = Leftovers(settings.guard.held_memory_seconds)
        self._guard: MassChangeGuard | None = None
        self._past: tuple[Mapping[tuple[str, str, str], LoadTime], frozenset[tuple[str, str]]]
        self._past = ({}, frozenset())
        self.parking = Parking(park_rule(settings), self._known_parked())
        self._promises = self._kept_promises()

    def close(self) -> None:
        """Give connections back."""
        self.bookings.close()
        self.dashboard.close()

    def observe(self) -> tuple[Observed, ServeState]:
        """What runs, and on what, and what the operator ordered about it.

        Raises:
            ClusterUnavailable: Ray did not answer; nothing is known then.
            OperatorError: the orders cannot be read.
        """
        at = self._clock()
        self._take_orders()
        state = self._state = ServeState(self.dashboard.serve_details(), self._state)
        self.doubtful = self._has_vanished(state, at)
        current = state.gateway_is_for(self.settings.serve, self._warn_minutes)
        observed = Observed(
            cluster=self._cluster(state, at),
            deployments=state.deployments,
            others=state.others,
            directory_version=state.directory_version if current else "",
            fingerprint=state.fingerprint,
        )
        return observed, state

    def _has_vanished(self, state: ServeState, at: datetime) -> tuple[str, ...]:
        """Applications of others that were there a moment ago.

        Serve answers as if it ran nothing while its controller cannot be asked, and a configuration made
        from that would delete what others declared. So what vanishes is missed for a while.
        """
        self._there |= set(state.others)
        # where the clock is set back meanwhile, the wait begins anew
        missed = {name: min(at, self._missed.get(name, at)) for name in self._there - set(state.others)}
        wait = timedelta(seconds=self.settings.guard.second_reading_seconds)
        self._missed = {name: since for name, since in missed.items() if at - since < wait}
        self._there = set(state.others) | set(self._missed)
        return tuple(sorted(self._missed))

    def _take_orders(self) -> None:
        orders = self.order_book.read()
        if self._recorder and orders != self.orders:
            for one in orders.orders:
                record = ManualRecord(
                    at=one.since, kind=one.kind, subject=one.subject, until=one.until, by=one.by
                )
                self._recorder.ordered(record)
        self.orders = orders

    def _cluster(self, state: ServeState, at: datetime) -> Cluster:
        nodes, actors = self.dashboard.nodes(), self.dashboard.actors()
        there = cluster_from(nodes, actors, self.settings.planning, state.ours)
        whole = self._absence.complete(there, at)
        self.away = self._absence.away(there)
        found = self._held(there, actors, state, at)
        return closed_by(self.leftovers.mark(whole, found, at), self.orders, at)

    def _held(
        self, cluster: Cluster, actors: list[dict[str, Any]], state: ServeState, at: datetime
    ) -> dict[str, Held]:
        """GPUs that are in use though they should be free, by the name of their node."""
        idle_bytes = self.settings.guard.held_memory_mib * MIB
        if not idle_bytes or not any(node.kind is DeviceKind.GPU for node in cluster.nodes):
            return {}
        used = self._gpu_memory.used(at)
        found = {}
        for node in cluster.nodes:
            in_books = occupied(node, actors, state.deployments)
            gpus = len(node.devices)
            if node.node_id in used and (held := left_over(used[node.node_id], gpus, in_books, idle_bytes)):
                found[node.name] = held
        return found

    def plan(
        self,
        at: datetime,
        observed: Observed,
        now: datetime | None = None,
        *,
        also: tuple[Reading, ...] = (),
    ) -> Plan:
        """Plan for an instant from the present readings; ``now`` is the present, if that is another one.

        Args:
            also: what shall count as booked besides, to see what would become of it.

        Raises:
            OperatorError: a calendar has never been read or not for too long, or the catalog cannot be.
        """
        now = now or at
        self.bookings.require(now)
        catalog = load_catalog(self.settings.path(self.settings.models.catalog))
        horizon = at + timedelta(days=self.settings.calendar.horizon_days)
        ordered = with_orders((*self.bookings.readings, *also), self.orders, catalog, at, horizon)
        self._readings = ordered.readings
        plan = self._make(ordered.readings, catalog, observed, at)
        plan = self._looked_at_twice(plan, catalog, observed, at)
        self._plan = plan
        plan = amended(plan, observed, self.parking.resting(now), ordered)
        return held_back(plan, self.leftovers.waited_for)

    @property
    def boundaries(self) -> tuple[datetime, ...]:
        """When orders run out, models are tried again, and GPUs are waited for no longer."""
        return (*self.orders.boundaries, *self.parking.boundaries, *self.leftovers.boundaries)

    def park(self, observed: Observed, loading_seconds: Mapping[str, float]) -> list[Parked | str]:
        """Leave alone what has failed, by the last plan; returns what is new.

        Says what was parked, and the model keys of what is not any more.
        """
        told = self.parking.look(observed, self._plan, self._readings, loading_seconds, self._clock())
        for one in told:
            if self._recorder and isinstance(one, Parked):
                self._recorder.park(one)
            elif self._recorder and isinstance(one, str):
                self._recorder.unpark(one)
        return told

    def apply(self, plan: Plan) -> None:
        """Hand a plan's placements to Serve, which then loads and unloads by itself.

        Raises:
            Paused: the operator wants nothing to be changed.
            Stale: what is deployed changed since the plan was made; nothing was done.
            Rejected: Serve did not take it; nothing was done.
        """
        self.orders = self.order_book.read()  # the hand brake counts from the moment it is pulled
        if pause := self.orders.paused(self._clock()):
            who = f" by {pause.by}" if pause.by else ""
            raise Paused(
                f"Paused{who} since {pause.since:%Y-%m-%d %H:%M} UTC: nothing is changed.",
                f"Let it go on with {command('resume')}.",
            )
        if self.doubtful:
            raise Vanished(
                f"{', '.join(self.doubtful[:3])} vanished from Serve a moment ago, which others declared.",
                "It is looked for again before anything is changed.",
            )
        state = ServeState(self.dashboard.serve_details())
        if state.fingerprint != plan.fingerprint:
            raise Stale("what is deployed has changed since the plan was made")
        self.handed_over = plan
        self.dashboard.put_serve_config(serve_config(plan, state, self.settings.serve, self._warn_minutes))

    def keep_promises(self, plan: Plan) -> None:
        """Remember what this plan promised, for the next one and over a restart."""
        if plan.promises == self._promises:
            return
        self._promises = plan.promises
        path = self.settings.in_state_dir("promises.json")
        partial = path.with_suffix(".partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(plan.promises.model_dump_json().encode())
            partial.replace(path)
        except OSError as error:
            logger.warning("What was promised cannot be kept in {}: {}.", path, error)

    def _make(
        self, readings: tuple[Reading, ...], catalog: Catalog, observed: Observed, at: datetime
    ) -> Plan:
        checkpoints = self._checkpoints.look_up(_models(readings, catalog))
        rules, catalog = letting_the_operator_pass(self.settings.booking, catalog)
        known = Known(
            catalog=catalog,
            checkpoints=checkpoints,
            loads=self._loads(),
            rules=rules,
            policy=policy(self.settings),
            previous=self._promises,
            opinions=self._opinions,
            questions=MAX_QUESTIONS if self._solver else 0,
        )
        with without_collection():
            decision = decide(readings, observed, at, known, self._memory)
        if self._solver:
            self._opinions = self._solver.answer(decision.questions)
        return decision.plan

    def _looked_at_twice(self, plan: Plan, catalog: Catalog, observed: Observed, at: datetime) -> Plan:
        if self._guard is None:
            before = [known.reading for known in self.bookings.recalled.values()]
            self._guard = MassChangeGuard(guard_rule(self.settings), before)
        believable = self._guard.believable(self._readings, self.bookings.read_at, at)
        self.held = self._guard.judge(plan, observed, at) if believable else None
        if self.held is None or believable is None:
            self._guard.trust(self._readings)
            return plan
        return self._make(believable, catalog, observed, at)

    def _loads(self) -> Loads:
        """How long loading takes, by the history as far as it knows."""
        times, on_disk = self._past
        if self._recorder:
            times, on_disk = self._recorder.load_times(), self._recorder.loaded_on()
        tiers = {tier.value: tier for tier in Tier}
        measured = {
            (model_key, kind, tiers[tier]): one.seconds_p95 + HANDING_OVER_SECONDS
            for (model_key, kind, tier), one in times.items()
            if tier in tiers
        }
        return Loads(self._sizing, measured, on_disk)

    def _known_parked(self) -> dict[str, Parked]:
        """What is parked; what else the history knows is kept where nobody writes it here."""
        if self._recorder:
            return self._recorder.parked()
        try:
            with reading(self.settings.in_state_dir(FILE)) as history:
                self._past = (history.load_times(), history.loaded_on())
                return history.parked()
        except OperatorError as problem:
            logger.debug("{}", problem)
            return {}

    def _kept_promises(self) -> Promises:
        path = self.settings.in_state_dir("promises.json")
        try:
            return Promises.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return Promises()
        except (OSError, ValidationError) as error:
            logger.warning("What was promised before cannot be read from {} ({}).", path, error)
            return Promises()


def sizing(settings: Settings) -> Sizing:
    """The planner's figures, from the settings."""
    planning = settings.planning
    return Sizing(
        padding_fraction=planning.padding_fraction,
        padding_bytes=planning.padding_mib * MIB,
        lead_base_seconds=planning.lead_base_seconds,
        load_bytes_per_second=planning.load_mib_per_second * MIB,
        download_bytes_per_second=planning.download_mib_per_second * MIB,
    )


def policy(settings: Settings) -> Policy:
    """How promises are kept, from the settings."""
    return Policy(
        horizon_seconds=settings.calendar.horizon_days * 86_400,
        linger_seconds=settings.planning.linger_seconds,
        minimum_service_seconds=settings.controller.minimum_deployment_seconds,
    )


def guard_rule(settings: Settings) -> GuardRule:
    """The guard's figures, from the settings."""
    guard = settings.guard
    return GuardRule(
        max_share=guard.max_share,
        min_models=guard.min_models,
        second_reading_seconds=guard.second_reading_seconds,
    )


def park_rule(settings: Settings) -> ParkRule:
    """The figures of parking, from the settings."""
    guard = settings.guard
    return ParkRule(
        first_seconds=guard.park_seconds,
        longest_seconds=guard.longest_park_seconds,
        load_deadline_seconds=guard.load_deadline_seconds,
    )


def _models(readings: Iterable[Reading], catalog: Catalog) -> list[Model]:
    found = (identify(one, catalog) for reading in readings for one in reading.reservations)
    return [one for one in found if isinstance(one, Model)]
