"""What nnsight's own client asks besides its jobs: what serves, which packages, who one is."""

from __future__ import annotations

import asyncio
import json
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter

from serve_apps.contract import Route
from serve_apps.gateway.caller import current
from serve_apps.gateway.routing import AppState, Statuses, state_of

if TYPE_CHECKING:
    from serve_apps.gateway.http import Gateway

RAYS_OWN = "thirdparty_files"
STATES = {
    AppState.SERVING: "RUNNING",
    AppState.LOADING: "DEPLOYING",
    AppState.FAILED: "UNHEALTHY",
}


def nnsight_routes(gateway: Gateway) -> APIRouter:
    router = APIRouter()

    @router.get("/ping")
    async def ping() -> str:
        return "pong"

    @router.get("/connected")
    async def connected() -> dict[str, str]:
        return {"status": "connected"}

    @router.get("/whoami")
    async def whoami() -> dict[str, Any]:
        caller = current.get()
        return {"email": caller.mail, "tags": list(caller.tags)}

    @router.get("/env")
    async def env() -> dict[str, Any]:
        return {"python_version": sys.version, "packages": await asyncio.to_thread(installed_packages)}

    @router.get("/status")
    async def status() -> dict[str, Any]:
        statuses = await gateway.backend.statuses()
        deployments: dict[str, Any] = {}
        for route in gateway.table.open_to(current.get()):
            deployments |= _deployments(route, statuses)
        return {"deployments": deployments, "cluster": {}}

    return router


def _deployments(route: Route, statuses: Statuses) -> dict[str, Any]:
    """One entry for each replica of a model, as the client counts them."""
    named = json.loads(route.model_key.partition(":")[2])
    found = {}
    for application in route.applications:
        replicas = statuses[application].replicas if application in statuses else 1
        for number in range(replicas):
            replica_id = application if number == 0 else f"{application}-{number + 1}"
            found[replica_id] = {
                "application_state": STATES[state_of(application, statuses)],
                "deployment_level": "HOT",
                "model_key": route.model_key,
                "replica_id": replica_id,
                "repo_id": named.get("repo_id"),
                "task": named.get("task"),
                "revision": named.get("revision") or "main",
                "trust_remote_code": named.get("trust_remote_code", False),
            }
    return found


@cache
def installed_packages() -> dict[str, str]:
    """Versions by import name, or by its own name what imports nothing: as nnsight's ``compare()`` has them.

    Where several packages share an import name the last one listed counts, there as here. What Ray
    ships inside itself is Ray's business.
    """
    imports: dict[str, list[str]] = {}
    for import_name, packages in metadata.packages_distributions().items():
        for package in packages:
            imports.setdefault(package, []).append(import_name)
    return {
        name: distribution.version
        for distribution in metadata.distributions()
        if RAYS_OWN not in Path(str(distribution.locate_file(""))).parts
        for name in imports.get(distribution.metadata["Name"], [distribution.metadata["Name"]])
    }
