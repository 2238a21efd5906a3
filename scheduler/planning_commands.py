"""``ndif-ray plan`` and ``ndif-ray apply``: what would be done, what if, and doing it once."""

from __future__ import annotations

import json
import shlex
import time
from enum import IntEnum
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from calendars.called import command
from scheduler.controller import Controller, Stale
from scheduler.decisions import Difference, differences
from scheduler.errors import OperatorError
from scheduler.number_option import Number
from scheduler.plan_desk import LONGEST_HORIZON_DAYS, Asked, Planner, Question, ask, planner, read_settings
from scheduler.progress import Follower, Step, settled
from scheduler.render.differences import differences_json, show_differences
from scheduler.render.operation import show_orders
from scheduler.render.plain import escape
from scheduler.render.schema import plan_schema_text
from scheduler.render.secrets import plan_without_secrets
from scheduler.render.text import progress_line, show_plan
from scheduler.render.timeline import show_timeline
from scheduler.render.what_if import answer_json, show_answer
from scheduler.saved_plans import read_plan, write_plan
from scheduler.state_lock import StateLock, holder
from scheduler.types import DeploymentStatus, Plan
from scheduler.what_if import Answer

FOLLOW_SECONDS = 1.0
MAX_TRIES = 3


class Exit(IntEnum):
    """Exit codes of ``plan`` and ``apply``."""

    NOTHING_TO_DO = 0
    ERROR = 1
    CHANGES = 2
    CANNOT_BE_PLACED = 3
    DECISIONS_CHANGED = 4


out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False)

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts, not text.")


@click.command()
@click.option("--at", metavar="TIME", help="Plan for then: 14:00, 'tomorrow 14:00', +90m, 2026-12-24T14:00.")
@click.option(
    "--horizon",
    "horizon_days",
    type=Number(min=0, max=LONGEST_HORIZON_DAYS, min_open=True),
    metavar="DAYS",
    help="How far ahead bookings are read and judged; calendar.horizon_days by default.",
)
@click.option(
    "--without-node",
    "without_nodes",
    multiple=True,
    metavar="NAME",
    help="As if this node were gone; repeatable.",
)
@click.option("--what-if", metavar="BOOKING", help="Would this booking fit, where, when? Books nothing.")
@click.option("--quick", is_flag=True, help="Do not wait for the exact solver's opinion of refusals.")
@click.option("--timeline", is_flag=True, help="Draw the next hours: a row per node, a bar per booking.")
@click.option(
    "--hours",
    type=Number(min=1, max=24 * LONGEST_HORIZON_DAYS),
    metavar="N",
    help="How many hours --timeline draws; 24 by default.",
)
@click.option(
    "--out",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Keep the plan, for “apply FILE”.",
)
@click.option("--schema", is_flag=True, help="Print the JSON schema of plans, and nothing else.")
@as_json_option
@click.pass_obj
def plan(
    folder: Path | None,
    /,
    timeline: bool,
    hours: float | None,
    file: Path | None,
    schema: bool,
    as_json: bool,
    **asked: Any,
) -> Exit:
    """Show what would be done, and do nothing.

    The first line is the verdict. Then one line for each thing that changes, removals first, with its
    symbol at column 0: "-" is taken down, "±" rebuilt, "~" changed, "+" deployed, "!" cannot be met,
    will be late, or has failed. Each says why.

    \b
    Examples
      plan                                  what would be done now
      plan --at "tomorrow 14:00"            ... and then
      plan --timeline --hours 48            the next two days, node by node
      plan --without-node gpu-a             what if gpu-a breaks down?
      plan --what-if "Llama-70B 8xH100 tomorrow 14:00-18:00"
      plan --what-if "llama-8b, replicas: 2 friday 9:00 for 3h"
      plan --what-if "llama-8b friday 9:00 for 3h by ada@example.org"
      plan --out plan.json                  look at it; then do exactly this, or nothing:
      apply plan.json
      plan --json | jq .verdicts            everything, as docs/plan.schema.json describes it

    \b
    Exit code
      0  nothing to do; with --what-if: it fits
      2  there are changes
      3  some booking cannot be met, whether or not there are changes
      1  error; with --what-if also: it is not known yet
    """
    if schema:
        out.out(plan_schema_text(), end="")
        return Exit.NOTHING_TO_DO
    question = Question(**asked)
    if file and not question.is_plain:
        raise click.UsageError(
            "--out keeps plans that can be applied, so it goes with the present only: leave --at, --horizon, "
            "--without-node and --what-if out, or keep what --json prints."
        )
    asking = ask(question)
    if asking.answer:
        return _answered(asking.answer, asking, as_json)
    if file:
        file = (folder or Path()) / file
        write_plan(asking.plan, file)
    _print(asking, as_json, (hours or 24) if timeline or hours else None)
    if file and not as_json:
        out.print(escape(_kept(file)))
    if asking.plan.refused:
        return Exit.CANNOT_BE_PLACED
    return Exit.CHANGES if asking.plan.actions else Exit.NOTHING_TO_DO


