"""The command line: ``ndif-ray``, or ``python -m scheduler``."""

from __future__ import annotations

import operator
import os
import shlex
import sys
import time
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from scheduler import order_commands
from scheduler.calendar_commands import calendar
from scheduler.controller import Controller, Stale
from scheduler.daemon import Daemon
from scheduler.errors import OperatorError
from scheduler.front_process import front_for
from scheduler.history_commands import history
from scheduler.keys_commands import keys
from scheduler.logutil.logger import set_up_logging
from scheduler.moments import parse_moment
from scheduler.progress import Follower, Step, settled
from scheduler.render.operation import show_orders
from scheduler.render.settings import rows, settings_markdown
from scheduler.render.text import progress_line, show_plan
from scheduler.settings import Settings, load_settings
from scheduler.state_lock import StateLock
from scheduler.status_command import status
from scheduler.types import DeploymentStatus, Plan

FOLLOW_SECONDS = 1.0
MAX_TRIES = 3


class Exit(IntEnum):
    """Exit codes of ``plan`` and ``apply``."""

    NOTHING_TO_DO = 0
    ERROR = 1
    CHANGES = 2
    CANNOT_BE_PLACED = 3


out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False)

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts, not text.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def app() -> None:
    """Book language models in a calendar; Ray Serve has them up when the event starts.

    Look before you leap with "plan", which changes nothing. Settings come from the environment,
    config/ray_config.yml and a running ./start.sh.
    """


app.add_command(calendar)
app.add_command(keys)
app.add_command(history)
app.add_command(status)
for command in order_commands.COMMANDS:
    app.add_command(command)


@app.command()
@click.option("--at", metavar="TIME", help="Plan for then: 14:00, 'tomorrow 14:00', +90m, 2026-12-24T14:00.")
@as_json_option
def plan(at: str | None, as_json: bool) -> Exit:
    """Show what would be done, and do nothing.

    Exit code: 0 nothing to do, 2 there are changes, 3 some booking cannot be met, 1 error.
    """
    with _controller() as controller:
        made = _plan(controller, at)
    if not as_json:
        now = datetime.now(UTC)
        show_orders(out, tuple(one for one in controller.orders.orders if one.holds(now)), now)
        if controller.held:
            err.print(escape(controller.held.words))
    _print(made, as_json, dated=at is not None)
    if made.refused:
        return Exit.CANNOT_BE_PLACED
    return Exit.CHANGES if made.actions else Exit.NOTHING_TO_DO


@app.command()
@click.option("--wait/--no-wait", default=True, show_default=True, help="Follow until everything serves.")
@click.option(
    "--timeout", type=click.FloatRange(1), default=1800, show_default=True, help="Seconds to follow."
)
@as_json_option
def apply(wait: bool, timeout: float, as_json: bool) -> Exit:
    """Make what runs equal to what is booked now, once.

    Exit code: 0 done, 3 some booking cannot be met, 1 error or a model failed to load.
    """
    with _controller() as controller, StateLock(controller.settings):
        made = _apply(controller, as_json)
        failed = _follow(controller, timeout) if wait else False
    if failed:
        return Exit.ERROR
    return Exit.CANNOT_BE_PLACED if made.refused else Exit.NOTHING_TO_DO


@app.command()
def run() -> None:
    """Keep what runs equal to what is booked, until stopped. What serves keeps serving afterwards."""
    settings = _settings()
    with StateLock(settings):
        Daemon(settings, front=front_for(settings)).run()


@app.command()
@click.option("--markdown", is_flag=True, help="Print the page docs/settings.md instead.")
def settings(markdown: bool) -> None:
    """Show every setting with its value now; set one by its environment name."""
    if markdown:
        out.out(settings_markdown(), end="")
        return
    tree = _settings()
    for row in rows():
        value = operator.attrgetter(row.path)(tree)
        note = f"{row.environment[-1]}: {row.meaning}"
        out.print(f"[bold]{row.path}[/] = {escape(str(value))}  [dim]{escape(note)}[/]")


