"""One VEVENT: from its lines to an event whose times are understood, or to what is wrong with it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, TypeVar

import icalendar
from icalendar.error import GloballyUniqueTZIDGuessed
from icalendar.parser import Contentline
from icalendar.prop import vBroken

from calendars.ics_people import organiser, people
from calendars.ics_stream import Block, calendars_in
from calendars.ics_times import (
    EARLIEST_YEAR,
    LATEST_YEAR,
    LIBRARY_ERRORS,
    Length,
    Moment,
    NotUnderstood,
    Zones,
)

MAX_EVENT_DAYS = 366

_EXAMPLES = {
    "DTSTART": "DTSTART:20260302T090000Z",
    "DTEND": "DTEND:20260302T170000Z",
    "DURATION": "DURATION:PT8H",
    "RRULE": "RRULE:FREQ=WEEKLY;BYDAY=MO",
    "RDATE": "RDATE:20260309T090000Z",
    "EXDATE": "EXDATE:20260309T090000Z",
    "RECURRENCE-ID": "RECURRENCE-ID:20260309T090000Z",
    "UID": "UID:monday-booking@example.org",
    "SUMMARY": "SUMMARY:HuggingFaceTB/SmolLM2-135M-Instruct",
    "DESCRIPTION": "DESCRIPTION:model: HuggingFaceTB/SmolLM2-135M-Instruct\\nreplicas: 2",
}
"""The properties an event is made of here, each with a line that works. Others may say what they like."""

_STRAY_SETTINGS = ("MODEL", "REVISION", "TASK", "REPLICAS", "DTYPE", "GPUS")
"""Our keys as property names: a description broken over lines by hand. PRIORITY is iCalendar's own."""

# Such names are looked up here once more, by a rule of ours (`Zones.find`).
warnings.filterwarnings("ignore", category=GloballyUniqueTZIDGuessed)

_Known = TypeVar("_Known")


@dataclass(frozen=True)
class Event:
    """One VEVENT, understood as far as its times go."""

    uid: str
    title: str
    description: str
    owner: str | None
    people: tuple[str, ...] = field(compare=False)
    """Answers to an invitation make no other event of it."""
    cancelled: bool
    sequence: int
    booked_at: datetime
    start: Moment
    length: Length
    replaces: Moment | None
    """RECURRENCE-ID: the start of the instance that this event stands in for."""
    and_later: bool
    """RANGE=THISANDFUTURE: it stands in for the later instances too."""
    rules: tuple[icalendar.vRecur, ...]
    extra: tuple[tuple[Moment, timedelta | None], ...]
    """RDATE, each with its own exact length where it is a PERIOD."""
    excluded: tuple[Moment, ...]
    """EXDATE."""

    @property
    def repeats(self) -> bool:
        return bool(self.rules or self.extra)


@dataclass(frozen=True)
class EventFault:
    """One VEVENT that could not be understood, with what could be made out nevertheless."""

    uid: str | None
    key: str
    title: str
    owner: str | None
    cancelled: bool
    start: datetime | None
    end: datetime | None
    replaces: Moment | None
    repeats: bool
    reason: str
    example: str


def read_events(content: bytes, default_zone: tzinfo) -> tuple[Event | EventFault, ...]:
    """Every VEVENT of an iCalendar stream, in the order of the text.

    Raises:
        NotACalendar: the stream is not UTF-8, not iCalendar, or not complete.
    """
    return tuple(
        _read_block(block, zones) for blocks, zones in calendars_in(content, default_zone) for block in blocks
    )


def _read_block(block: Block, zones: Zones) -> Event | EventFault:
    component = icalendar.Event()
    try:
        component = _parse(block)
        _check_lines(component, block)
        try:
            return _event(component, block, zones)
        except LIBRARY_ERRORS as error:
            raise NotUnderstood(f"The event cannot be understood: {error}.", _EXAMPLES["DTSTART"]) from None
    except NotUnderstood as caught:
        uid = _if_known(lambda: _uid(component))
        replaces = _if_known(lambda: _replaces(component, zones))
        start = _if_known(lambda: _moment_of(component, "DTSTART", zones).instant())
        end = _if_known(lambda: _moment_of(component, "DTEND", zones).instant())
        return EventFault(
            uid=uid,
            key=(uid or f"event-{block.number}") + (f"/{replaces.key()}" if replaces else ""),
            title=_if_known(lambda: _text(component, "SUMMARY")) or "",
            owner=organiser(component),
            cancelled=_cancelled(component),
            start=start,
            end=end if start is not None and end is not None and end > start else None,
            replaces=replaces,
            repeats="RRULE" in component or "RDATE" in component,
            reason=caught.reason,
            example=caught.example,
        )


def _if_known(read: Callable[[], _Known]) -> _Known | None:
    try:
        return read()
    except (NotUnderstood, *LIBRARY_ERRORS):
        return None


