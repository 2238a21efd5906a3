"""Follows what is on its way, tells of it, and notes how long loading took."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from scheduler.announcer import Announcer
from scheduler.events import Events
from scheduler.front import Front
from scheduler.heartbeat import OnItsWay
from scheduler.metrics.meter import Meter, Unmetered
from scheduler.progress import ON_ITS_WAY, Follower, Progress, Step
from scheduler.serve.config import ServeState
from scheduler.store.history import Recorder
from scheduler.types import DeploymentStatus, Observed, Tier

BLIND_SECONDS = 3.0
"""What begins to load is looked at sooner than so long after the last look, else nobody saw it begin."""


class Watcher:
    """Looks at each observation once.

    Args:
        steady: seconds of a clock that nobody sets, for how long things take.
        on_first_serving: called once, with the name of the first model that answers.
        events: told of every step of every model.
        meter: told how long loading took.
    """

    def __init__(
        self,
        history: Recorder,
        front: Front,
        clock: Callable[[], datetime],
        steady: Callable[[], float],
        on_first_serving: Callable[[str], None] | None,
        announcer: Announcer,
        events: Events,
        meter: Meter | None = None,
    ) -> None:
        self._history = history
        self._front = front
        self._events = events
        self._meter = meter or Unmetered()
        self._announcer = announcer
        self._clock = clock
        self._steady = steady
        self._on_first_serving = on_first_serving
        self._follower = Follower()
        self._inherited: set[str] = set()
        self._loading: set[str] = set()
        self._served: set[str] = set()
        self._looked_at: float | None = None
        self._observed: Observed | None = None
        self._gateway: tuple[str, str] | None = None
        self.unreadable: dict[str, str] = {}
        """Applications of ours that cannot be read, and why."""

    def tell(self, observed: Observed, state: ServeState) -> bool:
        """Log what has become of the applications; returns whether one began or ceased to serve."""
        now = self._steady()
        self._observed, self._gateway = observed, state.gateway_status
        self._say_unreadable(state)
        self._inherit(observed, now)
        told = self._follower.update(observed.deployments, now, self._front.said(), self._expected(observed))
        self._announcer.progress(told)
        for one in told:
            self._events.tell(_event(one, self._clock()))
        for one in told:
            self._note_load(one, observed)
        self._say_gateway(observed, state)
        return any(one.step not in ON_ITS_WAY for one in told)

    def _inherit(self, observed: Observed, now: float) -> None:
        """Keep in mind whose loading is not to be timed.

        It may have begun long before it was seen: at a start, after an outage. Or nothing is loaded.
        """
        found = {one.application: one for one in observed.deployments}
        loading = {name for name, one in found.items() if one.status is DeploymentStatus.LOADING}
        if self._looked_at is None or now - self._looked_at > BLIND_SECONDS:
            self._inherited |= loading - self._loading
        # what is changed in place serves on, and is done in a second: that says nothing of loading
        self._inherited |= (loading - self._loading) & self._served
        self._looked_at, self._loading = now, loading
        serving = DeploymentStatus.SERVING
        self._served = {name for name, one in found.items() if one.ready_replicas or one.status is serving}

    @property
    def seen(self) -> tuple[Observed | None, tuple[str, str] | None]:
        """What was seen last: the cluster, and the gateway's status and message."""
        return self._observed, self._gateway

    @property
    def took_seconds(self) -> Mapping[str, float]:
        """How long each application that was seen loading took until it served."""
        return self._follower.took_seconds

    @property
    def loading_seconds(self) -> dict[str, float]:
        """For how long each application that is loading has been."""
        return self._follower.loading_seconds(self._steady())

    @property
    def on_its_way(self) -> tuple[OnItsWay, ...]:
        """How far everything is that is loading."""
        if self._observed is None:
            return ()
        said, expected = self._front.said(), self._expected(self._observed)
        now = self._steady()
        loading = [one for one in self._observed.deployments if one.status is DeploymentStatus.LOADING]
        found = [self._follower.loading(one, now, said, expected) for one in loading]
        return tuple(
            OnItsWay(
                application=one.deployment.application,
                model=one.deployment.model.name,
                node=one.deployment.node,
                step=one.step,
                seconds=round(one.seconds, 1),
                fraction=one.fraction,
            )
            for one in found
        )

    def _note_load(self, one: Progress, observed: Observed) -> None:
        application = one.deployment.application
        if one.step is not Step.SERVING or not one.seconds:
            return
        if application in self._inherited:
            self._inherited.remove(application)
            return
        model, node = one.deployment.model, one.deployment.node
        kind, tier = node_kind(observed, node), self._tier(model.key, node)
        self._history.loaded(self._clock(), model.key, node, kind, tier, round(one.seconds, 3))
        self._meter.loaded(model, node, kind, tier, one.seconds)

    def _tier(self, model_key: str, node: str) -> str:
        """Where weights are loaded from: what was loaded on a node before is on its disk."""
        return Tier.COLD if (model_key, node) in self._history.loaded_on() else Tier.REMOTE

    def _expected(self, observed: Observed) -> dict[str, float]:
        """How long what is loading took before, by application."""
        known = self._history.load_times()
        found = {}
        for one in observed.deployments:
            tier = self._tier(one.model.key, one.node)
            if time := known.get((one.model.key, node_kind(observed, one.node), tier)):
                found[one.application] = time.seconds_p50
        return found

    def _say_unreadable(self, state: ServeState) -> None:
        self.unreadable = state.unreadable
        for name, why in self.unreadable.items():
            self._announcer.say(
                f"unreadable {name}",
                f"The application “{name}” is ours, but its arguments cannot be read ({why}).",
                "It is left alone; delete it, or run the version of this service that made it.",
            )

    def _say_gateway(self, observed: Observed, state: ServeState) -> None:
        status, message = state.gateway_status
        serving = [one for one in observed.deployments if one.status is DeploymentStatus.SERVING]
        if status == "DEPLOY_FAILED":
            self._announcer.say("gateway", f"The gateway cannot start: {message}")
        if self._on_first_serving and serving and status == "RUNNING":
            self._on_first_serving(serving[0].model.name)
            self._on_first_serving = None


def _event(one: Progress, at: datetime) -> dict[str, object]:
    """What another service is told of a step."""
    return {
        "at": at.isoformat(),
        "event": one.step.value,
        "model_key": one.deployment.model.key,
        "application": one.deployment.application,
        "node": one.deployment.node,
        "seconds": round(one.seconds, 1),
    }


def node_kind(observed: Observed, node: str) -> str:
    """What load times on a node are comparable with."""
    found = observed.cluster.named(node)
    return found.kind_name if found else "unknown"