@click.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Follow until everything serves.")
@click.option("--timeout", type=Number(1), default=1800, show_default=True, help="Seconds to follow.")
@as_json_option
@click.pass_obj
def apply(folder: Path | None, /, file: Path | None, wait: bool, timeout: float, as_json: bool) -> Exit:
    """Make what runs equal to what is booked now, once.

    With FILE, which "plan --out FILE" wrote, only if the decisions are still those in it: the same
    models on the same nodes, nothing else taken down, no other booking refused. Where they are not, the
    difference is shown and nothing is done. Times and figures may have moved, and what was carried out
    since is no difference.

    \b
    Examples
      apply                                 do what "plan" shows
      apply plan.json                       do what plan.json says, or nothing
      apply --no-wait                       do not wait until everything serves

    \b
    Exit code
      0  done
      3  done, but some booking cannot be met
      4  nothing done: the decisions are not those in FILE any more
      1  error, or a model failed to load
    """
    file = (folder or Path()) / file if file else None
    then = read_plan(file) if file else None
    with planner(read_settings()) as desk, StateLock(desk.controller.settings):
        made, changed = _apply(desk, then)
        if changed:
            _refuse(changed, file, then, as_json)
            return Exit.DECISIONS_CHANGED
        _print(Asked(made), as_json)
        failed = _follow(desk.controller, timeout) if wait else False
    if failed:
        return Exit.ERROR
    return Exit.CANNOT_BE_PLACED if made.refused else Exit.NOTHING_TO_DO


def _kept(file: Path) -> str:
    settings = read_settings()
    daemon = holder(settings.path(settings.state_dir))
    if daemon:
        return (
            f"Kept in {file}, to be looked at: the daemon at work here (process {daemon}) does by itself "
            "what is booked, and “apply” refuses beside it."
        )
    does = command(f"apply {shlex.quote(str(file))}")
    return f"Kept in {file}. This does exactly that, or nothing: {does}"


def _print(asked: Asked, as_json: bool, hours: float | None = None) -> None:
    if as_json:
        out.out(plan_without_secrets(asked.plan).model_dump_json())
        return
    show_orders(out, asked.orders, asked.plan.at)
    if asked.held:
        err.print(escape(asked.held))
    if hours is not None:
        show_timeline(out, asked.plan, hours, supposing=asked.supposing)
    else:
        show_plan(out, asked.plan, supposing=asked.supposing)


def _answered(found: Answer, asked: Asked, as_json: bool) -> Exit:
    if as_json:
        out.out(
            json.dumps(answer_json(found.verdict, found.fits, found.nodes, found.affected, found.command))
        )
    else:
        if asked.supposing:
            out.print(f"Supposing that {escape(' and '.join(asked.supposing))}:")
        about = (found.verdict, found.fits, found.nodes, found.affected)
        show_answer(out, *about, asked.plan, found.command)
    if found.fits is None:
        return Exit.ERROR
    return Exit.NOTHING_TO_DO if found.fits else Exit.CANNOT_BE_PLACED


# Doing


def _apply(desk: Planner, then: Plan | None) -> tuple[Plan, tuple[Difference, ...]]:
    """Plan and carry it out, unless its decisions differ from those of an earlier plan."""
    for _ in range(MAX_TRIES):
        made = desk.plan_now()
        changed = differences(then, made) if then else ()
        if changed:
            return made, changed
        try:
            desk.controller.keep_promises(made)  # before it is acted on, as the daemon does
            if made.actions:
                desk.controller.apply(made)
        except Stale:
            continue
        return made, ()
    raise OperatorError(
        f"What is deployed changed {MAX_TRIES} times while it was being planned for.",
        "Somebody else is deploying at the same time; try again when they are done.",
    )


def _refuse(changed: tuple[Difference, ...], file: Path | None, then: Plan | None, as_json: bool) -> None:
    if as_json:
        out.out(json.dumps(differences_json(changed)))
        return
    made = f"{then.at.astimezone():%a %d %b %H:%M}" if then else ""
    out.print(
        f"[yellow]Nothing was done: since {escape(str(file))} was made, {made}, decisions have changed.[/]"
    )
    show_differences(out, changed)
    out.print(f"Look again, and keep the new plan: {escape(command(f'plan --out {shlex.quote(str(file))}'))}")


def _follow(ours: Controller, timeout_seconds: float) -> bool:
    """Tell what becomes of everything on its way; returns whether something failed."""
    follower, ends_at = Follower(), time.monotonic() + timeout_seconds
    while time.monotonic() < ends_at:
        observed, state = ours.observe()
        for progress in follower.update(observed.deployments, time.monotonic()):
            if progress.seconds or progress.step is not Step.SERVING:
                err.print(escape(progress_line(progress)[1]))
        failed = any(one.status is DeploymentStatus.FAILED for one in observed.deployments)
        if settled(observed.deployments) and state.gateway_status[0] not in ("DEPLOYING", "NOT_STARTED"):
            return failed or state.gateway_status[0] == "DEPLOY_FAILED"
        time.sleep(FOLLOW_SECONDS)
    raise OperatorError(
        f"Not everything serves after {timeout_seconds:.0f} s.",
        f"It may still come: look with {command('status')}, and into Ray's dashboard for what is waited for.",
    )