def _parse(block: Block) -> icalendar.Event:
    if not block.closed:
        raise NotUnderstood("The event has no END:VEVENT.", "END:VEVENT")
    try:
        component = icalendar.Event.from_ical("\n".join(block.lines))
    except LIBRARY_ERRORS as error:
        raise NotUnderstood(f"The event cannot be read as iCalendar: {error}.", "BEGIN:VEVENT") from None
    if not isinstance(component, icalendar.Event):
        raise NotUnderstood("The event cannot be read as iCalendar.", "BEGIN:VEVENT")
    return component


def _check_lines(component: icalendar.Event, block: Block) -> None:
    """Refuse lines that say something about the booking where nobody would hear it."""
    if any(name is None for name, _ in component.errors):
        _refuse_unreadable_lines(block)
    for name in _STRAY_SETTINGS:
        if name in component:
            raise NotUnderstood(
                f"The line {name.lower()} stands outside the description; in a calendar file, a line break "
                "inside the description is written \\n.",
                _EXAMPLES["DESCRIPTION"],
            )


def _refuse_unreadable_lines(block: Block) -> None:
    """Raise for a line that is no property, or one of ours; unreadable others, such as ATTENDEE, pass."""
    for line in block.lines:
        try:
            Contentline(line).parts()  # type: ignore[no-untyped-call]
        except ValueError:
            name = re.match(r"[A-Za-z0-9-]+(?=[;:])", line)
            if name is None or name[0].upper() in _EXAMPLES:
                raise NotUnderstood(
                    f"The line {_cut(line)!r} is not iCalendar; a line break inside the description is "
                    "written \\n.",
                    _EXAMPLES[name[0].upper() if name else "DESCRIPTION"],
                ) from None


def _event(component: icalendar.Event, block: Block, zones: Zones) -> Event:
    start = _moment_of(component, "DTSTART", zones)
    return Event(
        uid=_uid(component),
        title=_text(component, "SUMMARY"),
        description=_text(component, "DESCRIPTION"),
        owner=organiser(component),
        people=people(component),
        cancelled=_cancelled(component),
        sequence=_sequence(component),
        booked_at=_stamp(component, "CREATED") or _stamp(component, "DTSTAMP") or start.instant(),
        start=start,
        length=_length(component, block, start, zones),
        replaces=_replaces(component, zones),
        and_later=_and_later(component),
        rules=tuple(_values(component, "RRULE")),
        extra=tuple(_extra(component, zones)),
        excluded=tuple(
            _moment(entry.dt, entries.params.get("TZID"), "EXDATE", zones)
            for entries in _values(component, "EXDATE")
            for entry in entries.dts
        ),
    )


# --- values of properties ----------------------------------------------------------------------------


def _values(component: icalendar.Event, name: str) -> Iterator[Any]:
    """Every value of a property, none of them broken. An empty one counts as not there."""
    found = component.get(name, [])
    for value in found if isinstance(found, list) else [found]:
        if isinstance(value, vBroken):
            if not str(value).strip() and name in ("EXDATE", "RDATE"):
                continue
            raise NotUnderstood(
                f"{name} is {_cut(str(value))!r}, which is not understood.", _EXAMPLES.get(name, name)
            )
        yield value


def _first(component: icalendar.Event, name: str) -> Any:
    """The first value of a property that does not decide anything, broken or repeated as it may be."""
    found = component.get(name)
    value = found[0] if isinstance(found, list) and found else found
    return None if isinstance(value, vBroken) else value


def _one(component: icalendar.Event, name: str) -> Any:
    values = list(_values(component, name))
    if len(values) > 1:
        raise NotUnderstood(f"{name} stands {len(values)} times in one event.", _EXAMPLES[name])
    return values[0] if values else None


def _text(component: icalendar.Event, name: str) -> str:
    return str(_one(component, name) or "")


def _uid(component: icalendar.Event) -> str:
    uid = _text(component, "UID").strip()
    if not uid:
        raise NotUnderstood("The event has no UID, the name that tells it from all others.", _EXAMPLES["UID"])
    return uid


def _cancelled(component: icalendar.Event) -> bool:
    return str(_first(component, "STATUS") or "").upper() == "CANCELLED"


def _sequence(component: icalendar.Event) -> int:
    value = _first(component, "SEQUENCE")
    return int(value) if isinstance(value, int) else 0


def _stamp(component: icalendar.Event, name: str) -> datetime | None:
    """CREATED and DTSTAMP are UTC by RFC 5545 sections 3.8.7.1 and 3.8.7.2, said so or not."""
    value = getattr(_first(component, name), "dt", None)
    if not isinstance(value, datetime) or not EARLIEST_YEAR <= value.year <= LATEST_YEAR:
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# --- times of an event --------------------------------------------------------------------------------


