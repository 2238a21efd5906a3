"""What the ``Controller`` actor knows and answers, and whose lease the cluster is. No Ray in here."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

State = Mapping[str, Any]

MAX_REQUESTS = 1000
"""More than that are not kept until the daemon has fetched them: the oldest are forgotten."""

SAID_SECONDS = 60.0
"""What a replica said of itself so long ago is not told any more."""


class Desk:
    """One for each cluster. Every method answers at once.

    The lease: one daemon at a time may act on the cluster. It keeps the lease by showing itself more
    often than every ``lease_seconds``. A desk that was made anew waits for so long for the daemon that
    had the lease, before it gives it to another one.

    Args:
        clock: seconds that never go back.
    """

    def __init__(
        self, lease_seconds: float, *, anew: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._holder: tuple[str, str] | None = None
        self._seen = clock()
        self._anew_until = clock() + lease_seconds if anew else None
        self._state: State = {}
        self._requests: deque[dict[str, Any]] = deque(maxlen=MAX_REQUESTS)
        self._said: dict[str, tuple[float, str, float | None]] = {}

    # --- the daemon's side ------------------------------------------------------------------------------

    def exchange(self, identity: str, name: str, held: bool, state: State | None) -> dict[str, Any]:
        """A daemon shows itself; what it needs to know comes back.

        Args:
            identity: unlike any other daemon's. ``name`` is for people.
            held: whether it has had the lease so far.
            state: what to tell those who ask; None leaves it as it was.
        """
        if not self._grant(identity, name, held):
            holder = self._holder[1] if self._holder else "the daemon before"
            return {"ours": False, "holder": holder, "requests": [], "said": {}}
        if state is not None:
            self._state = state
        requests = list(self._requests)
        self._requests.clear()
        return {"ours": True, "holder": name, "requests": requests, "said": self._recent()}

    def release(self, identity: str) -> None:
        """A daemon ends; another one may act at once."""
        if self._holder and self._holder[0] == identity:
            self._holder = None

    def _grant(self, identity: str, name: str, held: bool) -> bool:
        now = self._clock()
        free = self._holder is None or now - self._seen > self._lease_seconds
        waits = self._anew_until is not None and now < self._anew_until and not held
        if (self._holder and self._holder[0] == identity) or (free and not waits):
            self._holder, self._seen, self._anew_until = (identity, name), now, None
            return True
        return False

    def _recent(self) -> dict[str, list[Any]]:
        now = self._clock()
        self._said = {name: one for name, one in self._said.items() if now - one[0] < SAID_SECONDS}
        return {name: [step, fraction] for name, (_, step, fraction) in self._said.items()}

    # --- a replica's side ---------------------------------------------------------------------------------

    def report(self, application: str, step: str, fraction: float | None = None) -> None:
        """A replica tells how far it is: ``downloading``, ``loading`` or ``warming``, and the share done."""
        self._said[application] = (self._clock(), step, fraction)

    # --- other services' side -----------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Every deployment by its application, and the cluster, as nnsight's ``/status`` has them."""
        deployments = {
            f"{one['application']}#{number}": self._shown(one, number)
            for one in self._state.get("deployments", ())
            for number in range(one["replicas"])
        }
        return {"deployments": deployments, "cluster": self._state.get("plan", {}).get("cluster", {})}

    def get_state(self) -> dict[str, Any]:
        """All that the daemon tells, and who it is."""
        alive = self._holder is not None and self._clock() - self._seen <= self._lease_seconds
        return {**self._state, "daemon": self._holder[1] if self._holder and alive else None}

    def get_deployment(self, model_key: str) -> dict[str, Any] | None:
        """The deployment of a model, None where it is not deployed; one that serves comes first."""
        wanted = identify(model_key)
        keys: Mapping[str, str] = self._state.get("model_keys", {})
        found = [
            one
            for one in self._state.get("deployments", ())
            if identify(keys.get(one["application"], "")) == wanted
        ]
        best = min(found, key=lambda one: one["status"] != "serving", default=None)
        return self._shown(best, 0) if best else None

    def deploy(self, model_keys: list[str]) -> dict[str, Any]:
        """Ask for models to serve for a while. What comes of it is seen in ``get_deployment``."""
        return self._ask("deploy", model_keys)

    def evict(self, model_keys: list[str]) -> dict[str, Any]:
        """Ask for models to be taken down, and kept down for a while."""
        return self._ask("evict", model_keys)

    def env(self) -> dict[str, Any]:
        """Python and packages here."""
        return environment()

    def _shown(self, one: Mapping[str, Any], number: int) -> dict[str, Any]:
        model = one["model"]
        return {
            "application_state": STATES.get(one["status"], "NOT_STARTED"),
            "deployment_level": "HOT",
            "application": one["application"],
            "node": one["node"],
            "replica_id": number,
            "model_key": self._state.get("model_keys", {}).get(one["application"]),
            **{field: model.get(field) for field in ("repo_id", "revision", "task", "trust_remote_code")},
        }

    def _ask(self, verb: str, model_keys: list[str]) -> dict[str, Any]:
        keys = [key for key in model_keys if isinstance(key, str)]
        self._requests.append({"verb": verb, "model_keys": keys})
        return {"result": dict.fromkeys(keys, "asked for"), "evictions": []}


def identify(model_key: str) -> str:
    """A model key without what its writing leaves free: the order of its fields, and fields that are null."""
    kind, _, data = model_key.partition(":")
    try:
        found = json.loads(data)
    except ValueError:
        return model_key
    if not isinstance(found, dict):
        return model_key
    kept = {name: value for name, value in found.items() if value not in (None, False)}
    return f"{kind}:{json.dumps(kept, sort_keys=True)}"


@cache
def environment() -> dict[str, Any]:
    """Python's version, and those of the packages by the name they are imported by."""
    packages = {}
    for name, distributions in importlib.metadata.packages_distributions().items():
        if not name.startswith("_"):
            packages[name] = importlib.metadata.version(distributions[0])
    return {"python_version": platform.python_version(), "packages": packages}


STATES = {"serving": "RUNNING", "loading": "DEPLOYING", "failed": "UNHEALTHY"}
