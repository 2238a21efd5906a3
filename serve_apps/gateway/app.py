"""Builds the gateway's Serve application: ``import_path`` is ``serve_apps.gateway.app:build``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from serve_apps.contract import GATEWAY_DEPLOYMENT, GatewayArgs, GatewayConfig
from serve_apps.gateway.backend import ServeBackend
from serve_apps.gateway.http import Gateway, make_app
from serve_apps.gateway.metrics import RayMeter
from serve_apps.telemetry.influx import Points, saved_server
from serve_apps.telemetry.logs import ship_logs

logger = logging.getLogger("ray.serve")

HEAD_RESOURCE = "node:__internal_head__"
MAX_ONGOING_REQUESTS = 1000
"""Open streams and websockets count too, and cost next to nothing while they wait."""


class GatewayReplica:
    """One of the gateway's replicas, which are all alike: what they must agree on is on their disk."""

    def __init__(self, args: dict[str, Any]) -> None:
        checked = GatewayArgs.model_validate(args)
        ship_logs("gateway")
        meter = RayMeter(_points(checked))
        self._gateway = Gateway(checked, ServeBackend(checked.deadline_seconds), meter=meter)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return make_app(self._gateway)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Swaps the routing table. Never raises, since Serve kills a replica whose reconfigure does."""
        try:
            self._gateway.reconfigure(GatewayConfig.model_validate(user_config))
        except ValueError:
            logger.exception("the routing table was not understood; the last one stays")


def _points(args: GatewayArgs) -> Points | None:
    """The way to InfluxDB, where the daemon left word of one."""
    try:
        server = saved_server(Path(args.state_dir)) if args.state_dir is not None else None
    except (ValueError, OSError):
        logger.exception("no points are written")
        return None
    return None if server is None else Points(server, on_problem=_tell)


def _tell(problem: str) -> None:
    if problem:
        logger.warning("points cannot be written (%s); nothing waits for it", problem)
    else:
        logger.info("points can be written again")


def build(args: dict[str, Any]) -> Application:
    """The application for ``GatewayArgs``. Raises pydantic's ``ValidationError``.

    The number of replicas stands in Serve's config, so that changing it restarts none.
    """
    checked = GatewayArgs.model_validate(args)
    deployment = serve.deployment(serve.ingress()(GatewayReplica)).options(
        name=GATEWAY_DEPLOYMENT,
        # On the head, where their common folder is. A resource that Ray gives its head alone, since a
        # label would be another's to name.
        ray_actor_options={"num_cpus": 0, "resources": {HEAD_RESOURCE: 0.001}},
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        health_check_period_s=5,
        health_check_timeout_s=30,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=5,
    )
    return deployment.bind(checked.model_dump(mode="json"))
