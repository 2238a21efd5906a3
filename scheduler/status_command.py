"""``ndif-ray status``: how everything is, once or again and again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import click
from rich.console import Console

from scheduler.controller import Controller
from scheduler.heartbeat import Heartbeat, last_beat
from scheduler.logutil.logger import set_up_logging
from scheduler.render.operation import show_heartbeat, show_orders
from scheduler.render.status import show_status, status_json
from scheduler.render.watch import keep_showing
from scheduler.settings import load_settings
from scheduler.state_lock import holder
from scheduler.types import Observed, Plan

out = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class _Look:
    """All there is to see; ``beat`` is what the daemon says of itself, None where none is at work."""

    plan: Plan
    observed: Observed
    gateway: tuple[str, str]
    daemon: int | None
    beat: Heartbeat | None


@click.command()
@click.option("--watch", is_flag=True, help="Keep showing it until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts, not text.")
def status(watch: bool, as_json: bool) -> None:
    """Show nodes, models, what is booked next, and whether a daemon is at work."""
    with _controller() as controller:
        url = controller.settings.serve.url
        if watch:
            keep_showing(out, lambda console: _show(controller, console))
        elif as_json:
            seen = _look(controller)
            shown = status_json(seen.plan, seen.observed, seen.gateway, seen.daemon, url)
            shown["daemon"] |= {"state": seen.beat.model_dump(mode="json") if seen.beat else None}
            out.out(json.dumps(shown))
        else:
            _show(controller, out)


def _show(controller: Controller, console: Console) -> None:
    seen, now = _look(controller), datetime.now(UTC)
    show_orders(console, tuple(one for one in controller.orders.orders if one.holds(now)), now)
    url = controller.settings.serve.url
    show_status(console, seen.plan, seen.observed, seen.gateway, seen.daemon, url)
    if seen.beat:
        show_heartbeat(console, seen.beat, now)


def _look(controller: Controller) -> _Look:
    now = datetime.now(UTC)
    controller.bookings.refresh(now)
    observed, state = controller.observe()
    plan = controller.plan(now, observed)
    folder = controller.settings.path(controller.settings.state_dir)
    daemon = holder(folder)
    return _Look(plan, observed, state.gateway_status, daemon, last_beat(folder) if daemon else None)


@contextmanager
def _controller() -> Iterator[Controller]:
    settings = load_settings()
    set_up_logging(settings.log.level)
    made = Controller(settings)
    try:
        yield made
    finally:
        made.close()
