"""What stands between the daemon and the rest of its cluster: the lease, and who asks from outside.

``Front`` is the protocol; ``Alone`` is that of a daemon that shares its cluster with nobody.
``scheduler.front_process`` has the real one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from scheduler.progress import Said
from scheduler.types import Observed, Plan


@dataclass(frozen=True)
class Lease:
    """Whether this daemon may act; ``holder`` names the one that may, ``problem`` why nobody knows."""

    ours: bool
    holder: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Request:
    """Something another service asks for: models to serve for a while, or to go."""

    verb: str
    model_keys: tuple[str, ...]
    by: str = ""


class Front(Protocol):
    """Never blocks, never raises."""

    def start(self) -> None: ...

    def lease(self) -> Lease:
        """Who may act on the cluster now."""
        ...

    def show(self, state: Mapping[str, Any]) -> None:
        """Have this ready for whoever asks."""
        ...

    def requests(self) -> list[Request]:
        """What was asked for since the last call."""
        ...

    def said(self) -> dict[str, Said]:
        """What replicas say of their loading, by application."""
        ...

    def close(self) -> None:
        """Give the lease back."""
        ...


def state_to_show(plan: Plan, observed: Observed) -> dict[str, Any]:
    """What other services are told of the cluster and of what runs on it."""
    return {
        "plan": plan.model_dump(mode="json", include={"cluster", "directory", "at"}),
        "deployments": [one.model_dump(mode="json") for one in observed.deployments],
        "model_keys": {one.application: one.model.key for one in observed.deployments},
    }


class Alone:
    """Nobody else acts, nobody asks."""

    def start(self) -> None:
        """Nothing to start."""

    def lease(self) -> Lease:
        return Lease(ours=True)

    def show(self, state: Mapping[str, Any]) -> None:
        """Nobody looks."""

    def requests(self) -> list[Request]:
        return []

    def said(self) -> dict[str, Said]:
        return {}

    def close(self) -> None:
        """Nothing to give back."""
