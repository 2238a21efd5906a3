"""The command line: ``ndif-ray``, or ``python -m scheduler``."""

from __future__ import annotations

import operator
import os
import shlex
import sys
from pathlib import Path

import click
from rich.console import Console

from calendars.called import command
from scheduler import order_commands
from scheduler.calendar_commands import calendar
from scheduler.errors import OperatorError
from scheduler.history_commands import history
from scheduler.keys_commands import keys
from scheduler.plan_desk import read_settings
from scheduler.planning_commands import Exit, apply, plan
from scheduler.render.plain import escape, escape_lines
from scheduler.render.settings import rows, settings_markdown
from scheduler.state_lock import StateLock
from scheduler.status_command import status

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def app() -> None:
    """Book language models in a calendar; Ray Serve has them up when the event starts.

    Look before you leap with "plan", which changes nothing. Settings come from the environment,
    config/ray_config.yml and a running ./start.sh.
    """


app.add_command(plan)
app.add_command(apply)
app.add_command(calendar)
app.add_command(keys)
app.add_command(history)
app.add_command(status)
for order in order_commands.COMMANDS:
    app.add_command(order)


@app.command()
def run() -> None:
    """Keep what runs equal to what is booked, until stopped. What serves keeps serving afterwards."""
    from scheduler.launch.service import new_console, run_daemon

    settings = read_settings()
    with StateLock(settings):
        run_daemon(settings, new_console(), began_the_cluster=False)


@app.command()
@click.option("--markdown", is_flag=True, help="Print the page docs/settings.md instead.")
def settings(markdown: bool) -> None:
    """Show every setting with its value now; set one by its environment name."""
    if markdown:
        out.out(settings_markdown(), end="")
        return
    tree = read_settings()
    for row in rows():
        value = operator.attrgetter(row.path)(tree)
        note = f"{row.environment[-1]}: {row.meaning}"
        out.print(f"[bold]{row.path}[/] = {escape(str(value))}  [dim]{escape(note)}[/]")


@app.command()
def env() -> None:
    """Print what other programs need to reach this cluster: eval "$(./start.sh env)"."""
    from scheduler.launch.options import client_environment

    for name, value in client_environment(read_settings()).items():
        out.out(f"export {name}={shlex.quote(value)}")


@app.command()
def local() -> int:
    """Start Ray, the demo model and the daemon on this machine; Ctrl-C stops them."""
    from scheduler.launch.local import run_local

    return run_local(read_settings())


@app.command()
def head() -> int:
    """Start a cluster's head and the daemon in the foreground, as in a container."""
    from scheduler.launch.service import run_head

    return run_head(read_settings())


@app.command()
@click.option("--address", metavar="HOST:PORT", help="The head to join; RAY_ADDRESS by default.")
def worker(address: str | None) -> int:
    """Start a worker that joins a head, in the foreground, as in a container."""
    from scheduler.launch.service import run_worker

    return run_worker(read_settings(address))


def _folder() -> Path | None:
    """Where the command was given, which names of files go by; None where that folder is gone."""
    try:
        return Path.cwd()
    except OSError:
        return None


def main() -> None:
    """Run the command line; problems a person can solve are one paragraph, without a traceback."""
    started_in = _folder()
    os.chdir(Path(__file__).resolve().parent.parent)
    try:
        code = app.main(standalone_mode=False, prog_name=command(), obj=started_in)
    except OperatorError as problem:
        err.print(f"[red]Error:[/] {escape_lines(problem.reason)}\n{escape_lines(problem.remedy)}")
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
