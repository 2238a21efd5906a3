"""Plans as text: the verdict first, then one line per object, removals first."""

from __future__ import annotations

from datetime import tzinfo

from rich.console import Console
from rich.markup import escape

from scheduler.cluster.node import DeviceKind
from scheduler.progress import Progress, Step
from scheduler.render.sentences import answer, gpus, moment, sentence, size
from scheduler.types import Action, ActionKind, Plan, Verdict, VerdictState

SYMBOLS = {
    ActionKind.UNDEPLOY: ("-", "red"),
    ActionKind.REBUILD: ("±", "yellow"),
    ActionKind.SCALE: ("~", "yellow"),
    ActionKind.DEPLOY: ("+", "green"),
    ActionKind.UPDATE: ("~", "yellow"),
    ActionKind.ROUTE: ("~", "yellow"),
}
UPCOMING_SHOWN = 10
NODES_SHOWN = 4


def summary(plan: Plan) -> str:
    """One line: what would change, and what cannot be met."""
    counts = [
        (ActionKind.UNDEPLOY, "to take down"),
        (ActionKind.REBUILD, "to rebuild"),
        (ActionKind.SCALE, "to scale"),
        (ActionKind.DEPLOY, "to deploy"),
        (ActionKind.UPDATE, "to update"),
    ]
    parts = [
        f"{n} {words}" for kind, words in counts if (n := sum(action.kind is kind for action in plan.actions))
    ]
    if not parts and plan.actions:
        parts = ["the gateway to update"]
    text = ", ".join(parts) if parts else "nothing to do"
    refused = len(plan.refused)
    bookings = "booking" if refused == 1 else "bookings"
    return text[0].upper() + text[1:] + (f"; {refused} {bookings} cannot be met" if refused else "") + "."


def show_plan(console: Console, plan: Plan, zone: tzinfo | None = None, *, dated: bool = False) -> None:
    """Print a plan. Every line about an object starts with its symbol at column 0.

    ``dated`` tells which instant it is for, where that is not the present.
    """
    if dated:
        console.print(f"As of {plan.at.astimezone(zone):%a %d %b %H:%M}, if nothing runs but what does now:")
    style = "yellow" if plan.refused else "bold"
    console.print(f"[{style}]{escape(summary(plan))}[/]")
    for action in plan.actions:
        _action(console, action, plan, zone)
    for drift in plan.drift:
        console.print(f"[red]! {escape(drift.model.name)}[/] on {escape(drift.node)} has failed")
        console.print(f"    {escape(first_line(drift.message))}", style="dim")
    for verdict in plan.refused:
        _refused(console, verdict, plan, zone)
    _kept(console, plan, zone)
    _coming(console, plan, zone)
    if plan.others:
        console.print(f"[dim]Left alone, not ours: {escape(', '.join(plan.others))}[/]")


def _action(console: Console, action: Action, plan: Plan, zone: tzinfo | None) -> None:
    symbol, style = SYMBOLS[action.kind]
    if action.model is None:
        console.print(f"[{style}]{symbol} gateway[/]  (because {escape(sentence(action.reason))})")
        return
    facts = [_takes(action)]
    if action.kind in (ActionKind.SCALE, ActionKind.REBUILD) and action.replicas != action.replicas_before:
        facts.append(f"replicas {action.replicas_before} -> {action.replicas}")
    elif max(action.replicas, action.replicas_before) > 1:
        facts.append(f"{action.replicas or action.replicas_before} replicas")
    if action.until:
        facts.append(f"until {moment(action.until, plan.at, zone)}")
    console.print(
        f"[{style}]{symbol} {escape(action.model.name)}[/] on {escape(action.node or '')}  "
        f"{escape(', '.join(facts))}  (because {escape(sentence(action.reason))})"
    )
    others = [one for one in action.considered if one.node != action.node]
    if action.kind is ActionKind.DEPLOY:
        for one in others[:NODES_SHOWN]:
            console.print(f"    [dim]not on {escape(answer(one))}[/]")


