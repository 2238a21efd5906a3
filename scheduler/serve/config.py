"""Between plans and Serve's configuration, both ways."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from scheduler.errors import OperatorError
from scheduler.render.sentences import sentence, stopped
from scheduler.serve.naming import application_name
from scheduler.settings import GIB, MIB, ServeSettings
from scheduler.types import Deployment, DeploymentStatus, Directory, Model, Placement, Plan, Reason
from serve_apps import contract

STATUS = {
    "RUNNING": DeploymentStatus.SERVING,
    "NOT_STARTED": DeploymentStatus.LOADING,
    "DEPLOYING": DeploymentStatus.LOADING,
    "DEPLOY_FAILED": DeploymentStatus.FAILED,
    "UNHEALTHY": DeploymentStatus.FAILED,
    "DELETING": DeploymentStatus.STOPPING,
}
GATEWAY_ROUTE = "/"
LOGGING = {"encoding": "JSON"}
"""How our applications write their logs; the daemon's have the same names of fields."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_Told = tuple[Mapping[str, Any], Deployment | None]
"""An application as Serve tells of it, and what it is to us."""


class ServeState:
    """What Serve's REST API answered, sorted into ours and others'.

    Args:
        before: an earlier answer; what is told alike in both is the same object.
    """

    def __init__(self, details: Mapping[str, Any], before: ServeState | None = None) -> None:
        self._applications: Mapping[str, Any] = details.get("applications") or {}
        self._http_host: str | None = (details.get("http_options") or {}).get("host")
        known = before._deployments if before is not None else {}
        self._deployments: dict[str, _Told] = {
            name: self._told(name, known.get(name)) for name in sorted(self.ours)
        }

    def _told(self, name: str, known: _Told | None) -> _Told:
        app = self._applications[name]
        return known if known is not None and known[0] == app else (app, _deployment(name, app))

    @cached_property
    def ours(self) -> tuple[str, ...]:
        """Names of our applications, those on their way out included."""
        return tuple(name for name, app in self._applications.items() if _is_ours(name, app))

    @cached_property
    def others(self) -> tuple[str, ...]:
        """Names of the applications that are not ours, sorted."""
        return tuple(sorted(set(self._applications) - set(self.ours)))

    @cached_property
    def deployments(self) -> tuple[Deployment, ...]:
        """Our models that are meant to run, sorted by application."""
        return tuple(one for _, one in self._deployments.values() if one is not None)

    @cached_property
    def unreadable(self) -> dict[str, str]:
        """Applications with our marker that this version does not understand, and why.

        They are treated as others' are: left alone, and what they hold is taken.
        """
        return {name: why for name, app in self._applications.items() if (why := _why_unreadable(app))}

    @property
    def directory_version(self) -> str | None:
        """The version the gateway's directory was pushed with, None without a healthy gateway."""
        app = self._applications.get(contract.GATEWAY_APPLICATION)
        if app is None or app["status"] in ("DELETING", "DEPLOY_FAILED"):
            return None
        if _arguments(app).get("contract") != contract.CONTRACT_VERSION:
            return None
        return str(_user_config(app, contract.GATEWAY_DEPLOYMENT).get("version", ""))

    @property
    def gateway_status(self) -> tuple[str, str]:
        """Serve's word for how the gateway is, and its message; ``("ABSENT", "")`` without one."""
        app = self._applications.get(contract.GATEWAY_APPLICATION)
        return (app["status"], app.get("message", "")) if app else ("ABSENT", "")

    @property
    def fingerprint(self) -> str:
        """Changes whenever the configuration of any application does, ours or others'."""
        configs = {
            name: [app.get("source"), app.get("deployed_app_config")]
            for name, app in self._applications.items()
        }
        return hashlib.sha256(json.dumps(configs, sort_keys=True).encode()).hexdigest()[:16]

    def foreign_configs(self, instead: Collection[str] = ()) -> list[dict[str, Any]]:
        """Others' declarative applications, exactly as they were submitted.

        A PUT deletes the declarative applications it does not list, so they are listed; but for those
        of ours that cannot be read and come anew under their name, which are in ``instead``.

        Raises:
            OperatorError: Serve does not say how one of them was submitted, so it would be deleted.
        """
        found = []
        for name in self.others:
            app = self._applications[name]
            if app.get("source") != "declarative" or app["status"] == "DELETING":
                continue
            if name in instead and name in self.unreadable:
                continue
            if not app.get("deployed_app_config"):
                raise OperatorError(
                    f"Serve does not tell the configuration of “{name}”, which is not ours.",
                    "It would be lost, so nothing was done. If this stays, deploy it again.",
                )
            found.append(app["deployed_app_config"])
        return found

    def holder_of(self, route: str) -> str | None:
        """The application of others that answers at a route prefix, if any."""
        prefixes = ((name, self._applications[name].get("route_prefix")) for name in self.others)
        return next((name for name, prefix in prefixes if prefix == route), None)

    def listens_on_loopback(self) -> bool:
        """Whether Serve, if it runs, listens on loopback only; only its first configuration decides that."""
        return self._http_host is None or self._http_host in LOOPBACK

    def gateway_is_for(self, settings: ServeSettings, warn_minutes: float = 10.0) -> bool:
        """Whether the gateway was deployed with the arguments and replicas it would be given now."""
        app = self._applications.get(contract.GATEWAY_APPLICATION)
        if app is None:
            return True
        replicas = _options(app, contract.GATEWAY_DEPLOYMENT).get("num_replicas")
        same = _arguments(app) == _gateway_args(settings, self, warn_minutes).model_dump(mode="json")
        return same and replicas == settings.gateway_replicas


