"""The state of the service, for people and for scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from rich.console import Console

from calendars.called import command
from scheduler.cluster.node import DeviceKind
from scheduler.render.memory import bar, held
from scheduler.render.plain import escape
from scheduler.render.refusals import around
from scheduler.render.sentences import duration, moment, sentence, size, stopped
from scheduler.render.text import first_line, summary
from scheduler.store.records import PromiseRecord
from scheduler.types import Deployment, DeploymentStatus, Observed, Plan, VerdictState

STYLES = {
    DeploymentStatus.SERVING: "green",
    DeploymentStatus.LOADING: "yellow",
    DeploymentStatus.FAILED: "red",
    DeploymentStatus.STOPPING: "dim",
}
REFUSED_SHOWN = 8
AROUND_SHOWN = 2
BROKEN_SHOWN = 5
PROMISES_HOURS = 24.0


def show_status(
    console: Console,
    plan: Plan,
    observed: Observed,
    gateway: tuple[str, str],
    daemon: int | None,
    url: str,
    page: str | None = None,
) -> None:
    """Print who works, what serves, what comes and what there is; ``page`` is where the daemon's page is."""
    start = f"[yellow]not running[/]: start it with {escape(command('local'))}"
    at_work = f"at work (process {daemon})" if daemon else start
    console.print(f"[bold]Daemon[/]   {at_work}")
    console.print(f"[bold]Gateway[/]  {url}  {_gateway(gateway)}")
    if daemon and page:
        console.print(f"[bold]Page[/]     {page}")
    console.print("[bold]Models[/]")
    until = {p.identity: p.target.until for p in plan.placements}
    for one in observed.deployments:
        end = until.get(one.identity)
        note = f"until {moment(end, plan.at)}" if end else "no longer booked"
        name = f"{escape(one.model.name)} on {escape(one.node)}"
        console.print(
            f"  [{STYLES[one.status]}]{one.status.value:8}[/] {name}, "
            f"{one.ready_replicas} of {one.replicas} replicas, {note}"
        )
        if one.status is DeploymentStatus.FAILED:
            console.print(f"    [dim]{escape(first_line(one.message))}[/]")
    if not observed.deployments:
        console.print("  none")
    console.print("[bold]Booked[/]")
    for verdict in plan.verdicts:
        if verdict.start and verdict.end:
            window = f"{moment(verdict.start, plan.at)} to {moment(verdict.end, plan.at)}"
            style = (
                "yellow" if verdict.state in (VerdictState.REFUSED, VerdictState.MISUNDERSTOOD) else "default"
            )
            console.print(f"  [{style}]{verdict.state.value:13}[/] {window}  {escape(verdict.title)}")
    if not plan.verdicts:
        console.print("  nothing")
    _cannot_be_met(console, plan)
    console.print("[bold]Nodes[/]")
    _nodes(console, observed)
    console.print(f"[bold]Plan[/]     {escape(summary(plan))}")


def show_promises(console: Console, promises: Sequence[PromiseRecord], at: datetime) -> None:
    """Print how many promises were kept, and name those that were not."""
    due = [one for one in promises if one.state in ("kept", "late", "broken") and one.start <= at]
    if not due:
        return
    states = Counter(one.state for one in due)
    others = [f"{states[state]} {state}" for state in ("late", "broken") if states[state]]
    console.print(
        f"[bold]Promises[/] {states['kept']} of {len(due)} kept in {PROMISES_HOURS:g} h"
        f"{''.join(f', {words}' for words in others)}"
    )
    for one in [one for one in due if one.state != "kept"][-BROKEN_SHOWN:]:
        why = one.broken_why or f"{duration(one.lateness_seconds or 0)} late."
        style = "red" if one.state == "broken" else "yellow"
        console.print(f"  [{style}]! “{escape(one.title)}”[/] {moment(one.start, at)}: {escape(why)}")


def _cannot_be_met(console: Console, plan: Plan) -> None:
    if plan.refused:
        console.print("[bold]Cannot be met[/]")
    for verdict in plan.refused[:REFUSED_SHOWN]:
        console.print(
            f"  [yellow]! “{escape(verdict.title)}”[/] {escape(stopped(sentence(verdict.reason)))}",
            soft_wrap=True,
        )
        for line in [*filter(None, [verdict.reason.remedy]), *islice(around(verdict, plan.at), AROUND_SHOWN)]:
            console.print(f"    {escape(line)}", soft_wrap=True)
    if (more := len(plan.refused) - REFUSED_SHOWN) > 0:
        console.print(f"  and {more} more; {command('plan')} has them")


def _nodes(console: Console, observed: Observed) -> None:
    width = max((len(node.name) for node in observed.cluster.nodes), default=0)
    for node in observed.cluster.nodes:
        name = escape(node.name.ljust(width))
        if not node.devices:
            console.print(f"  {name} offers nothing, {escape(node.no_devices_because or '')}")
            continue
        memory = held(node, observed.deployments)
        what = f"{len(node.devices)} x {node.accelerator or 'GPU'}" if node.kind is DeviceKind.GPU else "CPU"
        closed = ", emptied" if node.draining else ", takes nothing new" if node.cordoned else ""
        console.print(
            f"  {name} {bar(memory)} {size(memory.free)} free of {size(memory.total)}, "
            f"{escape(what)}[yellow]{closed}[/]"
        )


def status_json(
    plan: Plan, observed: Observed, gateway: tuple[str, str], daemon: int | None, url: str
) -> dict[str, Any]:
    """The same as data; times are ISO 8601 in UTC."""
    return {
        "daemon": {"running": daemon is not None, "pid": daemon},
        "gateway": {"url": url, "status": gateway[0], "message": gateway[1]},
        "models": [_model(one) for one in observed.deployments],
        "bookings": [verdict.model_dump(mode="json", exclude={"considered"}) for verdict in plan.verdicts],
        "nodes": [node.model_dump(mode="json") for node in observed.cluster.nodes],
        "summary": summary(plan),
    }


def _model(one: Deployment) -> dict[str, Any]:
    return one.model_dump(mode="json") | {"name": one.model.name, "model_key": one.model.key}


def _gateway(gateway: tuple[str, str]) -> str:
    status, message = gateway
    if status == "RUNNING":
        return "[green]up[/]"
    return f"[yellow]{status.lower()}[/] {escape(first_line(message)) if message else ''}".rstrip()
