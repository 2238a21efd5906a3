"""What the ``calendar`` commands do: reading, judging, looking over, booking, cancelling."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from calendars.called import command
from calendars.event_text import Problem, parse_event
from calendars.event_values import EXAMPLE_MODEL
from calendars.google import GoogleCalendar
from calendars.google_checkup import GoogleCheckup, Habits
from calendars.google_client import Manners
from calendars.ics import IcsCalendar
from calendars.ics_checkup import check_ics
from calendars.ics_events import MAX_EVENT_DAYS
from calendars.ics_times import LATEST_YEAR
from calendars.reservation import ModelRequest, Reading, Reservation
from calendars.source import CalendarSource, Scope
from scheduler.agenda import Agenda, Checked, Event, Judged
from scheduler.bookings import calendar_sources, read_all
from scheduler.catalog import load_catalog
from scheduler.controller import Controller
from scheduler.errors import OperatorError
from scheduler.moments import parse_moment
from scheduler.planning.targets import Refused, identify
from scheduler.settings import Settings
from scheduler.types import ReasonCode, Verdict, VerdictState

Booker = GoogleCalendar | IcsCalendar
"""The calendars that can be booked in: `calendars.source.Bookable`."""

CANDIDATES_SHOWN = 10

RETRY_PAUSE_SECONDS = 0.5
"""Of ``doctor``: somebody waits for it."""


@contextmanager
def opened(settings: Settings) -> Iterator[tuple[CalendarSource, ...]]:
    """The calendars of the settings, closed on the way out.

    Raises:
        OperatorError: one of them cannot be, by the settings.
    """
    sources = calendar_sources(settings)
    try:
        yield sources
    finally:
        for source in sources:
            if isinstance(source, GoogleCalendar):
                source.close()


def read_agenda(sources: Sequence[CalendarSource], start: datetime, end: datetime) -> Agenda:
    """Read all calendars at the same time; one that cannot be read hides no other."""
    found = read_all(sources, start, end)
    readings = tuple(outcome for _, outcome in found if isinstance(outcome, Reading))
    failing = {source.name: outcome for source, outcome in found if not isinstance(outcome, Reading)}
    return Agenda(start, end, readings, failing)


# --- judging -------------------------------------------------------------------------------------------


def judge(settings: Settings, now: datetime) -> Judged:
    """Read the calendars and ask planning what it says; without Ray, only what was understood.

    A calendar that cannot be read stands as it was last read, and is among those failing.
    """
    horizon = now + timedelta(days=settings.calendar.horizon_days)
    controller = Controller(settings)
    try:
        controller.bookings.refresh(now)
        readings = tuple(_still_to_come(one, now) for one in controller.bookings.readings)
        agenda = Agenda(now, horizon, readings, dict(controller.bookings.failing))
        try:
            observed, _ = controller.observe()
            plan = controller.plan(now, observed)
        except OperatorError as problem:
            return Judged(agenda, _refused_anyway(settings, agenda), problem)
        return Judged(agenda, {(one.calendar, one.event): one for one in plan.verdicts})
    finally:
        controller.close()


def _refused_anyway(settings: Settings, agenda: Agenda) -> dict[tuple[str, str], Verdict]:
    """What no cluster could change: models that the catalog does not know, or not for everybody."""
    try:
        catalog = load_catalog(settings.path(settings.models.catalog))
    except OperatorError:
        return {}
    refused = (identify(one, catalog) for one in agenda.reservations)
    return {
        (one.reservation.calendar, one.reservation.key): Verdict(
            event=one.reservation.key,
            calendar=one.reservation.calendar,
            title=one.reservation.title,
            start=one.reservation.start,
            end=one.reservation.end,
            owner=one.reservation.owner,
            state=VerdictState.REFUSED,
            reason=one.reason,
        )
        for one in refused
        if isinstance(one, Refused)
    }


def _still_to_come(reading: Reading, now: datetime) -> Reading:
    return reading.model_copy(
        update={
            "reservations": tuple(one for one in reading.reservations if one.end > now),
            "misunderstood": tuple(one for one in reading.misunderstood if one.end is None or one.end > now),
        }
    )


# --- looking over ----------------------------------------------------------------------------------------


def look_over(settings: Settings) -> Iterator[Checked]:
    """Every step on the way to every calendar, what they have in common once."""
    calendar = settings.calendar
    now = datetime.now(UTC)
    until = now + timedelta(days=calendar.horizon_days)
    ids = settings.google_calendar_ids
    habits = Habits(calendar.write_back, len(ids) * 60 / calendar.check_interval_seconds)
    signed_in: GoogleCheckup | None = None
    for calendar_id in ids:
        manners = Manners(
            calendar_id=calendar_id,
            key_file=settings.path(calendar.google_creds_path) if calendar.google_creds_path else None,
            endpoint=calendar.google_endpoint,
            deadline_seconds=calendar.timeout_seconds,
            retry_pause_seconds=RETRY_PAUSE_SECONDS,
            page_size=2500,
        )
        checkup = GoogleCheckup(manners, habits, lambda: datetime.now(UTC))
        account = checkup.account()
        if signed_in is None:
            signed_in = checkup
            yield Checked("Google", tuple(account))
        yield Checked(f"Google calendar {calendar_id}", tuple(checkup.calendar(now, until)))
        checkup.close()
    if (location := settings.ics_location) is not None:
        source = IcsCalendar(
            location,
            timeout_seconds=calendar.timeout_seconds,
            default_timezone=calendar.default_timezone,
        )
        yield Checked(f"Calendar {source.name}", tuple(check_ics(source, now, until)))


# --- booking ---------------------------------------------------------------------------------------------


def moment(text: str, now: datetime) -> datetime:
    """A time as `parse_moment` reads it, by this machine's clock, with the offset of that day.

    Raises:
        OperatorError: it is no time.
    """
    if text.strip().startswith("+"):
        return parse_moment(text, now).astimezone()
    local = now.astimezone()
    parsed = parse_moment(text, local)
    if parsed.tzinfo is not local.tzinfo:
        return parsed.astimezone()
    # It was written without a zone: the offset of a day after a change of clocks is another than now's.
    return parsed.replace(tzinfo=None).astimezone()


def window(start_text: str, end_text: str, now: datetime) -> tuple[datetime, datetime]:
    """When a booking starts and ends. An end like ``+2h`` counts from the start, one like ``16:00`` is on
    the day of the start.

    Raises:
        OperatorError: these are no times, or no booking could have them.
    """
    start = moment(start_text, now).replace(microsecond=0)
    clock_only = " " not in end_text.strip() and ":" in end_text and "-" not in end_text
    relative = clock_only or end_text.strip().startswith("+")
    end = moment(end_text, start if relative else now).replace(microsecond=0)
    example = "For example: --from “tomorrow 14:00” --to +2h."
    if end <= start:
        raise OperatorError(
            f"The booking would end at {end:%Y-%m-%d %H:%M}, which is not after {start:%Y-%m-%d %H:%M}, its "
            "start.",
            example,
        )
    if end <= now:
        raise OperatorError(f"The booking would be over already: it ends {end:%Y-%m-%d %H:%M}.", example)
    if end - start > timedelta(days=MAX_EVENT_DAYS) or end.year > LATEST_YEAR:
        raise OperatorError(
            f"A booking lasts at most {MAX_EVENT_DAYS} days; this one {(end - start).days}, to {end.year}.",
            example,
        )
    return start, end


def named_model(model: str) -> ModelRequest:
    """A model as people name it: an alias, a repo id, its address on the Hub, or a model key.

    Raises:
        OperatorError: that is no model's name.
    """
    understood = parse_event("", model if "{" in model else f"model: {model}")
    if isinstance(understood, Problem):
        raise OperatorError(understood.reason, f"For example: {EXAMPLE_MODEL}.")
    return understood


def check_model(settings: Settings, booking: Reservation) -> None:
    """Refuse to book what no catalog and no repository could be meant by.

    Raises:
        OperatorError: the model is no alias of the catalog and no repo id, or the catalog cannot be read.
    """
    found = identify(booking, load_catalog(settings.path(settings.models.catalog)))
    if isinstance(found, Refused) and found.reason.code is ReasonCode.UNKNOWN_MODEL:
        raise OperatorError(f"{found.reason.detail}.", found.reason.remedy or "")


def bookable(sources: Iterable[CalendarSource], name: str | None) -> Booker:
    """The calendar to book in: the one of that name, or the only one.

    Raises:
        OperatorError: there is none of that name, or there are several to choose from.
    """
    found = [one for one in sources if isinstance(one, GoogleCalendar | IcsCalendar)]
    names = ", ".join(one.name for one in found)
    if name is not None:
        for one in found:
            if one.name == name:
                return one
        raise OperatorError(f"There is no calendar {name}.", f"Choose one of these: {names}.")
    if len(found) != 1:
        raise OperatorError(f"There are {len(found)} calendars.", f"Choose one with --calendar: {names}.")
    return found[0]


# --- cancelling ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chosen:
    """What is to be cancelled: where, by which key, how much of it, and one event of it if it was read."""

    calendar: Booker
    key: str
    scope: Scope
    event: Event | None


def choose(sources: Iterable[CalendarSource], agenda: Agenda, wanted: str) -> Chosen:
    """The one booking that a key (with or without its calendar), or else a title or model, names.

    Raises:
        OperatorError: none is named so, or several are; the remedy lists what could be meant.
    """
    bookers = [one for one in sources if isinstance(one, GoogleCalendar | IcsCalendar)]
    events = {(one.calendar, one.key): one for one in agenda.events}
    by_key = [
        (booker, key, scope)
        for booker in bookers
        for key in dict.fromkeys((wanted, f"{booker.name}/{wanted}"))
        if booker.name not in agenda.failing and (scope := booker.scope(key)) is not None
    ]
    if len(by_key) == 1:
        booker, key, scope = by_key[0]
        of_it = (one for one in agenda.events if one.calendar == booker.name and one.key.startswith(key))
        return Chosen(booker, key, scope, events.get((booker.name, key)) or next(of_it, None))
    named = [one for one in agenda.events if wanted.casefold() in _names(one)]
    if len(named) > 1:
        raise OperatorError(
            f"“{wanted}” names {len(named)} bookings.", f"Name one by its key:\n{_listed(named)}"
        )
    if not named:
        raise _nothing(agenda, wanted)
    (event,) = named
    booker = next(one for one in bookers if one.name == event.calendar)
    return Chosen(booker, event.key, booker.scope(event.key) or "event", event)


def _names(event: Event) -> set[str]:
    names = {event.title.strip().casefold()}
    return names if not hasattr(event, "request") else names | {event.request.model.casefold()}


def _nothing(agenda: Agenda, wanted: str) -> OperatorError:
    titles = {one.title.strip().casefold(): one for one in agenda.events}
    close = difflib.get_close_matches(wanted.casefold(), titles, n=CANDIDATES_SHOWN)
    close += [title for title in titles if wanted.casefold() in title and title not in close]
    meant = [one for one in agenda.events if one.title.strip().casefold() in close]
    days = (agenda.end - agenda.start).days
    reason = f"No booking of the next {days} days has the key, title or model “{wanted}”."
    if agenda.failing:
        reason += f" Not read: {', '.join(agenda.failing)}."
    if meant:
        return OperatorError(reason, f"Perhaps one of these is meant:\n{_listed(meant)}")
    return OperatorError(
        reason, f"“{command('calendar list')}” shows what is booked; --days looks further ahead."
    )


def _listed(events: Sequence[Event]) -> str:
    shown = [
        f"  {one.key}   {f'{one.start.astimezone():%a %d %b %H:%M}' if one.start else ''}  {one.title}"
        for one in events[:CANDIDATES_SHOWN]
    ]
    more = len(events) - CANDIDATES_SHOWN
    return "\n".join([*shown, *([f"  and {more} more"] if more > 0 else [])])
