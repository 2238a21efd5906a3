"""Follows applications from one observation to the next and tells what has become of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from scheduler.types import Deployment, DeploymentStatus

REPEAT_SECONDS = 10.0
NEARLY = 0.99
"""The most that is told of a loading whose length is only expected."""


class Step(StrEnum):
    """What a person wants to be told."""

    DOWNLOADING = "downloading"
    LOADING = "loading"
    WARMING = "warming"
    SERVING = "serving"
    FAILED = "failed"
    GONE = "gone"


ON_ITS_WAY = frozenset({Step.DOWNLOADING, Step.LOADING, Step.WARMING})


@dataclass(frozen=True)
class Progress:
    """Something became of a model on a node, ``seconds`` after it was first seen loading.

    ``fraction`` is how much of the step is done, as the replica said or by how long it took before.
    """

    step: Step
    deployment: Deployment
    seconds: float
    fraction: float | None = None


@dataclass(frozen=True)
class Said:
    """What a replica says of itself while it is loaded."""

    step: Step
    fraction: float | None = None


@dataclass
class Follower:
    """Remembers how each application was; ``repeat_seconds`` is how often a long loading is told."""

    repeat_seconds: float = REPEAT_SECONDS
    took_seconds: dict[str, float] = field(default_factory=dict)
    """How long each application that was seen loading took until it served."""
    _seen: dict[str, Deployment] = field(default_factory=dict)
    _since: dict[str, float] = field(default_factory=dict)
    _told: dict[str, float] = field(default_factory=dict)
    _step: dict[str, Step] = field(default_factory=dict)

    def update(
        self,
        deployments: Iterable[Deployment],
        now: float,
        said: Mapping[str, Said] | None = None,
        expected_seconds: Mapping[str, float] | None = None,
    ) -> list[Progress]:
        """What has changed by ``now`` (seconds of a clock).

        Args:
            said: what replicas say of themselves, by application.
            expected_seconds: how long loading takes, by application, where that is known.
        """
        present = {one.application: one for one in deployments}
        told = [self._gone(name, now) for name in list(self._seen) if name not in present]
        for name, deployment in present.items():
            before = self._seen.get(name)
            self._seen[name] = deployment
            changed = before is None or before.status is not deployment.status
            if deployment.status is DeploymentStatus.LOADING:
                if changed:
                    self._since[name] = now
                progress = self.loading(deployment, now, said, expected_seconds)
                changed = changed or progress.step is not self._step.get(name)
                if changed or now - self._told[name] >= self.repeat_seconds:
                    self._told[name], self._step[name] = now, progress.step
                    told.append(progress)
            elif changed:
                step = Step.SERVING if deployment.status is DeploymentStatus.SERVING else Step.FAILED
                if step is Step.SERVING and name in self._since:
                    self.took_seconds.setdefault(name, now - self._since[name])
                told.append(Progress(step, deployment, now - self._since.get(name, now)))
        return told

    def loading(
        self,
        one: Deployment,
        now: float,
        said: Mapping[str, Said] | None = None,
        expected_seconds: Mapping[str, float] | None = None,
    ) -> Progress:
        """How far an application that is loading is."""
        seconds = now - self._since.get(one.application, now)
        words = (said or {}).get(one.application, Said(Step.LOADING))
        fraction = words.fraction
        expected = (expected_seconds or {}).get(one.application)
        if fraction is None and words.step is Step.LOADING and expected:
            fraction = min(NEARLY, seconds / expected)
        return Progress(words.step, one, seconds, fraction)

    def loading_seconds(self, now: float) -> dict[str, float]:
        """For how long each application that is loading has been."""
        return {
            name: now - self._since[name]
            for name, one in self._seen.items()
            if one.status is DeploymentStatus.LOADING
        }

    def _gone(self, name: str, now: float) -> Progress:
        self._told.pop(name, None)
        self._step.pop(name, None)
        self.took_seconds.pop(name, None)
        return Progress(Step.GONE, self._seen.pop(name), now - self._since.pop(name, now))


def settled(deployments: Iterable[Deployment]) -> bool:
    """Whether nothing is on its way any more."""
    return all(one.status is not DeploymentStatus.LOADING for one in deployments)
