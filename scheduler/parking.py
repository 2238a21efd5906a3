"""Models that fail to load: left alone for a while, tried again less and less often.

While a model is parked its applications are taken down, its room stays promised to its bookings, and its
error is told on the event and in ``status``. It is tried again at once when something changed that may help:
its bookings, the code that serves it, or the nodes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import cache

from calendars.reservation import Frozen, Reading
from scheduler.settings import ROOT
from scheduler.store.records import Parked
from scheduler.types import Deployment, DeploymentStatus, Observed, Plan

LONGEST_ERROR = 2000


class ParkRule(Frozen):
    """How long a model rests after it failed, and after how long without serving it has failed."""

    first_seconds: float
    longest_seconds: float
    load_deadline_seconds: float


class Parking:
    """What is parked. ``changed`` tells what the last look at the cluster has parked or freed."""

    def __init__(self, rule: ParkRule, parked: Mapping[str, Parked]) -> None:
        self._rule = rule
        self.parked = dict(parked)

    def look(
        self,
        observed: Observed,
        plan: Plan,
        readings: Iterable[Reading],
        loading_seconds: Mapping[str, float],
        at: datetime,
    ) -> list[Parked | str]:
        """Park what has failed, free what serves; returns what was parked, and the keys of what was freed.

        Args:
            plan: made from ``observed`` and ``readings``.
            loading_seconds: for how long each application is loading.
        """
        told: list[Parked | str] = []
        signatures = _signatures(plan, observed, readings)
        for key, one in list(self.parked.items()):
            if signatures.get(key) != one.signature:
                del self.parked[key]
                told.append(key)
        by_model: dict[str, list[Deployment]] = {}
        for deployment in observed.deployments:
            by_model.setdefault(deployment.model.key, []).append(deployment)
        for key, deployments in by_model.items():
            if any(one.ready_replicas for one in deployments):
                if self.parked.pop(key, None):
                    told.append(key)
                continue
            error = next((why for one in deployments if (why := self._why(one, loading_seconds))), None)
            if error and key in signatures and not self._rests(key, at):
                told.append(self._park(key, error, signatures[key], at))
        return told

    def resting(self, at: datetime) -> dict[str, Parked]:
        """What is left alone at an instant, by model key."""
        return {key: one for key, one in self.parked.items() if self._rests(key, at)}

    @property
    def boundaries(self) -> tuple[datetime, ...]:
        """When something is tried again."""
        return tuple(one.retry_at for one in self.parked.values())

    def _rests(self, key: str, at: datetime) -> bool:
        # a clock that was set back must not make a pause longer than any
        longest = timedelta(seconds=self._rule.longest_seconds)
        return key in self.parked and timedelta() < self.parked[key].retry_at - at <= longest

    def _park(self, key: str, error: str, signature: str, at: datetime) -> Parked:
        before = self.parked.get(key)
        tries = (before.tries if before else 0) + 1
        # 2.0 ** 1024 is too large a number
        pause = min(self._rule.longest_seconds, self._rule.first_seconds * 2.0 ** min(tries - 1, 60))
        self.parked[key] = Parked(
            model_key=key,
            error=error[-LONGEST_ERROR:],
            since=before.since if before else at,
            tries=tries,
            retry_at=at + timedelta(seconds=pause),
            signature=signature,
        )
        return self.parked[key]

    def _why(self, one: Deployment, loading_seconds: Mapping[str, float]) -> str:
        if one.gave_up:
            return one.message or "Serve gave no reason"
        waited = loading_seconds.get(one.application, 0.0)
        if one.status is DeploymentStatus.LOADING and waited > self._rule.load_deadline_seconds:
            said = f": {one.message}" if one.message else ""
            return f"it did not serve within {waited / 60:.0f} minutes{said}"
        return ""


def _signatures(plan: Plan, observed: Observed, readings: Iterable[Reading]) -> dict[str, str]:
    """Of each booked model, what a failure to load may depend on."""
    asked = {one.key: one.model_dump_json() for reading in readings for one in reading.reservations}
    nodes = sorted((node.name, node.node_id) for node in observed.cluster.nodes if node.devices)
    bookings: dict[str, list[str]] = {}
    for verdict in plan.verdicts:
        if verdict.model is not None:
            bookings.setdefault(verdict.model.key, []).append(asked.get(verdict.event, verdict.event))
    return {
        key: hashlib.sha256(json.dumps([sorted(found), nodes, serving_code()]).encode()).hexdigest()[:16]
        for key, found in bookings.items()
    }


@cache
def serving_code() -> str:
    """Changes with the code that loads and serves models."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "serve_apps").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
