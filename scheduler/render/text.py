"""Plans as text: the verdict first, then one line per object, removals first."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, tzinfo
from heapq import merge
from operator import itemgetter

from rich.console import Console

from calendars.called import command
from scheduler.progress import ON_ITS_WAY, Progress, Step
from scheduler.render.plain import escape
from scheduler.render.refusals import (
    CANDIDATES,
    NODES_SHOWN,
    around,
    broken,
    late,
    lateness,
    node_lines,
    titles,
)
from scheduler.render.secrets import without_secrets
from scheduler.render.sentences import (
    answer,
    duration,
    gpus,
    listed,
    moment,
    offers,
    sentence,
    size,
    stopped,
)
from scheduler.types import (
    Action,
    ActionKind,
    Candidacy,
    NodeAnswer,
    Plan,
    ReasonCode,
    ReasonKind,
    Stay,
    Verdict,
    VerdictState,
)

SYMBOLS = {
    ActionKind.UNDEPLOY: ("-", "red"),
    ActionKind.REBUILD: ("±", "yellow"),
    ActionKind.SCALE: ("~", "yellow"),
    ActionKind.DEPLOY: ("+", "green"),
    ActionKind.UPDATE: ("~", "yellow"),
    ActionKind.ROUTE: ("~", "yellow"),
}
BUT = {
    Candidacy.TAKES_MORE: "takes more or larger GPUs",
    Candidacy.EMPTIER: "would break into more that is empty",
    Candidacy.ONLY_CPU: "has a CPU only",
}
UPCOMING_SHOWN = 10
REFUSED_SHOWN = 50
KEPT_SHOWN = 50


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
    troubles = ", ".join(_troubles(plan))
    return text[0].upper() + text[1:] + (f"; {troubles}" if troubles else "") + "."


def _troubles(plan: Plan) -> Iterator[str]:
    if refused := len(plan.refused):
        yield f"{refused} booking{'s' if refused > 1 else ''} cannot be met"
    if lost := len(broken(plan)):
        yield f"{lost} of them {'was' if lost == 1 else 'were'} promised"
    if delayed := len(late(plan)):
        yield f"{delayed} will be late"
    if failed := len(plan.drift):
        yield f"{failed} {'has' if failed == 1 else 'have'} failed"


def show_plan(
    console: Console, plan: Plan, zone: tzinfo | None = None, *, supposing: Sequence[str] = ()
) -> None:
    """Print a plan. Every line about an object starts with its symbol at column 0.

    ``supposing`` tells what it was made for, where that is not the present.
    """
    if supposing:
        console.print(f"Supposing that {escape(listed(tuple(supposing)))}:")
    troubled = plan.refused or late(plan) or plan.drift
    console.print(f"[{'yellow' if troubled else 'bold'}]{escape(summary(plan))}[/]")
    for action in plan.actions:
        _action(console, action, plan, zone)
    for verdict in plan.refused[:REFUSED_SHOWN]:
        _refused(console, verdict, plan, zone)
    if (more := len(plan.refused) - REFUSED_SHOWN) > 0:
        console.print(f"! and {more} more that cannot be met; --json has them")
    _half_explained(console, plan)
    for verdict in late(plan)[:REFUSED_SHOWN]:
        where = f"on {', '.join(verdict.nodes)} " if verdict.nodes else ""
        said = f"{where}{lateness(verdict, plan.upcoming, plan.at, zone)}"
        when = _window(verdict, plan, zone)
        console.print(f"[yellow]! “{escape(verdict.title)}”[/] {when}{escape(said)}.")
    _kept(console, plan, zone)
    _coming(console, plan, zone)
    _drift(console, plan)
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
    if action.done_by and action.done_by > plan.at:
        facts.append(f"to serve by {moment(action.done_by, plan.at, zone)}")
    if action.late_seconds > 0:
        facts.append(f"late by {duration(action.late_seconds)}")
    if action.until:
        facts.append(f"until {moment(action.until, plan.at, zone)}")
    console.print(
        f"[{style}]{symbol} {escape(action.model.name)}[/] on {escape(action.node or '')}  "
        f"{escape(', '.join(facts))}  (because {escape(sentence(action.reason))})"
    )
    if action.kind is ActionKind.DEPLOY:
        for line in _why_here(action, plan, zone):
            console.print(f"    [dim]{escape(line)}[/]")


def _why_here(action: Action, plan: Plan, zone: tzinfo | None) -> Iterator[str]:
    """What it leaves free on its node, the runner-up, and why the others would not do."""
    here = next((one for one in action.considered if one.node == action.node), None)
    others = [one for one in action.considered if one.node != action.node]
    if here and others:
        second = next((one for one in others if one.fits), None)
        also = f"runner-up: {_runner_up(second)}" if second else "no other node would do"
        yield f"on {action.node}, which is left with {offers(here)}; {also}"
    if len(action.candidates) > 1:
        counted = [f"{one.nodes:,} {CANDIDATES[one.candidacy]}" for one in action.candidates]
        yield f"of {sum(one.nodes for one in action.candidates):,} nodes: {', '.join(counted)}"
    wrong = [one for one in others if not one.fits]
    for one in wrong[:NODES_SHOWN]:
        yield f"not on {answer(one, plan.at, zone)}"
    if len(wrong) > NODES_SHOWN:
        yield f"nor on {len(wrong) - NODES_SHOWN} more; --json has them"


def _runner_up(node: NodeAnswer) -> str:
    because = f", where it {BUT[node.candidacy]}" if node.candidacy in BUT else ""
    return f"{node.node}, with {offers(node)}{because}"


def _takes(action: Action) -> str:
    device = gpus(action.num_gpus) if action.num_gpus else "CPU"
    return f"{size(action.footprint_bytes)} on {device}"


def _refused(console: Console, verdict: Verdict, plan: Plan, zone: tzinfo | None) -> None:
    when = _window(verdict, plan, zone)
    what = "not understood" if verdict.state is VerdictState.MISUNDERSTOOD else "cannot be met"
    console.print(
        f"[yellow]! “{escape(verdict.title)}”[/] {when}{what}: {escape(stopped(sentence(verdict.reason)))}"
    )
    if verdict.reason.remedy:
        lead = "For example: " if verdict.state is VerdictState.MISUNDERSTOOD else ""
        console.print(f"    {lead}{escape(verdict.reason.remedy)}")
    for line in around(verdict, plan.at, zone):
        console.print(f"    {escape(line)}")
    for line in node_lines(verdict, plan.at, zone):
        console.print(f"    [dim]{escape(line)}[/]")


def _half_explained(console: Console, plan: Plan) -> None:
    """How to hear more of the refusals that are too many to be explained whole."""
    waiting = (one for one in plan.refused if one.reason.kind is ReasonKind.LATER)
    if briefly := sum(one.refusal is None for one in waiting):
        whose = "one of them" if briefly == 1 else f"{briefly:,} of them"
        asked = command("plan --what-if BOOKING")
        console.print(f"[dim]  When {whose} would fit, and what is in the way, is told if asked: {asked}[/]")


def _drift(console: Console, plan: Plan) -> None:
    """What is not as it was asked for, under a heading of its own: no booking changed that."""
    if plan.drift:
        console.print("# Drift: what runs is not as it was asked for")
    for drift in plan.drift:
        console.print(f"[red]! {escape(drift.model.name)}[/] on {escape(drift.node)} has failed")
        console.print(f"    {escape(first_line(drift.message))}", style="dim")


def _window(verdict: Verdict, plan: Plan, zone: tzinfo | None) -> str:
    if verdict.start is None or verdict.end is None:
        return ""
    return f"{moment(verdict.start, plan.at, zone)} to {moment(verdict.end, plan.at, zone)} "


def _kept(console: Console, plan: Plan, zone: tzinfo | None) -> None:
    changed = {(a.model.key, a.node) for a in plan.actions if a.model}
    kept = [placement for placement in plan.placements if placement.identity not in changed]
    for placement in kept[:KEPT_SHOWN]:
        until = moment(placement.target.until, plan.at, zone)
        name, node = escape(placement.target.model.name), escape(placement.node)
        lingers = placement.reason.code is ReasonCode.LINGERS
        note = f" at most: {escape(sentence(placement.reason))}" if lingers else ""
        console.print(f"[dim]  {name} stays on {node} until {until}{note}[/]")
    if len(kept) > KEPT_SHOWN:
        console.print(f"[dim]  and {len(kept) - KEPT_SHOWN} more stay where they are[/]")


def _coming(console: Console, plan: Plan, zone: tzinfo | None) -> None:
    lines = [line for _, line in merge(_later_steps(plan, zone), _fewer(plan, zone), key=itemgetter(0))]
    lines += _later_bookings(plan, zone)
    for line in lines[:UPCOMING_SHOWN]:
        console.print(f"[dim]  next: {escape(line)}[/]")
    if len(lines) > UPCOMING_SHOWN:
        console.print(f"[dim]  and {len(lines) - UPCOMING_SHOWN} more after that; --json has them[/]")


def _later_steps(plan: Plan, zone: tzinfo | None) -> Iterator[tuple[datetime, str]]:
    for step in plan.upcoming:
        at = moment(step.at, plan.at, zone)
        name = f"{step.model.name} x {step.replicas}" if step.replicas > 1 else step.model.name
        if step.kind is ActionKind.UNDEPLOY:
            yield step.at, f"{at} - {name} leaves {step.node}"
            continue
        until = f" until {moment(step.until, plan.at, zone)}" if step.until else ""
        late_by = f", late by {duration(step.late_seconds)}" if step.late_seconds > 0 else ""
        room = f" ({titles(step.held_by)} in its room until {at})" if step.held_by else ""
        by = moment(step.done_by, plan.at, zone)
        yield step.at, f"{at} + {name} to {step.node}, to serve from {by}{until}{late_by}{room}"


def _fewer(plan: Plan, zone: tzinfo | None) -> Iterator[tuple[datetime, str]]:
    """The replicas that go where others of their model stay: no step of its own, the model goes on."""
    names = {one.model.key: one.model.name for one in plan.verdicts if one.model}
    stays: dict[tuple[str, str], list[Stay]] = defaultdict(list)
    for stay in plan.promises.stays:
        stays[stay.model, stay.node].append(stay)
    found: list[tuple[datetime, str]] = []
    for (model, node), group in stays.items():
        change = Counter(one.start for one in group)
        change.subtract(one.end for one in group)
        there = 0
        for at in sorted(change) if len(group) > 1 else ():
            before, there = there, there + change[at]
            if 0 < there < before and at > plan.at:
                words = f"~ {names.get(model, model)} on {node}, replicas {before} -> {there}"
                found.append((at, f"{moment(at, plan.at, zone)} {words}"))
    yield from sorted(found)


def _later_bookings(plan: Plan, zone: tzinfo | None) -> Iterator[str]:
    """The bookings to come that no step tells of."""
    told = {(step.model, title) for step in plan.upcoming for title in step.titles}
    for verdict in plan.verdicts:
        if verdict.state is not VerdictState.COMING or not verdict.start or verdict.nodes:
            continue
        if (verdict.model, verdict.title) in told:
            continue
        name = verdict.model.name if verdict.model else verdict.title
        note = f" (waits for room: {', '.join(verdict.reason.by)})" if verdict.reason.by else ""
        yield f"{_window(verdict, plan, zone)}{name}{note}"


def first_line(message: str) -> str:
    """The line of an error that says most, its last, where Python puts the exception; without secrets."""
    lines = [line.strip() for line in without_secrets(message).strip().splitlines() if line.strip()]
    return lines[-1] if lines else "Serve gave no message."


def progress_line(progress: Progress) -> tuple[str, str]:
    """What became of a model, as a log level and a line."""
    where = f"{progress.deployment.model.name} on {progress.deployment.node}"
    if progress.step in ON_ITS_WAY:
        known = [f"{progress.fraction:.0%}"] if progress.fraction else []
        known += [f"{progress.seconds:.0f} s"] if progress.seconds else []
        so_far = f" ({', '.join(known)})" if known else ""
        return "INFO", f"{progress.step.value.capitalize()} {where}{so_far}"
    if progress.step is Step.SERVING:
        took = f", {progress.seconds:.0f} s after loading began" if progress.seconds else ""
        return "SUCCESS", f"Serving {where}{took}"
    if progress.step is Step.FAILED:
        return "ERROR", f"{where} has failed: {first_line(progress.deployment.message)}"
    return "INFO", f"Gone: {where}"
