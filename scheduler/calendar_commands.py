"""``ndif-ray calendar``: what is booked, whether it can be met, what is wrong, and booking itself."""

from __future__ import annotations

import json
import secrets
import sys
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any, get_args

import click
from pydantic import ValidationError
from rich.console import Console

from calendars.called import command
from calendars.event_text import MAX_TITLE_CHARACTERS, Problem, parse_event, render_request
from calendars.reservation import MAX_GPUS, MAX_PRIORITY, MAX_REPLICAS, Dtype, ModelRequest, Reservation
from calendars.source import CalendarUnavailable, NewEvent
from scheduler import calendar_desk as desk
from scheduler.agenda import Agenda, Checked, Judged
from scheduler.errors import OperatorError
from scheduler.logutil.logger import set_up_logging
from scheduler.number_option import Number
from scheduler.render import calendar as render
from scheduler.render.plain import escape, escape_lines
from scheduler.settings import Settings, load_settings
from scheduler.types import VerdictState

WIDE = 240
"""Columns of a table that no terminal shows."""


class Exit(IntEnum):
    """Exit codes of these commands."""

    FINE = 0
    ERROR = 1
    CANNOT_BE_MET = 3


out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts, not text.")
days_option = click.option(
    "--days",
    type=Number(min=0, max=366, min_open=True),
    metavar="N",
    help="How far to look ahead; the horizon of the settings by default.",
)


@click.group()
def calendar() -> None:
    """Look at the bookings, book, cancel, and find out what is wrong with a calendar.

    Times are those of this machine's clock unless they have an offset: 14:00, "tomorrow 14:00", +90m,
    2026-12-24T14:00.
    """


@calendar.command("list")
@days_option
@as_json_option
def list_bookings(days: float | None, as_json: bool) -> Exit:
    """Show what is booked.

    Exit code: 0, or 1 where a calendar could not be read.
    """
    settings = _settings()
    with desk.opened(settings) as sources:
        agenda = _agenda(settings, sources, days)
    if as_json:
        _print_json(render.agenda_json(agenda))
    else:
        table = out if out.is_terminal else Console(highlight=False, width=WIDE)
        render.show_agenda(table, agenda)
        _say_failing(agenda)
    return Exit.ERROR if agenda.failing else Exit.FINE


@calendar.command()
@as_json_option
def check(as_json: bool) -> Exit:
    """Show each event, what was understood, and whether it can be met.

    Exit code: 0 all is well, 3 something cannot be met or is not understood, 1 error.
    """
    judged = desk.judge(_settings(), _now())
    if as_json:
        _print_json(render.judged_json(judged))
    else:
        render.show_judged(out, judged)
        _say_failing(judged.agenda)
    if judged.agenda.failing:
        return Exit.ERROR
    return Exit.CANNOT_BE_MET if judged.cannot_be_met else Exit.FINE


@calendar.command()
@as_json_option
def doctor(as_json: bool) -> Exit:
    """Go the way to each calendar step by step; say what is wrong, and what to do about it.

    Nothing is written. Exit code: 0 all is well, 1 there is a problem.
    """
    checked: list[Checked] = []
    for one in desk.look_over(_settings()):
        checked.append(one)
        if not as_json:
            render.show_checked(out, one)
    if as_json:
        _print_json(render.checked_json(checked))
    return Exit.FINE if all(one.fine for one in checked) else Exit.ERROR


@calendar.command()
@click.argument("model")
@click.option("--from", "start", required=True, metavar="TIME", help="When it must be serving.")
@click.option(
    "--to", "end", required=True, metavar="TIME", help="When it ends; 16:00 and +2h go by the start."
)
@click.option("--replicas", type=click.IntRange(1, MAX_REPLICAS), help="How many copies.")
@click.option("--dtype", type=click.Choice(get_args(Dtype)), help="Of the weights.")
@click.option("--gpus", type=click.IntRange(1, MAX_GPUS), help="Whole GPUs for each replica.")
@click.option("--accelerator", metavar="KIND", help="Kind of GPU, such as H100.")
@click.option("--priority", type=click.IntRange(-MAX_PRIORITY, MAX_PRIORITY), help="Higher goes first.")
@click.option("--revision", help="Branch, tag or commit of the model.")
@click.option("--task", help="Task of the model, such as text-generation.")
@click.option("--trust-remote-code", is_flag=True, default=None, help="Run the model's own code.")
@click.option("--private", is_flag=True, default=None, help="Only for who is invited to the event.")
@click.option("--title", help="Title of the event; the model's name by default.")
@click.option("--calendar", "name", metavar="ID", help="Which calendar, where there are several.")
@as_json_option
def book(
    model: str, start: str, end: str, title: str | None, name: str | None, as_json: bool, **wanted: Any
) -> Exit:
    """Book MODEL: an alias, or a Hugging Face repo id. Writes an event into the calendar.

    Exit code: 0 booked, 3 booked but it cannot be met, 1 error.
    """
    settings, now = _settings(), _now()
    begins, ends = desk.window(start, end, now)
    request = _request(model, wanted)
    title = title if title is not None else request.model
    event = NewEvent(
        event_id=secrets.token_hex(16),
        title=title[:MAX_TITLE_CHARACTERS],
        description=_text(request, title),
        start=begins,
        end=ends,
        made_at=now,
    )
    with desk.opened(settings) as sources:
        source = desk.bookable(sources, name)
        booked = Reservation(
            key=event.event_id,
            calendar=source.name,
            title=title,
            start=begins,
            end=ends,
            booked_at=now,
            request=request,
        )
        desk.check_model(settings, booked)
        with _as_operator_error():
            booked = booked.model_copy(update={"key": source.insert(event)})
    judged = desk.judge(settings, now)
    return _tell_booked(booked, judged, as_json)


