"""The state of the service, for people and for scripts."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape

from scheduler.render.sentences import moment
from scheduler.render.text import first_line, show_nodes, summary
from scheduler.types import Deployment, DeploymentStatus, Observed, Plan, VerdictState

STYLES = {
    DeploymentStatus.SERVING: "green",
    DeploymentStatus.LOADING: "yellow",
    DeploymentStatus.FAILED: "red",
    DeploymentStatus.STOPPING: "dim",
}


def show_status(
    console: Console, plan: Plan, observed: Observed, gateway: tuple[str, str], daemon: int | None, url: str
) -> None:
    """Print who works, what serves, what comes and what there is."""
    at_work = f"at work (process {daemon})" if daemon else "[yellow]not running[/]: start it with ./start.sh"
    console.print(f"[bold]Daemon[/]   {at_work}")
    console.print(f"[bold]Gateway[/]  {url}  {_gateway(gateway)}")
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
    console.print("[bold]Nodes[/]")
    show_nodes(console, plan)
    console.print(f"[bold]Plan[/]     {summary(plan)}")


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
