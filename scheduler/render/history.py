"""The past as tables and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from scheduler.render.plain import escape
from scheduler.render.sentences import moment
from scheduler.store.records import Change, LoadTime, ManualRecord, PlanRecord, PromiseRecord

STYLES = {"kept": "green", "late": "yellow", "broken": "red", "waiting": "default", "withdrawn": "dim"}


@dataclass(frozen=True)
class Past:
    """What is known of a stretch of time."""

    promises: tuple[PromiseRecord, ...] = ()
    changes: tuple[Change, ...] = ()
    plans: tuple[PlanRecord, ...] = ()
    manual: tuple[ManualRecord, ...] = ()
    loads: tuple[LoadTime, ...] = ()

    @property
    def anything(self) -> bool:
        """Whether anything is known at all."""
        return bool(self.promises or self.changes or self.plans or self.manual or self.loads)

    def about(self, subject: str | None) -> Past:
        """What concerns a model, by part of its name, or an event, by its key or part of its title."""
        if subject is None:
            return self
        wanted = subject.lower()

        def meant(*words: str) -> bool:
            return any(wanted in word.lower() for word in words)

        return replace(
            self,
            promises=tuple(one for one in self.promises if meant(one.event, one.title, one.model)),
            changes=tuple(one for one in self.changes if meant(one.event, one.title, one.model)),
            plans=tuple(one for one in self.plans if meant(*one.actions)),
            manual=tuple(one for one in self.manual if meant(one.subject)),
            loads=tuple(one for one in self.loads if meant(one.model_key)),
        )


def show_history(console: Console, past: Past, subject: str | None, since: datetime, now: datetime) -> None:
    """Print what became of bookings first, then what was said and done, then how long loading takes."""
    if not past.anything:
        about = f" about “{escape(subject)}”" if subject else ""
        console.print(f"Nothing is known{about} since {moment(since, now)}.")
        return
    if past.promises:
        console.print(_promises(past.promises, now))
    if past.changes or past.plans or past.manual:
        console.print(_events(past, now))
    if past.loads:
        console.print(_loads(past.loads))


def history_json(past: Past) -> dict[str, Any]:
    """The same as data; times are ISO 8601 in UTC."""
    return {
        "promises": [one.model_dump(mode="json") for one in past.promises],
        "changes": [one.model_dump(mode="json") for one in past.changes],
        "plans": [one.model_dump(mode="json") for one in past.plans],
        "manual": [one.model_dump(mode="json") for one in past.manual],
        "load_times": [one.model_dump(mode="json") for one in past.loads],
    }


def _promises(promises: tuple[PromiseRecord, ...], now: datetime) -> Table:
    table = Table(
        "booking", "model", "booked for", "ready", "came of it", title="Bookings", title_justify="left"
    )
    for one in promises:
        table.add_row(
            escape(one.title),
            escape(one.model),
            f"{moment(one.start, now)} to {moment(one.end, now)}",
            moment(one.ready_at, now) if one.ready_at else "",
            f"[{STYLES[one.state]}]{escape(_came_of(one))}[/]",
        )
    return table


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=title, title_justify="left")


def _came_of(one: PromiseRecord) -> str:
    if one.state == "broken":
        return f"broken: {one.broken_why or 'nobody knows why'}"
    if one.state == "late":
        return f"late by {_length(one.lateness_seconds or 0)}"
    return one.state


def _length(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _events(past: Past, now: datetime) -> Table:
    table = _table("What was said and done", "when", "what", "")
    rows: list[tuple[datetime, str, str]] = [
        (one.at, f"“{one.title or one.event}” {one.state}", one.text) for one in past.changes
    ]
    rows += [
        (one.at, f"plan {one.outcome}", "; ".join(filter(None, (*one.actions, one.detail))) or one.summary)
        for one in past.plans
    ]
    rows += [
        (one.at, f"{one.kind} {one.subject}".strip(), f"ordered by {one.by}" if one.by else "")
        for one in past.manual
    ]
    for at, what, more in sorted(rows):
        table.add_row(f"{moment(at, now)}{at.astimezone()::%S}", escape(what), escape(more))
    return table


def _loads(loads: tuple[LoadTime, ...]) -> Table:
    table = Table(
        "model", "on", "from", "loads", "typical", "95 %", "last", title="Loading", title_justify="left"
    )
    for one in loads:
        name = one.model_key.partition('"repo_id": "')[2].partition('"')[0] or one.model_key
        times = (one.seconds_p50, one.seconds_p95, one.seconds_last)
        table.add_row(
            escape(name), one.node_kind, one.tier, str(one.count), *(f"{time:.1f} s" for time in times)
        )
    return table
