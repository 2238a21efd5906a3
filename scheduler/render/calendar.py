"""Bookings and findings for people and for scripts. Times are local for people, UTC for scripts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from calendars.reservation import ModelRequest, Reservation
from scheduler.agenda import Agenda, Checked, Event, Judged
from scheduler.render.plain import escape
from scheduler.render.refusals import around, lateness, node_lines
from scheduler.render.sentences import moment, sentence
from scheduler.types import Verdict, VerdictState

STYLES = {
    VerdictState.PLACED: ("ok", "green", "it has its place"),
    VerdictState.COMING: ("ok", "green", "it will be loaded before its start"),
    VerdictState.REFUSED: ("no", "yellow", "cannot be met"),
    VerdictState.MISUNDERSTOOD: ("??", "yellow", "not understood"),
}
OUTCOMES = {
    "ok": ("ok", "green"),
    "note": ("note", "yellow"),
    "problem": ("problem", "red"),
    "unknown": ("unknown", "dim"),
}


def options(request: ModelRequest) -> str:
    """What a booking asks for beyond its model: ``2 replicas, bfloat16, priority 5``."""
    parts = [
        f"revision {request.revision}" if request.revision else "",
        request.task or "",
        f"{request.replicas} replicas" if request.replicas > 1 else "",
        request.dtype or "",
        _gpus(request),
        f"priority {request.priority}" if request.priority else "",
        "its own code" if request.trust_remote_code else "",
        "private" if request.private else "",
    ]
    return ", ".join(filter(None, parts))


def _gpus(request: ModelRequest) -> str:
    if request.gpus is None:
        return f"on {request.accelerator}" if request.accelerator else ""
    kind = f"{request.accelerator} " if request.accelerator else ""
    return f"{request.gpus} {kind}GPU{'s' if request.gpus > 1 else ''} each"


def span(event: Event, at: datetime) -> str:
    """``09:00 to 17:00``, with days where they are not today; empty where a time is not known."""
    if event.start is None or event.end is None:
        return moment(event.start, at) if event.start else "time not known"
    return f"{moment(event.start, at)} to {moment(event.end, event.start)}"


# --- list ------------------------------------------------------------------------------------------------


def show_agenda(console: Console, agenda: Agenda) -> None:
    """Print what is booked as a table, then what could not be understood or read."""
    if agenda.reservations:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("When", "Model", "Options", "Title", "Owner", "Key"):
            table.add_column(name, overflow="fold")
        for one in agenda.reservations:
            table.add_row(
                span(one, agenda.start),
                *map(escape, (one.request.model, options(one.request), one.title)),
                escape(one.owner or ""),
                escape(one.key),
            )
        console.print(table)
    elif agenda.readings:
        _show_nothing(console, agenda)
    for wrong in agenda.misunderstood:
        console.print(
            f"[yellow]?? “{escape(wrong.title)}”[/] {span(wrong, agenda.start)}: {escape(wrong.reason)}  "
            f"[dim]{escape(wrong.key)}[/]",
            soft_wrap=True,
        )


def _show_nothing(console: Console, agenda: Agenda) -> None:
    """An unread calendar is not an empty one."""
    where = " in what could be read" if agenda.failing else ""
    console.print(f"Nothing is booked{where} until {moment(agenda.end, agenda.start)}.")


def agenda_json(agenda: Agenda) -> dict[str, Any]:
    """The same as data."""
    return {
        "from": agenda.start.isoformat(),
        "to": agenda.end.isoformat(),
        "bookings": [one.model_dump(mode="json") for one in agenda.reservations],
        "misunderstood": [one.model_dump(mode="json") for one in agenda.misunderstood],
        "problems": _problems(agenda),
    }


def _problems(agenda: Agenda) -> list[dict[str, str]]:
    return [
        {"calendar": name, "reason": problem.reason, "remedy": problem.remedy}
        for name, problem in agenda.failing.items()
    ]


# --- check -----------------------------------------------------------------------------------------------


def show_judged(console: Console, judged: Judged) -> None:
    """Print each event: what was understood, and what becomes of it."""
    if judged.unjudged is not None:
        console.print(
            f"[yellow]Planning cannot be asked:[/] {escape(judged.unjudged.reason)} "
            "So this is what was understood, and what could not be met anyway.",
            soft_wrap=True,
        )
    for event in judged.agenda.events:
        show_event(console, event, judged.verdict(event), judged.agenda.start)
    if not judged.agenda.events and judged.agenda.readings:
        _show_nothing(console, judged.agenda)


def show_event(console: Console, event: Event, verdict: Verdict | None, at: datetime) -> None:
    """Print one event with its verdict, the latter left out where there is none."""
    if not isinstance(event, Reservation):
        console.print(f"[yellow]??[/]  {span(event, at)}  “{escape(event.title)}”", soft_wrap=True)
        console.print(f"    not understood: {escape(event.reason)}", soft_wrap=True)
        console.print(f"    For example: {escape(event.example)}", soft_wrap=True)
        return
    mark, style, words = ("--", "dim", "") if verdict is None else STYLES[verdict.state]
    asks = ", ".join(filter(None, (event.request.model, options(event.request))))
    title = "" if event.title == event.request.model else f"  “{escape(event.title)}”"
    console.print(f"[{style}]{mark}[/]  {span(event, at)}  {escape(asks)}{title}", soft_wrap=True)
    if verdict is None:
        return
    if verdict.state in (VerdictState.PLACED, VerdictState.COMING):
        where = f" on {', '.join(verdict.nodes)}" if verdict.nodes else ""
        how = f", {verdict.reason.detail}" if verdict.reason.detail else ""
        console.print(f"    [dim]{words}{escape(where)}{escape(how)}[/]", soft_wrap=True)
        if verdict.late_seconds > 0:
            console.print(f"    [yellow]{escape(lateness(verdict, (), at))}[/]", soft_wrap=True)
        return
    console.print(f"    {words}: {escape(sentence(verdict.reason))}", soft_wrap=True)
    if verdict.reason.remedy:
        console.print(f"    {escape(verdict.reason.remedy)}", soft_wrap=True)
    for line in around(verdict, at):
        console.print(f"    {escape(line)}", soft_wrap=True)
    for line in node_lines(verdict, at):
        console.print(f"    [dim]{escape(line)}[/]", soft_wrap=True)


def judged_json(judged: Judged) -> dict[str, Any]:
    """The same as data; ``verdict`` is null where planning says nothing."""
    return {
        "planned": judged.unjudged is None,
        "why_not_planned": judged.unjudged.reason if judged.unjudged else None,
        "events": [
            one.model_dump(mode="json")
            | {"understood": isinstance(one, Reservation), "verdict": verdict_json(judged.verdict(one))}
            for one in judged.agenda.events
        ],
        "problems": _problems(judged.agenda),
    }


def verdict_json(verdict: Verdict | None) -> dict[str, Any] | None:
    """A verdict with its reason in words too."""
    if verdict is None:
        return None
    return verdict.model_dump(mode="json") | {"words": sentence(verdict.reason)}


# --- doctor ----------------------------------------------------------------------------------------------


def show_checked(console: Console, checked: Checked) -> None:
    """Print one line for each step; a remedy stands below it, marked with an arrow."""
    console.print(f"[bold]{escape(checked.about)}[/]", soft_wrap=True)
    for one in checked.findings:
        word, style = OUTCOMES[one.outcome]
        remedy = f"  [bold]->[/] {escape(one.remedy)}" if one.remedy else ""
        console.print(
            f"  [{style}]{word:8}[/]{one.step:13}{escape(one.found)}{remedy}",
            soft_wrap=True,
        )


def checked_json(checked: list[Checked]) -> dict[str, Any]:
    """The same as data."""
    return {
        "fine": all(one.fine for one in checked),
        "checked": [
            {"about": one.about, "findings": [finding.model_dump() for finding in one.findings]}
            for one in checked
        ],
    }
