"""The verb ``local``: everything on this machine, with a demo model and a calendar to play with."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from calendars.called import command
from scheduler.errors import OperatorError
from scheduler.launch import ports
from scheduler.launch.runtime import RuntimeFile
from scheduler.launch.service import ending_quietly, head_running, new_console, run_daemon, settle_keys
from scheduler.launch.welcome import welcome
from scheduler.settings import Settings
from scheduler.state_lock import StateLock

DEMO_TITLE = "SmolLM2-135M-Instruct"
DEMO_HOURS = 8


def run_local(settings: Settings) -> int:
    """Prepare the demo, start Ray and run the daemon until Ctrl-C; then stop all that was started.

    Raises:
        OperatorError: the state directory is in use, the gateway would be open without anybody having a
            key, the demo model cannot be had, or Ray does not start. Nothing is left running.
    """
    console = new_console()
    with StateLock(settings), ending_quietly(console):
        RuntimeFile(settings.runtime_file).clear_leftovers()
        settle_keys(settings, console)
        prepare_demo(settings, console)
        settings = take_ports(settings, console)
        write_calendar(settings, console)
        with head_running(settings, console):
            run_daemon(settings, console, on_first_serving=partial(show_welcome, settings, console))
    return 0


def prepare_demo(settings: Settings, console: Console) -> None:
    """Have the demo model's weights in the cache the replicas load from, telling how far it is.

    Raises:
        OperatorError: they cannot be had.
    """
    # needed by this verb only
    from serve_apps.providers.demo_model import DemoModelError, prepare_demo_model

    said: set[str] = set()
    with console.status("Looking for the demo model") as status:

        def report(step: str, share: float | None) -> None:
            status.update(escape(step if share is None else f"{step} ({share:.0%})"))
            if step not in said:
                said.add(step)
                say(console, step)

        try:
            prepare_demo_model(settings.hub_cache, report)
        except DemoModelError as error:
            raise OperatorError(str(error), "Then start again.") from error


def take_ports(settings: Settings, console: Console) -> Settings:
    """The settings with free ports, telling which wanted ones were taken."""
    given = ports.settle(ports.wanted_ports(settings))
    for one in given:
        if one.moved:
            say(console, f"Port {one.wanted.port} is taken; {one.wanted.purpose} gets {one.port} instead.")
    return ports.with_ports(settings, given)


def write_calendar(settings: Settings, console: Console) -> None:
    """Write a calendar with one booking of the demo model from now, unless there is a calendar."""
    from calendars.ics import write_starter_calendar

    path = calendar_path(settings)
    if path is None:
        return
    if path.exists():
        say(console, f"The calendar {path} stays as you left it; delete it to get a fresh one.")
        if b"BEGIN:VEVENT" not in path.read_bytes():
            booking = command(f"calendar book {DEMO_TITLE} --from now --to +{DEMO_HOURS}h")
            say(console, f"Nothing is booked in it. From another terminal: {booking}")
        return
    now = datetime.now(UTC).replace(microsecond=0)
    end = now + timedelta(hours=DEMO_HOURS)
    try:
        write_starter_calendar(path, title=DEMO_TITLE, start=now, end=end, now=now)
    except OSError as error:
        raise OperatorError(
            f"The calendar cannot be written: {error}.",
            "Correct the folder's permissions, or set NDIF_CALENDAR__ICS to another place.",
        ) from error
    say(console, f"Wrote the calendar {path}: {DEMO_TITLE} is booked for {DEMO_HOURS} hours from now.")


def calendar_path(settings: Settings) -> Path | None:
    """The calendar's file, None if bookings come from elsewhere."""
    where = settings.ics_location
    return None if where is None or "://" in where else Path(where)


def show_welcome(settings: Settings, console: Console, model: str) -> None:
    """Tell what can be done now; called once, when the first model answers."""
    where = settings.ics_location or ", ".join(settings.google_calendar_ids)
    console.rule()
    hf_home = str(settings.hub_cache.parent)
    page = settings.web.url if settings.web.enabled else None
    say(console, welcome(settings.serve.url, model, where, hf_home, sys.executable, page))
    console.rule()


def say(console: Console, text: str) -> None:
    """Print text as it is: paths may hold brackets, and commands must not be wrapped."""
    console.print(text, markup=False, soft_wrap=True)