def _moment(value: object, zone_name: str | None, what: str, zones: Zones) -> Moment:
    if not isinstance(value, date):  # datetime is a date
        raise NotUnderstood(
            f"{what} is {_cut(str(value))!r}, not a date or a date with a time.", _EXAMPLES[what]
        )
    if not EARLIEST_YEAR <= value.year <= LATEST_YEAR:
        raise NotUnderstood(
            f"{what} lies in the year {value.year}, not between {EARLIEST_YEAR} and {LATEST_YEAR}.",
            _EXAMPLES[what],
        )
    if not isinstance(value, datetime):
        midnight = datetime(value.year, value.month, value.day)  # noqa: DTZ001 - the zone stands beside it
        return Moment(midnight, zones.of(None, what), all_day=True)
    if zone_name is None and value.tzinfo is not None:
        return Moment(value.astimezone(UTC).replace(tzinfo=None), UTC)
    zone = zones.of(None if zone_name is None else str(zone_name), what)
    return Moment(value.replace(tzinfo=None, fold=0), zone)


def _moment_of(component: icalendar.Event, name: str, zones: Zones) -> Moment:
    value = _one(component, name)
    if value is None:
        raise NotUnderstood(f"The event has no {name}.", _EXAMPLES[name])
    return _moment(getattr(value, "dt", value), value.params.get("TZID"), name, zones)


def _replaces(component: icalendar.Event, zones: Zones) -> Moment | None:
    if "RECURRENCE-ID" not in component:
        return None
    return _moment_of(component, "RECURRENCE-ID", zones)


def _and_later(component: icalendar.Event) -> bool:
    params = getattr(_first(component, "RECURRENCE-ID"), "params", {})
    return str(params.get("RANGE", "")).upper() == "THISANDFUTURE"


def _extra(component: icalendar.Event, zones: Zones) -> Iterator[tuple[Moment, timedelta | None]]:
    for entries in _values(component, "RDATE"):
        zone_name = entries.params.get("TZID")
        for entry in entries.dts:
            if not isinstance(entry.dt, tuple):
                yield _moment(entry.dt, zone_name, "RDATE", zones), None
                continue
            start = _moment(entry.dt[0], zone_name, "RDATE", zones)
            lasts = (
                entry.dt[1]
                if isinstance(entry.dt[1], timedelta)
                else _moment(entry.dt[1], zone_name, "RDATE", zones).instant() - start.instant()
            )
            _check_length(lasts)
            yield start, lasts


def _length(component: icalendar.Event, block: Block, start: Moment, zones: Zones) -> Length:
    """From DTEND or DURATION; a day for a DATE without either (RFC 5545 section 3.6.1)."""
    duration = _one(component, "DURATION")
    if "DTEND" in component:
        if duration is not None:
            raise NotUnderstood("The event has both DTEND and DURATION.", _EXAMPLES["DTEND"])
        return _length_until(_moment_of(component, "DTEND", zones), start)
    if duration is None:
        if start.all_day:
            return Length(timedelta(days=1), timedelta(0))
        raise NotUnderstood(
            "The event has neither DTEND nor DURATION, so it ends when it starts.", _EXAMPLES["DURATION"]
        )
    lasts = getattr(duration, "dt", None)
    if not isinstance(lasts, timedelta):
        raise NotUnderstood(f"DURATION is {_cut(str(duration))!r}, not a length.", _EXAMPLES["DURATION"])
    _check_length(lasts)
    days = _whole_days(block)
    return Length(days, lasts - days)


def _length_until(end: Moment, start: Moment) -> Length:
    if end.all_day != start.all_day:
        raise NotUnderstood(
            "One of DTSTART and DTEND is a whole day and the other has a time.", _EXAMPLES["DTEND"]
        )
    if start.all_day:
        _check_length(end.wall - start.wall)
        return Length(end.wall - start.wall, timedelta(0))
    _check_length(end.instant() - start.instant())
    return Length(timedelta(0), end.instant() - start.instant())


def _check_length(lasts: timedelta) -> None:
    if lasts <= timedelta(0):
        raise NotUnderstood("The event ends before or when it starts.", _EXAMPLES["DURATION"])
    if lasts > timedelta(days=MAX_EVENT_DAYS):
        raise NotUnderstood(
            f"The event lasts {lasts.days} days; a booking lasts at most {MAX_EVENT_DAYS}.", "DURATION:P7D"
        )


def _whole_days(block: Block) -> timedelta:
    """The weeks and days of DURATION, from its own line: icalendar cannot tell P1D from PT24H."""
    depth = 0
    for line in block.lines:
        upper = line.upper()
        depth += upper.startswith("BEGIN:") - upper.startswith("END:")
        # Depth 2 is inside a VALARM, which has a DURATION of its own.
        if depth == 1 and (match := re.match(r"DURATION[^:]*:\s*\+?P(?:(\d+)W)?(?:(\d+)D)?", upper)):
            return timedelta(weeks=int(match[1] or 0), days=int(match[2] or 0))
    return timedelta(0)


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"
