"""``ndif-ray history``: what happened, and to whose booking."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import click
from rich.console import Console

from scheduler.number_option import Number
from scheduler.render.history import Past, history_json, show_history
from scheduler.settings import load_settings
from scheduler.store.history import FILE, reading

LONGEST_HOURS = 24 * 36_525
"""A hundred years."""

out = Console(highlight=False)


@click.command()
@click.argument("subject", metavar="[MODEL|EVENT]", required=False)
@click.option(
    "--hours", type=Number(0, LONGEST_HOURS), default=48, show_default=True, help="How far back to look."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts, not text.")
def history(subject: str | None, hours: float, as_json: bool) -> int:
    """Tell what became of bookings: promised, ready, late or broken, and why; and what was done.

    Without an argument everything; else what concerns a model (part of its name) or an event (its
    key, or part of its title). Exit code: 0, or 1 where nothing is known.
    """
    settings = load_settings()
    now = datetime.now(UTC)
    since = now - timedelta(hours=hours)
    with reading(settings.in_state_dir(FILE)) as found:
        past = Past(
            promises=tuple(found.promises(since)),
            changes=tuple(found.changes(since)),
            plans=tuple(found.plans(since)),
            manual=tuple(found.manual(since)),
            loads=tuple(found.load_times().values()),
        ).about(subject)
    if as_json:
        out.out(json.dumps(history_json(past)))
    else:
        show_history(out, past, subject, since, now)
    return 0 if past.anything else 1
