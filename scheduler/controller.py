"""Observes what runs, plans, and carries plans out: the hands of the daemon and of ``apply``."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from calendars.reservation import Reading
from scheduler.bookings import Bookings
from scheduler.catalog import load_catalog
from scheduler.checkpoints import Checkpoints
from scheduler.cluster.dashboard import Dashboard
from scheduler.cluster.observe import observe_cluster
from scheduler.planning.footprint import Sizing
from scheduler.planning.plan import make_plan
from scheduler.planning.targets import identify
from scheduler.serve.config import ServeState, serve_config
from scheduler.settings import MIB, Settings
from scheduler.types import Catalog, Model, Observed, Plan


class Stale(Exception):
    """What runs has changed since a plan was made; it was not carried out. Plan again."""


class Controller:
    """One service: its calendars, its cluster, its Serve."""

    def __init__(self, settings: Settings, *, keep_readings: bool = False) -> None:
        self.settings = settings
        self.bookings = Bookings(settings, keep=keep_readings)
        self._others: frozenset[str] = frozenset()
        self._doubtful = False
        self.dashboard = Dashboard(settings.ray.dashboard, settings.token_file, settings.ray.timeout_seconds)
        self._checkpoints = Checkpoints(settings.hub_cache)
        self._sizing = sizing(settings)

    def close(self) -> None:
        """Give connections back."""
        self.bookings.close()
        self.dashboard.close()

    def observe(self) -> tuple[Observed, ServeState]:
        """What runs, and on what.

        Raises:
            ClusterUnavailable: Ray did not answer; nothing is known then.
        """
        state = ServeState(self.dashboard.serve_details())
        # Serve answers as if it ran nothing while its controller cannot be asked. A configuration made
        # from that would delete what others declared, so what vanishes is looked for twice.
        others = frozenset(state.others)
        self._doubtful, self._others = bool(self._others - others), others
        current = state.gateway_is_for(self.settings.serve)
        observed = Observed(
            cluster=observe_cluster(self.dashboard, self.settings.planning, state.ours),
            deployments=state.deployments,
            others=state.others,
            directory_version=state.directory_version if current else "",
            fingerprint=state.fingerprint,
        )
        return observed, state

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
        self.bookings.require(now or at)
        catalog = load_catalog(self.settings.path(self.settings.models.catalog))
        readings = (*self.bookings.readings, *also)
        known = self._checkpoints.look_up(_models(readings, catalog))
        return make_plan(readings, catalog, known, observed, self._sizing, at, self.settings.booking)

    def apply(self, plan: Plan) -> None:
        """Hand a plan's placements to Serve, which then loads and unloads by itself.

        Raises:
            Stale: what is deployed changed since the plan was made; nothing was done.
            Rejected: Serve did not take it; nothing was done.
        """
        if self._doubtful:
            raise Stale("applications of others have vanished, which is looked at once more")
        state = ServeState(self.dashboard.serve_details())
        if state.fingerprint != plan.fingerprint:
            raise Stale("what is deployed has changed since the plan was made")
        self.dashboard.put_serve_config(serve_config(plan, state, self.settings.serve))


def sizing(settings: Settings) -> Sizing:
    """The planner's figures, from the settings."""
    planning = settings.planning
    return Sizing(
        padding_fraction=planning.padding_fraction,
        padding_bytes=planning.padding_mib * MIB,
        lead_base_seconds=planning.lead_base_seconds,
        load_bytes_per_second=planning.load_mib_per_second * MIB,
    )


def _models(readings: Iterable[Reading], catalog: Catalog) -> list[Model]:
    found = (identify(one, catalog) for reading in readings for one in reading.reservations)
    return [one for one in found if isinstance(one, Model)]
