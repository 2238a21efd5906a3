"""What Ray Serve does with a list of applications, without Ray: builds, replicas, deletions, by a clock.

The rules are those of Serve's REST API as they were tried on Ray 2.60: a list is the whole of what is
declared; applications made in code are left alone; each is built, then its replicas wait for room on the
node they are pinned to. Time passes only in `Serve.settle`, which takes one event after the other, so that
what happened between two looks is the same however seldom anybody looks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from serve_apps import contract

Json = dict[str, Any]

APPLICATION_KEYS = (
    *("name", "route_prefix", "import_path", "runtime_env", "host", "port", "deployments"),
    *("autoscaling_policy", "args", "logging_config", "external_scaler_enabled"),
)
"""What Serve keeps of an application's configuration; other keys vanish without a word."""

REBUILDS = ("import_path", "runtime_env", "args")
"""Changing one of these builds an application anew; changing anything else is done in place."""


class Invalid(Exception):
    """A configuration that Serve answers with 400; nothing of it is applied."""


@dataclass(frozen=True)
class Needs:
    """What one replica asks Ray for; ``node`` is the label it is pinned to, None for any node."""

    deployment: str
    num_gpus: float = 0.0
    memory_bytes: int = 0
    node: str | None = None


Builder = Callable[[Mapping[str, Any]], Needs]


def model_needs(args: Mapping[str, Any]) -> Needs:
    """What the product's model application asks for."""
    checked = contract.ModelArgs.model_validate(dict(args))
    return Needs(contract.MODEL_DEPLOYMENT, checked.num_gpus, checked.memory_bytes, checked.node)


def gateway_needs(args: Mapping[str, Any]) -> Needs:
    """What the product's gateway asks for."""
    contract.GatewayArgs.model_validate(dict(args))
    return Needs(contract.GATEWAY_DEPLOYMENT)


BUILDERS: dict[str, Builder] = {
    contract.MODEL_IMPORT_PATH: model_needs,
    contract.GATEWAY_IMPORT_PATH: gateway_needs,
}
"""The code there is to import; any other import path fails to build."""


@dataclass
class Room:
    """What a node has to give; dead nodes give nothing."""

    gpus: float
    memory_bytes: int
    alive: bool = True


@dataclass(eq=False)
class Replica:
    """One replica: without ``node`` it waits for room, from ``ready_at`` on it runs."""

    number: int
    needs: Needs
    node: str | None = None
    ready_at: datetime | None = None
    running: bool = False


@dataclass(eq=False)
class Application:
    """One application; while it is built ``built_at`` tells when that will be done."""

    name: str
    config: Json
    declarative: bool
    deployed_at: datetime
    built_at: datetime | None = None
    gone_at: datetime | None = None
    failure: str = ""
    failed_build: bool = False
    replicas: list[Replica] = field(default_factory=list)
    leaving: list[tuple[datetime, Replica]] = field(default_factory=list)
    """Replicas that are being stopped: until then they hold what they hold."""

    @property
    def status(self) -> str:
        """Serve's word for how it is."""
        if self.gone_at is not None:
            return "DELETING"
        if self.failure:
            return "DEPLOY_FAILED"
        if self.built_at is not None or not all(one.running for one in self.replicas):
            return "DEPLOYING"
        return "RUNNING"

    @property
    def wanted_replicas(self) -> int:
        """How many replicas its configuration asks for."""
        listed = self.config.get("deployments") or [{}]
        return int(listed[0].get("num_replicas") or 1)

    @property
    def held(self) -> list[Replica]:
        """Every replica that has a place, those on their way out included."""
        return [one for one in (*self.replicas, *(one for _, one in self.leaving)) if one.node is not None]


