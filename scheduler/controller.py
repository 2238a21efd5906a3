"""Observes what runs, plans, and carries plans out: the hands of the daemon and of ``apply``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from calendars.ics import IcsCalendar
from calendars.reservation import Reading
from calendars.source import CalendarSource, CalendarUnavailable
from scheduler.catalog import load_catalog
from scheduler.checkpoints import Checkpoints
from scheduler.cluster.dashboard import Dashboard
from scheduler.cluster.observe import observe_cluster
from scheduler.errors import OperatorError
from scheduler.planning.footprint import Sizing
from scheduler.planning.plan import make_plan
from scheduler.planning.targets import identify
from scheduler.serve.config import ServeState, serve_config
from scheduler.settings import MIB, Settings
from scheduler.types import Catalog, Model, Observed, Plan


class Stale(Exception):
    """What runs has changed since a plan was made; it was not carried out. Plan again."""


@dataclass
class Readings:
    """The last good reading of each calendar, and what is wrong with those that fail now."""

    good: dict[str, Reading] = field(default_factory=dict)
    failing: dict[str, CalendarUnavailable] = field(default_factory=dict)

    def refresh(self, sources: Iterable[CalendarSource], start: datetime, end: datetime) -> None:
        """Read every calendar; one that fails keeps its last good reading (it is not empty)."""
        for source in sources:
            try:
                self.good[source.name] = source.read(start, end)
                self.failing.pop(source.name, None)
            except CalendarUnavailable as problem:
                self.failing[source.name] = problem

    @property
    def never_read(self) -> tuple[CalendarUnavailable, ...]:
        """Problems of calendars of which nothing is known; while there are any, nothing is done."""
        return tuple(problem for name, problem in self.failing.items() if name not in self.good)


class Controller:
    """One service: its calendars, its cluster, its Serve."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.readings = Readings()
        self.dashboard = Dashboard(
            settings.ray.dashboard, settings.path(settings.ray.token_path), settings.ray.timeout_seconds
        )
        self._checkpoints = Checkpoints(settings.hub_cache)
        self._sources: tuple[CalendarSource, ...] = (calendar_source(settings),)
        self._sizing = sizing(settings)

    def close(self) -> None:
        """Give connections back."""
        self.dashboard.close()

    def read_calendars(self, at: datetime) -> None:
        """Refresh the readings: what runs at an instant, and the horizon after it."""
        horizon = timedelta(days=self.settings.calendar.horizon_days)
        self.readings.refresh(self._sources, at, at + horizon)

    def observe(self) -> tuple[Observed, ServeState]:
        """What runs, and on what.

        Raises:
            ClusterUnavailable: Ray did not answer; nothing is known then.
        """
        state = ServeState(self.dashboard.serve_details())
        observed = Observed(
            cluster=observe_cluster(self.dashboard, self.settings.planning, state.ours),
            deployments=state.deployments,
            others=state.others,
            directory_version=state.directory_version,
            fingerprint=state.fingerprint,
        )
        return observed, state

    def plan(self, at: datetime, observed: Observed) -> Plan:
        """Plan for an instant from the present readings.

        Raises:
            OperatorError: a calendar has never been read, or the catalog cannot be.
        """
        if self.readings.never_read:
            problem = self.readings.never_read[0]
            raise OperatorError(problem.reason, problem.remedy)
        catalog = load_catalog(self.settings.path(self.settings.models.catalog))
        readings = tuple(self.readings.good.values())
        known = self._checkpoints.look_up(_models(readings, catalog, at))
        return make_plan(readings, catalog, known, observed, self._sizing, at)

    def apply(self, plan: Plan) -> None:
        """Hand a plan's placements to Serve, which then loads and unloads by itself.

        Raises:
            Stale: what is deployed changed since the plan was made; nothing was done.
            Rejected: Serve did not take it; nothing was done.
        """
        state = ServeState(self.dashboard.serve_details())
        if state.fingerprint != plan.fingerprint:
            raise Stale("what is deployed has changed since the plan was made")
        self.dashboard.put_serve_config(serve_config(plan, state, self.settings.serve))


def calendar_source(settings: Settings) -> CalendarSource:
    """The calendar the settings name."""
    location = settings.calendar.ics
    if "://" not in location:
        location = str(settings.path(Path(location)))
    return IcsCalendar(
        location,
        timeout_seconds=settings.calendar.timeout_seconds,
        default_timezone=settings.calendar.default_timezone,
    )


def sizing(settings: Settings) -> Sizing:
    """The planner's figures, from the settings."""
    planning = settings.planning
    return Sizing(
        padding_fraction=planning.padding_fraction,
        padding_bytes=planning.padding_mib * MIB,
        lead_base_seconds=planning.lead_base_seconds,
        load_bytes_per_second=planning.load_mib_per_second * MIB,
    )


def _models(readings: Iterable[Reading], catalog: Catalog, at: datetime) -> list[Model]:
    found = (identify(one, catalog) for reading in readings for one in reading.reservations if one.end > at)
    return [one for one in found if isinstance(one, Model)]