def serve_config(
    plan: Plan, state: ServeState, settings: ServeSettings, warn_minutes: float = 10.0
) -> dict[str, Any]:
    """The complete configuration to PUT: a plan's placements, the gateway, and others' as they are.

    Args:
        warn_minutes: how long before a model's end the gateway tells its clients.

    Raises:
        OperatorError: an application of others answers at ``/``, where the gateway must be.
    """
    if holder := state.holder_of(GATEWAY_ROUTE):
        raise OperatorError(
            f"The application “{holder}”, which is not ours, answers at “/”, where the gateway must be.",
            "Deploy it with another route_prefix; nothing was changed.",
        )
    ours = [
        _gateway(plan.directory, _gateway_args(settings, state, warn_minutes), settings.gateway_replicas),
        *(_model(placement, settings) for placement in plan.placements),
    ]
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": settings.host, "port": settings.port},
        "applications": [*ours, *state.foreign_configs(instead=[str(one["name"]) for one in ours])],
    }


def _gateway_args(settings: ServeSettings, state: ServeState, warn_minutes: float) -> contract.GatewayArgs:
    return contract.GatewayArgs(
        state_dir=str(settings.gateway_dir) if settings.gateway_dir else None,
        loopback_only=settings.loopback_only and state.listens_on_loopback(),
        require_keys=settings.require_keys,
        deadline_seconds=settings.deadline_seconds,
        job_seconds=settings.job_seconds,
        max_wait_seconds=settings.max_wait_minutes * 60,
        max_blob_bytes=settings.max_upload_mib * MIB,
        results_bytes=int(settings.results_gib * GIB),
        result_seconds=settings.results_hours * 3600,
        public_url=settings.public_url,
        object_store_url=settings.object_store_url,
        object_store_public_url=settings.object_store_public_url,
        requests_per_minute=settings.requests_per_minute,
        concurrent_per_key=settings.concurrent_per_key,
        queued_per_key=settings.queued_per_key,
        queued_per_model=settings.queued_per_model,
        cors_origins=settings.cors_origins,
        allowed_adapters=settings.allowed_adapters,
        warn_seconds=warn_minutes * 60,
    )


def _gateway(directory: Directory, args: contract.GatewayArgs, replicas: int) -> dict[str, Any]:
    return {
        "name": contract.GATEWAY_APPLICATION,
        "route_prefix": GATEWAY_ROUTE,
        "import_path": contract.GATEWAY_IMPORT_PATH,
        "logging_config": LOGGING,
        "args": args.model_dump(mode="json"),
        "deployments": [
            {
                "name": contract.GATEWAY_DEPLOYMENT,
                "num_replicas": replicas,
                "user_config": _gateway_config(directory).model_dump(mode="json"),
            }
        ],
    }


def _gateway_config(directory: Directory) -> contract.GatewayConfig:
    return contract.GatewayConfig(
        version=directory.version,
        routes=tuple(
            contract.Route(
                model_key=route.model.key,
                names=route.names,
                applications=tuple(application_name(route.model, node) for node in route.nodes),
                until=route.until,
                private_to=route.private_to,
            )
            for route in directory.routes
        ),
        bookings=tuple(
            contract.Booking(
                names=one.names,
                start=one.start,
                end=one.end,
                refused=_why(one.refused, one.earliest) if one.refused else None,
                private_to=one.private_to,
            )
            for one in directory.announcements
        ),
    )