class Serve:
    """The applications, and the nodes' room they share.

    Args:
        rooms: what each node has, by name; looked at whenever something is placed.
        load_seconds: from a replica's place on a node until it runs.
        build_seconds: how long the build task takes. ``delete_seconds``: how long an idle application
            takes to go; one with a replica that never found a place takes ``shutdown_seconds``.
    """

    def __init__(
        self,
        rooms: Mapping[str, Room],
        *,
        load_seconds: float = 30.0,
        build_seconds: float = 2.0,
        delete_seconds: float = 2.0,
        shutdown_seconds: float = 20.0,
    ) -> None:
        self.rooms = rooms
        self.load_seconds = load_seconds
        self.build_seconds = build_seconds
        self.delete_seconds = delete_seconds
        self.shutdown_seconds = shutdown_seconds
        self.apps: dict[str, Application] = {}
        self.builders = dict(BUILDERS)
        self.fail_build: dict[str, str] = {}
        """Part of an application's name to the message its build fails with."""
        self.fail_start: dict[str, str] = {}
        """Part of an application's name to the message its replicas' constructor fails with."""
        self._numbers = itertools.count(1)

    # --- what is asked of it -----------------------------------------------------------------------------

    def put(self, body: object, now: datetime) -> None:
        """Take the complete list of declared applications.

        Raises:
            Invalid: the list cannot be; nothing was done.
        """
        configs = validated(body)
        self.settle(now)
        listed = {config["name"] for config in configs}
        for app in self.apps.values():
            if app.declarative and app.name not in listed and app.gone_at is None:
                never_placed = any(one.node is None for one in app.replicas)
                seconds = self.shutdown_seconds if never_placed else self.delete_seconds
                app.gone_at = now + timedelta(seconds=seconds)
        for config in configs:
            self._deploy(config, now)
        self.settle(now)

    def run_in_code(self, name: str, needs: Needs, now: datetime, route_prefix: str | None = None) -> None:
        """What ``serve.run`` does: an application that no list declared."""
        config = {"name": name, "route_prefix": route_prefix, "import_path": ""}
        app = Application(name, config, declarative=False, deployed_at=now)
        app.replicas = [Replica(next(self._numbers), needs)]
        self.apps[name] = app
        self.settle(now)

    def lose_node(self, name: str, now: datetime) -> None:
        """The replicas on a node are gone; new ones wait for it to come back."""
        self.settle(now)
        for app in self.apps.values():
            app.leaving = [(at, one) for at, one in app.leaving if one.node != name]
            app.replicas = [
                Replica(next(self._numbers), one.needs) if one.node == name else one for one in app.replicas
            ]

    def settle(self, now: datetime) -> None:
        """Let everything happen that was due until ``now``, in its order."""
        self._place(now)
        while (due := min(self._coming(), default=None)) is not None and due <= now:
            self._happen(due)
            self._place(due)

    # --- what happens to it ------------------------------------------------------------------------------

    def _deploy(self, config: Json, now: datetime) -> None:
        app = self.apps.get(config["name"])
        if app is None:
            app = self.apps[config["name"]] = Application(
                config["name"], config, declarative=True, deployed_at=now, built_at=self._built(now)
            )
            return
        before, app.config, app.declarative = app.config, config, True
        rebuilt = any(before.get(key) != config.get(key) for key in REBUILDS)
        if rebuilt or app.failed_build or app.gone_at is not None:
            app.deployed_at, app.built_at, app.gone_at = now, self._built(now), None
            app.failure, app.failed_build = "", False
        elif before != config and app.built_at is None:
            self._scale(app, now, anew=bool(app.failure))

    def _built(self, now: datetime) -> datetime:
        return now + timedelta(seconds=self.build_seconds)

    def _scale(self, app: Application, now: datetime, anew: bool = False) -> None:
        needs = app.replicas[0].needs if app.replicas else self._needs(app)
        kept = [] if anew else app.replicas[: app.wanted_replicas]
        for one in app.replicas:
            if one not in kept and one.node is not None:
                app.leaving.append((now + timedelta(seconds=self.delete_seconds), one))
        missing = app.wanted_replicas - len(kept)
        app.replicas = kept + [Replica(next(self._numbers), needs) for _ in range(missing)]
        app.failure = ""

    def _needs(self, app: Application) -> Needs:
        return self.builders[app.config["import_path"]](app.config.get("args") or {})

    def _coming(self) -> Iterable[datetime]:
        for app in self.apps.values():
            if app.gone_at is not None:
                yield app.gone_at
            elif app.built_at is not None:
                yield app.built_at
            yield from (at for at, _ in app.leaving)
            yield from (one.ready_at for one in app.replicas if one.ready_at and not one.running)

    def _happen(self, due: datetime) -> None:
        for app in list(self.apps.values()):
            if app.gone_at is not None and app.gone_at <= due:
                del self.apps[app.name]
                continue
            app.leaving = [(at, one) for at, one in app.leaving if at > due]
            if app.built_at is not None and app.built_at <= due and app.gone_at is None:
                app.built_at = None
                self._finish_build(app, due)
            for one in list(app.replicas):
                if one.ready_at is not None and one.ready_at <= due and not one.running:
                    self._start(app, one)

    def _finish_build(self, app: Application, due: datetime) -> None:
        app.failure = _command(self.fail_build, app.name)
        if not app.failure:
            try:
                needs = self._needs(app)
            except KeyError:
                app.failure = f"ModuleNotFoundError: No module named '{app.config['import_path']}'"
            except ValidationError as error:
                app.failure = str(error)
        app.failed_build = bool(app.failure)
        if not app.failed_build:
            for one in app.replicas:
                if one.node is not None:
                    app.leaving.append((due + timedelta(seconds=self.delete_seconds), one))
            app.replicas = [Replica(next(self._numbers), needs) for _ in range(app.wanted_replicas)]

    def _start(self, app: Application, one: Replica) -> None:
        message = _command(self.fail_start, app.name)
        if message:
            app.failure, app.replicas = message, []
        else:
            one.running = True

    def _place(self, now: datetime) -> None:
        for app in self.apps.values():
            if app.gone_at is None and app.built_at is None:
                for one in app.replicas:
                    if one.node is None and (node := self._with_room(one.needs)) is not None:
                        one.node = node
                        one.ready_at = now + timedelta(seconds=self.load_seconds)

    def _with_room(self, needs: Needs) -> str | None:
        for name, room in self.rooms.items():
            if not room.alive or needs.node not in (None, name):
                continue
            held = [one.needs for app in self.apps.values() for one in app.held if one.node == name]
            gpus = room.gpus - sum(one.num_gpus for one in held)
            memory = room.memory_bytes - sum(one.memory_bytes for one in held)
            if needs.num_gpus <= gpus + 1e-9 and needs.memory_bytes <= memory:
                return name
        return None


