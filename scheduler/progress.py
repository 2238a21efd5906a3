"""Follows applications from one observation to the next and tells what has become of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from scheduler.types import Deployment, DeploymentStatus

REPEAT_SECONDS = 10.0


class Step(StrEnum):
    """What a person wants to be told."""

    LOADING = "loading"
    SERVING = "serving"
    FAILED = "failed"
    GONE = "gone"


@dataclass(frozen=True)
class Progress:
    """Something became of a model on a node, ``seconds`` after it was first seen loading."""

    step: Step
    deployment: Deployment
    seconds: float


@dataclass
class Follower:
    """Remembers how each application was; ``repeat_seconds`` is how often a long loading is told."""

    repeat_seconds: float = REPEAT_SECONDS
    took_seconds: dict[str, float] = field(default_factory=dict)
    """How long each application that was seen loading took until it served."""
    _seen: dict[str, Deployment] = field(default_factory=dict)
    _since: dict[str, float] = field(default_factory=dict)
    _told: dict[str, float] = field(default_factory=dict)

    def update(self, deployments: Iterable[Deployment], now: float) -> list[Progress]:
        """What has changed by ``now`` (seconds of a monotonic clock)."""
        present = {one.application: one for one in deployments}
        told = [self._gone(name, now) for name in list(self._seen) if name not in present]
        for name, deployment in present.items():
            before = self._seen.get(name)
            self._seen[name] = deployment
            changed = before is None or before.status is not deployment.status
            if deployment.status is DeploymentStatus.LOADING:
                if changed:
                    self._since[name] = now
                if changed or now - self._told[name] >= self.repeat_seconds:
                    self._told[name] = now
                    told.append(Progress(Step.LOADING, deployment, now - self._since[name]))
            elif changed:
                step = Step.SERVING if deployment.status is DeploymentStatus.SERVING else Step.FAILED
                if step is Step.SERVING and name in self._since:
                    self.took_seconds.setdefault(name, now - self._since[name])
                told.append(Progress(step, deployment, now - self._since.get(name, now)))
        return told

    def _gone(self, name: str, now: float) -> Progress:
        self._told.pop(name, None)
        self.took_seconds.pop(name, None)
        return Progress(Step.GONE, self._seen.pop(name), now - self._since.pop(name, now))


def settled(deployments: Iterable[Deployment]) -> bool:
    """Whether nothing is on its way any more."""
    return all(one.status is not DeploymentStatus.LOADING for one in deployments)