def _why(refused: Reason, earliest: datetime | None) -> str:
    """Why a booking is refused, and when it would fit or what to do."""
    then = f"It would fit from {earliest:%Y-%m-%d %H:%M} UTC on." if earliest else refused.remedy or ""
    return f"{stopped(sentence(refused))} {then}".rstrip()


def _model(placement: Placement, settings: ServeSettings) -> dict[str, Any]:
    target = placement.target
    args = contract.ModelArgs(
        node=placement.node,
        model_key=target.model.key,
        repo_id=target.model.repo_id,
        revision=target.model.revision,
        task=target.model.task,
        trust_remote_code=target.model.trust_remote_code,
        dtype=target.dtype,
        num_gpus=placement.num_gpus,
        memory_bytes=placement.memory_bytes,
        footprint_bytes=placement.footprint_bytes,
    )
    return {
        "name": application_name(target.model, placement.node),
        "route_prefix": None,
        "import_path": contract.MODEL_IMPORT_PATH,
        "logging_config": LOGGING,
        "args": args.model_dump(mode="json"),
        "deployments": [
            {
                "name": contract.MODEL_DEPLOYMENT,
                "num_replicas": placement.replicas,
                "graceful_shutdown_timeout_s": settings.drain_seconds,
                "user_config": contract.ModelConfig(reservations=target.reservations).model_dump(mode="json"),
            }
        ],
    }


def _arguments(app: Mapping[str, Any]) -> Mapping[str, Any]:
    arguments: Mapping[str, Any] = (app.get("deployed_app_config") or {}).get("args") or {}
    return arguments


def _why_unreadable(app: Mapping[str, Any]) -> str:
    arguments = _arguments(app)
    if arguments.get("marker") != contract.MARKER or arguments.get("kind") == "gateway":
        return ""
    try:
        _model_args(arguments)
    except ValidationError as error:
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
    return ""


def _model_args(arguments: Mapping[str, Any]) -> contract.ModelArgs:
    return contract.ModelArgs.model_validate(dict(arguments) | {"contract": contract.CONTRACT_VERSION})


def _is_ours(name: str, app: Mapping[str, Any]) -> bool:
    if _arguments(app).get("marker") == contract.MARKER:
        return not _why_unreadable(app)
    # An application that is being deleted has lost its arguments; its name must do.
    named = name == contract.GATEWAY_APPLICATION or name.startswith(contract.MODEL_APPLICATION_PREFIX)
    return named and app["status"] == "DELETING"


def _options(app: Mapping[str, Any], deployment: str) -> Mapping[str, Any]:
    listed: Iterable[Mapping[str, Any]] = (app.get("deployed_app_config") or {}).get("deployments") or ()
    return next((one for one in listed if one["name"] == deployment), {})


def _user_config(app: Mapping[str, Any], deployment: str) -> Mapping[str, Any]:
    config: Mapping[str, Any] = _options(app, deployment).get("user_config") or {}
    return config


def _deployment(name: str, app: Mapping[str, Any]) -> Deployment | None:
    arguments = _arguments(app)
    if arguments.get("kind") != "model" or app["status"] == "DELETING":
        return None
    args = _model_args(arguments)
    details = (app.get("deployments") or {}).get(contract.MODEL_DEPLOYMENT) or {}
    replicas = details.get("replicas") or ()
    reservations = _user_config(app, contract.MODEL_DEPLOYMENT).get("reservations") or ()
    return Deployment(
        application=name,
        model=Model(
            repo_id=args.repo_id,
            revision=args.revision,
            task=args.task,
            trust_remote_code=args.trust_remote_code,
        ),
        node=args.node,
        replicas=int(_options(app, contract.MODEL_DEPLOYMENT).get("num_replicas") or 1),
        num_gpus=args.num_gpus,
        memory_bytes=args.memory_bytes,
        footprint_bytes=args.footprint_bytes,
        dtype=args.dtype,
        reservations=tuple(reservations),
        contract_current=arguments.get("contract") == contract.CONTRACT_VERSION,
        status=STATUS.get(app["status"], DeploymentStatus.LOADING),
        message=app.get("message") or details.get("message") or "",
        ready_replicas=sum(replica.get("state") == "RUNNING" for replica in replicas),
        gave_up=app["status"] == "DEPLOY_FAILED",
        since=_moment(app.get("last_deployed_time_s")),
    )


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