def _command(commands: Mapping[str, str], name: str) -> str:
    return next((message for part, message in commands.items() if part in name), "")


def validated(body: object) -> list[Json]:
    """The applications of a configuration, each with the keys that Serve keeps.

    Raises:
        Invalid: with the kind of words that Serve answers.
    """
    if not isinstance(body, dict) or not isinstance(body.get("applications"), list):
        raise Invalid("1 validation error for ServeDeploySchema\napplications\n  Field required")
    for config in body["applications"]:
        if not isinstance(config, dict) or not isinstance(config.get("import_path"), str):
            raise Invalid("1 validation error for ServeDeploySchema\nimport_path\n  Field required")
        if not any(sign in config["import_path"] for sign in ":."):
            raise Invalid(f"import_path\n  {config['import_path']!r} is no module and attribute")
        for deployment in config.get("deployments") or ():
            if not isinstance(deployment, dict) or "name" not in deployment:
                raise Invalid("1 validation error for ServeDeploySchema\ndeployments.name\n  Field required")
    configs = [
        {key: one[key] for key in APPLICATION_KEYS if key in one} | {"name": one.get("name", "default")}
        for one in body["applications"]
    ]
    _once("applications", [config["name"] for config in configs])
    _once("routes", [route for one in configs if (route := one.get("route_prefix", "/")) is not None])
    return configs


def _once(what: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Invalid(f"1 validation error for ServeDeploySchema\n{what}\n  more than once: {twice}")
    if "" in names:
        raise Invalid(f"1 validation error for ServeDeploySchema\n{what}\n  must not be empty")