def _takes(action: Action) -> str:
    device = gpus(action.num_gpus) if action.num_gpus else "CPU"
    return f"{size(action.footprint_bytes)} on {device}"


def _refused(console: Console, verdict: Verdict, plan: Plan, zone: tzinfo | None) -> None:
    when = _window(verdict, plan, zone)
    what = "not understood" if verdict.state is VerdictState.MISUNDERSTOOD else "cannot be met"
    console.print(f"[yellow]! “{escape(verdict.title)}”[/] {when}{what}: {escape(sentence(verdict.reason))}.")
    if verdict.reason.remedy:
        lead = "For example: " if verdict.state is VerdictState.MISUNDERSTOOD else ""
        console.print(f"    {lead}{escape(verdict.reason.remedy)}")
    if verdict.earliest:
        console.print(f"    It would fit from {moment(verdict.earliest, plan.at, zone)} on.")
    for one in verdict.considered[:NODES_SHOWN]:
        console.print(f"    [dim]{escape(answer(one))}[/]")
    if len(verdict.considered) > NODES_SHOWN:
        console.print(f"    [dim]and {len(verdict.considered) - NODES_SHOWN} more nodes; --json has them[/]")


def _window(verdict: Verdict, plan: Plan, zone: tzinfo | None) -> str:
    if verdict.start is None or verdict.end is None:
        return ""
    return f"{moment(verdict.start, plan.at, zone)} to {moment(verdict.end, plan.at, zone)} "


def _kept(console: Console, plan: Plan, zone: tzinfo | None) -> None:
    changed = {(a.model.key, a.node) for a in plan.actions if a.model}
    for placement in plan.placements:
        if placement.identity not in changed:
            until = moment(placement.target.until, plan.at, zone)
            name, node = escape(placement.target.model.name), escape(placement.node)
            console.print(f"[dim]  {name} stays on {node} until {until}[/]")


def _coming(console: Console, plan: Plan, zone: tzinfo | None) -> None:
    coming = [v for v in plan.verdicts if v.state is VerdictState.COMING and v.start and not v.nodes]
    for verdict in coming[:UPCOMING_SHOWN]:
        name = verdict.model.name if verdict.model else verdict.title
        note = f" (waits for room: {', '.join(verdict.reason.by)})" if verdict.reason.by else ""
        console.print(f"[dim]  next: {_window(verdict, plan, zone)}{escape(name + note)}[/]")
    if len(coming) > UPCOMING_SHOWN:
        console.print(f"[dim]  and {len(coming) - UPCOMING_SHOWN} more bookings after that[/]")


def show_nodes(console: Console, plan: Plan) -> None:
    """Print what each node offers."""
    for node in plan.cluster.nodes:
        if not node.devices:
            console.print(f"  {escape(node.name)}: offers nothing, {escape(node.no_devices_because or '')}")
            continue
        kind = "CPU" if node.kind is DeviceKind.CPU else node.accelerator or "GPU"
        each = size(node.devices[0].memory_bytes)
        count = f"{len(node.devices)} x " if node.kind is DeviceKind.GPU else ""
        console.print(f"  {escape(node.name)}: {count}{escape(kind)} with {each}")


def first_line(message: str) -> str:
    """The line of an error that says most: its last, which is where Python puts the exception."""
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "Serve gave no message."


def progress_line(progress: Progress) -> tuple[str, str]:
    """What became of a model, as a log level and a line."""
    where = f"{progress.deployment.model.name} on {progress.deployment.node}"
    if progress.step is Step.LOADING:
        return (
            "INFO",
            f"Loading {where} ({progress.seconds:.0f} s)" if progress.seconds else f"Loading {where}",
        )
    if progress.step is Step.SERVING:
        took = f", {progress.seconds:.0f} s after loading began" if progress.seconds else ""
        return "SUCCESS", f"Serving {where}{took}"
    if progress.step is Step.FAILED:
        return "ERROR", f"{where} has failed: {first_line(progress.deployment.message)}"
    return "INFO", f"Gone: {where}"
