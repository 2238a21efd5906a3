"""``ndif-ray status``: how everything is, once or again and again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import click
from loguru import logger
from rich.console import Console

from scheduler.controller import Controller
from scheduler.errors import OperatorError
from scheduler.heartbeat import Heartbeat, last_beat
from scheduler.logutil.logger import set_up_logging
from scheduler.render.operation import show_heartbeat, show_orders
from scheduler.render.status import PROMISES_HOURS, show_promises, show_status, status_json
from scheduler.render.timeline import NARROWEST, timeline
from scheduler.render.watch import keep_showing
from scheduler.settings import Settings, load_settings
from scheduler.state_lock import holder
from scheduler.store.history import FILE, reading
from scheduler.store.records import PromiseRecord
from scheduler.types import Observed, Plan

HOURS_DRAWN = 24.0
out = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class _Look:
    """All there is to see; ``beat`` is what the daemon says of itself, None where none is at work."""

    plan: Plan
    observed: Observed
    gateway: tuple[str, str]
    daemon: int | None
    beat: Heartbeat | None
    promises: tuple[PromiseRecord, ...]


@click.command()
@click.option("--watch", is_flag=True, help="Keep showing it until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts, not text.")
def status(watch: bool, as_json: bool) -> None:
    """Show nodes, models, what is booked next, and whether a daemon is at work."""
    with _controller() as controller:
        url = controller.settings.serve.url
        if watch:
            keep_showing(out, lambda console: _show(controller, console, hours=HOURS_DRAWN))
        elif as_json:
            seen = _look(controller)
            shown = status_json(seen.plan, seen.observed, seen.gateway, seen.daemon, url)
            shown["daemon"] |= {"state": seen.beat.model_dump(mode="json") if seen.beat else None}
            shown["promises"] = [one.model_dump(mode="json") for one in seen.promises]
            out.out(json.dumps(shown))
        else:
            _show(controller, out)


def _show(controller: Controller, console: Console, hours: float = 0) -> None:
    """Print it; ``hours`` to come are drawn as well."""
    seen, now = _look(controller), datetime.now(UTC)
    show_orders(console, tuple(one for one in controller.orders.orders if one.holds(now)), now)
    url = controller.settings.serve.url
    if seen.beat:
        show_heartbeat(console, seen.beat, now)
    page = controller.settings.web.url if controller.settings.web.enabled else None
    show_status(console, seen.plan, seen.observed, seen.gateway, seen.daemon, url, page)
    show_promises(console, seen.promises, now)
    if hours:
        for line in timeline(seen.plan, hours, max(NARROWEST, console.width)):
            console.print(line, no_wrap=True, crop=True)


def _look(controller: Controller) -> _Look:
    now = datetime.now(UTC)
    _refresh(controller, now)
    observed, state = controller.observe()
    plan = controller.plan(now, observed)
    folder = controller.settings.path(controller.settings.state_dir)
    daemon = holder(folder)
    beat = last_beat(folder) if daemon else None
    return _Look(plan, observed, state.gateway_status, daemon, beat, _promises(controller.settings, now))


def _refresh(controller: Controller, now: datetime) -> None:
    """Read the calendars, but no more often than the daemon does: each reading counts against a quota."""
    interval = timedelta(seconds=controller.settings.calendar.check_interval_seconds)
    read_at = controller.bookings.read_at
    known = [read_at.get(source.name) for source in controller.bookings.sources]
    if not all(known) or any(one is not None and now - one >= interval for one in known):
        controller.bookings.refresh(now)


def _promises(settings: Settings, now: datetime) -> tuple[PromiseRecord, ...]:
    """What came of the promises of the past day; nothing where the history cannot be read."""
    try:
        with reading(settings.in_state_dir(FILE)) as history:
            return tuple(history.promises(now - timedelta(hours=PROMISES_HOURS)))
    except OperatorError as problem:
        logger.debug("{}", problem)
        return ()


@contextmanager
def _controller() -> Iterator[Controller]:
    settings = load_settings()
    set_up_logging(settings.log.level)
    made = Controller(settings)
    try:
        yield made
    finally:
        made.close()