@app.command()
def env() -> None:
    """Print what other programs need to reach this cluster: eval "$(./start.sh env)"."""
    from scheduler.launch.options import client_environment

    for name, value in client_environment(_settings()).items():
        out.out(f"export {name}={shlex.quote(value)}")


@app.command()
def local() -> int:
    """Start Ray, the demo model and the daemon on this machine; Ctrl-C stops them."""
    from scheduler.launch.local import run_local

    return run_local(_settings())


@app.command()
def head() -> int:
    """Start a cluster's head and the daemon in the foreground, as in a container."""
    from scheduler.launch.service import run_head

    return run_head(_settings())


@app.command()
@click.option("--address", metavar="HOST:PORT", help="The head to join; RAY_ADDRESS by default.")
def worker(address: str | None) -> int:
    """Start a worker that joins a head, in the foreground, as in a container."""
    from scheduler.launch.service import run_worker

    return run_worker(_settings(address))


class _controller:
    """A controller from the settings, closed on the way out."""

    def __enter__(self) -> Controller:
        self._made = Controller(_settings())
        return self._made

    def __exit__(self, *_: object) -> None:
        self._made.close()


def _settings(address: str | None = None) -> Settings:
    settings = load_settings(**({"ray": {"address": address}} if address else {}))
    set_up_logging(settings.log.level)
    return settings


def _plan(controller: Controller, at: str | None) -> Plan:
    now = datetime.now(UTC)
    moment = parse_moment(at, now.astimezone()) if at else now
    controller.bookings.refresh(now, moment)
    observed, _ = controller.observe()
    return controller.plan(moment, observed, now)


def _print(made: Plan, as_json: bool, *, dated: bool = False) -> None:
    if as_json:
        out.out(made.model_dump_json())
    else:
        show_plan(out, made, supposing=(f"it is {made.at.astimezone():%a %d %b %H:%M}",) if dated else ())


def _apply(controller: Controller, as_json: bool) -> Plan:
    for _ in range(MAX_TRIES):
        made = _plan(controller, None)
        try:
            if made.actions:
                controller.apply(made)
        except Stale:
            continue
        _print(made, as_json)
        return made
    raise OperatorError(
        f"What is deployed changed {MAX_TRIES} times while it was being planned for.",
        "Somebody else is deploying at the same time; try again when they are done.",
    )


def _follow(controller: Controller, timeout_seconds: float) -> bool:
    """Tell what becomes of everything on its way; returns whether something failed."""
    follower, ends_at = Follower(), time.monotonic() + timeout_seconds
    while time.monotonic() < ends_at:
        observed, state = controller.observe()
        for progress in follower.update(observed.deployments, time.monotonic()):
            if progress.seconds or progress.step is not Step.SERVING:
                err.print(escape(progress_line(progress)[1]))
        failed = any(one.status is DeploymentStatus.FAILED for one in observed.deployments)
        if settled(observed.deployments) and state.gateway_status[0] not in ("DEPLOYING", "NOT_STARTED"):
            return failed or state.gateway_status[0] == "DEPLOY_FAILED"
        time.sleep(FOLLOW_SECONDS)
    raise OperatorError(
        f"Not everything serves after {timeout_seconds:.0f} s.",
        "It may still come: look with ./start.sh status, and into Ray's dashboard for what Serve waits for.",
    )


def main() -> None:
    """Run the command line; problems a person can solve are one paragraph, without a traceback."""
    os.chdir(Path(__file__).resolve().parent.parent)
    try:
        code = app.main(standalone_mode=False, prog_name="ndif-ray")
    except OperatorError as problem:
        err.print(f"[red]Error:[/] {escape(problem.reason)}\n{escape(problem.remedy)}")
        code = Exit.ERROR
    except click.ClickException as problem:
        problem.show()
        code = Exit.ERROR
    except (KeyboardInterrupt, click.Abort):
        err.print("Stopped.")
        code = 130
    sys.exit(int(code or 0))


if __name__ == "__main__":
    main()
