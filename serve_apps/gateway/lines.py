"""How long the gateway's lines are, told every second: Ray forgets what is not told again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING

from serve_apps.gateway import jobs_table, replicas_table
from serve_apps.gateway.routing import RoutingTable
from serve_apps.telemetry.labels import UNKNOWN

if TYPE_CHECKING:
    from serve_apps.gateway.http import Gateway

logger = logging.getLogger("ray.serve")

TELL_SECONDS = 1.0
RECENT_SECONDS = 3600.0


async def tell_lines(gateway: Gateway) -> None:
    """Tells the gateway's meter, until cancelled."""
    while True:
        try:
            await tell_once(gateway)
        except Exception:
            logger.exception("the lengths of the lines could not be told")
        await asyncio.sleep(TELL_SECONDS)


async def tell_once(gateway: Gateway) -> None:
    """Tells what waits and runs now. Jobs wait for any replica: only one of them tells of those."""
    desk, label = gateway.desk, gateway.label
    models = models_by_application(gateway.table)
    waiting: Counter[tuple[str, str]] = Counter()
    running: Counter[tuple[str, str]] = Counter()
    for application, (outside, inside) in gateway.gate.lines.items():
        model = models.get(application, UNKNOWN)
        waiting[model, "completion"] += outside
        running[model, "completion"] += inside
    for model_key in list(desk.models_running.values()):
        running[label(model_key), "job"] += 1
    users: int | None = None
    replicas = await desk.database.run(replicas_table.replicas)
    if desk.replica == min((one.id for one in replicas), default=desk.replica):
        for model_key, number in await desk.database.run(jobs_table.lines):
            waiting[label(model_key), "job"] += number
        users = await desk.database.run(replicas_table.users_since, time.time() - RECENT_SECONDS)
    gateway.meter.lines(waiting, running)
    gateway.meter.people(len(desk.sessions), users)


def models_by_application(table: RoutingTable) -> dict[str, str]:
    """The label of each application's model."""
    return {application: route.names[0] for route in table.routes for application in route.applications}