@calendar.command()
@click.argument("booking", metavar="KEY_OR_TITLE")
@click.option("--yes", is_flag=True, help="Do not ask.")
@days_option
@as_json_option
def cancel(booking: str, yes: bool, days: float | None, as_json: bool) -> Exit:
    """Cancel a booking, by its key, or its title or model where only one has it.

    The key of an instance of a series cancels that instance; the part before the last slash all of them.
    Asks first, if there is a terminal to ask on.
    """
    settings = _settings()
    with desk.opened(settings) as sources:
        agenda = _agenda(settings, sources, days)
        _say_failing(agenda)
        chosen = desk.choose(sources, agenda, booking)
        what = _described(chosen, agenda)
        if not yes and _asks():
            click.confirm(f"Cancel {what} in {chosen.calendar.name}?", abort=True, err=True)
        with _as_operator_error():
            chosen.calendar.cancel(chosen.key)
    if as_json:
        _print_json({"cancelled": chosen.key, "calendar": chosen.calendar.name, "scope": chosen.scope})
    else:
        out.print(f"Cancelled {escape(what)}.", soft_wrap=True)
    return Exit.FINE


# --- parts -----------------------------------------------------------------------------------------------


class _as_operator_error:
    """What a calendar refuses is for the operator to read."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, CalendarUnavailable):
            raise OperatorError(error.reason, error.remedy) from error


def _settings() -> Settings:
    settings = load_settings()
    set_up_logging(settings.log.level)
    return settings


def _now() -> datetime:
    return datetime.now(UTC)


def _asks() -> bool:
    return sys.stdin.isatty()


def _agenda(settings: Settings, sources: Any, days: float | None) -> Agenda:
    now = _now()
    return desk.read_agenda(
        sources, now, now + timedelta(days=settings.calendar.horizon_days if days is None else days)
    )


def _say_failing(agenda: Agenda) -> None:
    for problem in agenda.failing.values():
        err.print(
            f"[red]Error:[/] {escape_lines(problem.reason)}\n{escape_lines(problem.remedy)}", soft_wrap=True
        )


def _print_json(content: dict[str, Any]) -> None:
    out.out(json.dumps(content))


def _request(model: str, wanted: dict[str, Any]) -> ModelRequest:
    named = desk.named_model(model)
    said = {name: value for name, value in wanted.items() if value is not None}
    try:
        return ModelRequest.model_validate(named.model_dump() | said)
    except ValidationError as error:
        first = error.errors()[0]
        name = f"--{str(first['loc'][0]).replace('_', '-')}"
        raise OperatorError(f"{name} is {first['input']!r}: {first['msg']}.", "Correct it.") from error


def _text(request: ModelRequest, title: str) -> str:
    """The event's description; refused where people, or we, would read title and description otherwise."""
    try:
        text = render_request(request)
    except ValueError:
        raise OperatorError(
            f"Revision {request.revision!r} or task {request.task!r} cannot be written in an event.",
            "They consist of letters, digits, dots, dashes and, for a revision, slashes.",
        ) from None
    understood = parse_event(title, text)
    if isinstance(understood, Problem):
        raise OperatorError(f"The title does not go with the booking: {understood.reason}", "Choose another.")
    if understood != request:
        raise OperatorError(f"The title {title!r} says something else than the booking.", "Choose another.")
    return text


def _tell_booked(booked: Reservation, judged: Judged, as_json: bool) -> Exit:
    verdict = judged.verdict(booked)
    note = _not_judged(booked, judged) if verdict is None else None
    if as_json:
        content = booked.model_dump(mode="json", exclude={"owner"})
        _print_json(content | {"verdict": render.verdict_json(verdict), "note": note})
    else:
        out.print(f"Booked in {escape(booked.calendar)}, key {escape(booked.key)}", soft_wrap=True)
        render.show_event(out, booked, verdict, judged.agenda.start)
        if note:
            out.print(f"    {escape(note)}", soft_wrap=True)
    refused = verdict is not None and verdict.state in (VerdictState.REFUSED, VerdictState.MISUNDERSTOOD)
    return Exit.CANNOT_BE_MET if refused else Exit.FINE


def _not_judged(booked: Reservation, judged: Judged) -> str:
    if judged.unjudged is not None:
        return f"Whether it can be met is not known: {judged.unjudged.reason}"
    if booked.calendar in judged.agenda.failing:
        return f"Whether it can be met is not known: {judged.agenda.failing[booked.calendar].reason}"
    if booked.start >= judged.agenda.end:
        return "It lies beyond the horizon, and is judged when it comes nearer."
    return f"Planning has not heard of it yet; “{command('calendar check')}” shows what it says."


def _described(chosen: desk.Chosen, agenda: Agenda) -> str:
    event = chosen.event
    title = f"“{event.title}”" if event else chosen.key
    if chosen.scope == "series":
        return f"all of the series {title}"
    when = f", {render.span(event, agenda.start)}" if event else ""
    return f"{title}{when}"
