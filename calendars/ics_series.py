"""From the events that share a UID to their occurrences in a window.

A series is expanded by its own clock: every time is first read in the zone of the series, the rules
are expanded over those readings without any zone, and each result is then placed in time. So the
rules for the hours a zone skips or repeats hold for instances as they do for single events
(RFC 5545 section 3.3.10), whatever library does the expanding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from itertools import islice
from math import prod

import icalendar
import recurring_ical_events
from icalendar.prop import vDDDLists, vDDDTypes, vInt, vRecur

from calendars.ics_events import Event, EventFault
from calendars.ics_times import LATEST_YEAR, LIBRARY_ERRORS, Moment, NotUnderstood

MAX_OCCURRENCES = 1000
"""In one window, of one series."""

MAX_TIMES_A_DAY = 48

_FREQUENCIES = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
_DAYS_IN_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_EXAMPLE = "RRULE:FREQ=WEEKLY;BYDAY=MO"
_MARGIN = timedelta(days=2)
"""By which the expansion reaches beyond the window; larger than any difference between two clocks."""


@dataclass(frozen=True)
class Occurrence:
    """One occurrence: the event it is made of, what names it, and when it is.

    ``end`` is exclusive. ``booked_at`` is that of the series, so moving an instance loses no place.
    """

    event: Event
    key: str
    start: datetime
    end: datetime
    booked_at: datetime


def occurrences(
    entries: Sequence[Event | EventFault], start: datetime, end: datetime
) -> tuple[list[Occurrence], list[EventFault]]:
    """What the events of one UID amount to in ``[start, end)``, and those that are not understood.

    Cancelled events take their instance, or their series, away and are not heard of again.
    """
    faults = [entry for entry in entries if isinstance(entry, EventFault)]
    events, superseded = _newest([entry for entry in entries if isinstance(entry, Event)])
    faults += superseded
    master = next((event for event in events if event.replaces is None), None)
    stand_ins = [event for event in events if event.replaces is not None]
    found: list[Occurrence] = []
    if master is not None and master.cancelled:
        return [], faults
    if master is not None:
        try:
            replaced = [fault.replaces for fault in faults if fault.replaces is not None]
            found += _of_master(master, stand_ins, replaced, start, end)
        except NotUnderstood as caught:
            faults.append(_fault(master, caught.reason, caught.example))
    for event in stand_ins:
        if event.replaces is not None and not event.cancelled:
            key = f"{event.uid}/{_in_frame(event.replaces, master).key()}"
            found.append(_at(event, event.start, key, master or event))
    return [one for one in found if one.start < end and one.end > start], faults


def _at(event: Event, start: Moment, key: str, series: Event) -> Occurrence:
    return Occurrence(event, key, start.instant(), event.length.end(start), series.booked_at)


def _fault(event: Event, reason: str, example: str) -> EventFault:
    return EventFault(
        uid=event.uid,
        key=f"{event.uid}/{event.replaces.key()}" if event.replaces else event.uid,
        title=event.title,
        owner=event.owner,
        cancelled=event.cancelled,
        start=event.start.instant(),
        end=event.length.end(event.start),
        replaces=event.replaces,
        repeats=event.repeats,
        reason=reason,
        example=example,
    )


def _newest(events: Sequence[Event]) -> tuple[list[Event], list[EventFault]]:
    """One event for each instance: the one with the highest SEQUENCE (RFC 5546 section 2.1.5).

    Different events with the same SEQUENCE are no revisions of each other: the first stands, the
    others are faults. An event that is there twice in the same words is there once.
    """
    newest: dict[datetime | None, Event] = {}
    faults = []
    for number, event in enumerate(events, start=1):
        which = None if event.replaces is None else event.replaces.instant()
        other = newest.setdefault(which, event)
        if event.sequence > other.sequence:
            newest[which] = event
        elif event.sequence == other.sequence and event != other:
            reason = f"The event has the same UID as {other.title!r} before it, so only that one counts."
            faults.append(_fault(event, reason, f"UID:{event.uid}-{number}"))
    return list(newest.values()), faults


# --- a master and its instances --------------------------------------------------------------------


def _of_master(
    master: Event, stand_ins: Sequence[Event], replaced: Sequence[Moment], start: datetime, end: datetime
) -> Iterator[Occurrence]:
    """The occurrences of a series, or of a single event, for which nothing else stands in."""
    taken = {_in_frame(moment, master).instant() for moment in replaced}
    taken |= {_in_frame(event.replaces, master).instant() for event in stand_ins if event.replaces}
    if not master.repeats:
        if master.start.instant() not in taken:
            yield _at(master, master.start, master.uid, master)
        return
    own_lengths = {_in_frame(moment, master).instant(): lasts for moment, lasts in master.extra if lasts}
    later = [event for event in stand_ins if event.and_later]
    for event, original, begins in _expand(master, later, start, end):
        if original.instant() in taken or event.cancelled:
            continue
        one = _at(event, begins, f"{event.uid}/{original.key()}", master)
        lasts = own_lengths.get(original.instant())
        yield one if lasts is None else replace(one, end=one.start + lasts)


def _in_frame(moment: Moment, master: Event | None) -> Moment:
    """The same moment by the clock of the series; a bare date means the series' time on that date."""
    if master is None:
        return moment
    base = master.start
    if base.all_day:
        wall = moment.wall if moment.all_day else moment.instant().astimezone(base.zone).replace(tzinfo=None)
        return Moment(datetime.combine(wall.date(), time.min), base.zone, all_day=True)
    if moment.all_day:
        return Moment(datetime.combine(moment.wall.date(), base.wall.time()), base.zone)
    if moment.zone is base.zone:
        return moment
    return Moment(moment.instant().astimezone(base.zone).replace(tzinfo=None), base.zone)


def _expand(
    master: Event, later: Sequence[Event], start: datetime, end: datetime
) -> list[tuple[Event, Moment, Moment]]:
    """(event, the start its series gave it, the start it has) around the window."""
    for rule in master.rules:
        check_rule(rule)
    zone, all_day = master.start.zone, master.start.all_day
    calendar = icalendar.Calendar()
    shifts = [timedelta(0)]
    calendar.add_component(_bare(master, master, 0))
    for number, event in enumerate(later, start=1):
        calendar.add_component(_bare(event, master, number))
        if event.replaces is not None:
            original = _in_frame(event.replaces, master).wall
            shifts.append(_in_frame(event.start, master).wall - original)
    first = start.astimezone(zone).replace(tzinfo=None) - _MARGIN
    last = end.astimezone(zone).replace(tzinfo=None) + _MARGIN
    try:
        (series,) = recurring_ical_events.CalendarQuery(calendar).series
        components = [
            occurrence.as_component(False)
            for occurrence in islice(series.between(first, last), MAX_OCCURRENCES + 1)
        ]
    except LIBRARY_ERRORS as error:
        raise NotUnderstood(f"The recurrence rule cannot be followed: {error}.", _EXAMPLE) from None
    if len(components) > MAX_OCCURRENCES:
        raise NotUnderstood(
            f"The event repeats more than {MAX_OCCURRENCES} times from {start:%Y-%m-%d} to {end:%Y-%m-%d}.",
            _EXAMPLE,
        )
    made = []
    for component in components:
        number = int(component["X-NUMBER"])
        begins_at = Moment(component["DTSTART"].dt, zone, all_day)
        made.append(((master, *later)[number], begins_at.shifted(-shifts[number]), begins_at))
    return made


def _bare(event: Event, master: Event, number: int) -> icalendar.Event:
    """An event with nothing but its times, by the clock of its series; X-NUMBER tells which it was."""
    wall = _in_frame(event.start, master).wall
    bare = icalendar.Event()
    bare["X-NUMBER"] = vInt(number)
    bare["UID"] = "series"
    bare["DTSTART"] = vDDDTypes(wall)
    bare["DTEND"] = vDDDTypes(wall + event.length.days + event.length.exact)
    if event.replaces is not None:
        bare["RECURRENCE-ID"] = vDDDTypes(_in_frame(event.replaces, master).wall)
        bare["RECURRENCE-ID"].params["RANGE"] = "THISANDFUTURE"
        return bare
    bare["RRULE"] = [_by_the_clock(rule, master) for rule in event.rules]
    bare["RDATE"] = vDDDLists([_in_frame(moment, master).wall for moment, _ in event.extra])
    bare["EXDATE"] = vDDDLists([_excluded(moment, master) for moment in event.excluded])
    return bare


def _excluded(moment: Moment, master: Event) -> date:
    """A date without a time excludes all of a timed series' instances on that day."""
    if moment.all_day and not master.start.all_day:
        return moment.wall.date()
    return _in_frame(moment, master).wall


def _by_the_clock(rule: vRecur, master: Event) -> vRecur:
    """The rule with its UNTIL read by the clock of the series; an UNTIL without a time includes its day."""
    rule = vRecur(dict(rule))
    untils: Iterable[date] = rule.get("UNTIL", [])
    walls = []
    for until in untils:
        if until.year > LATEST_YEAR:
            wall = datetime(LATEST_YEAR, 12, 31)  # noqa: DTZ001
        elif not isinstance(until, datetime):
            wall = datetime.combine(until, time(23, 59, 59))
        elif until.tzinfo is not None:
            wall = until.astimezone(master.start.zone).replace(tzinfo=None)
        else:
            wall = until
        walls.append(wall)
    if walls:
        rule["UNTIL"] = walls
    return rule


# --- rules that are refused ---------------------------------------------------------------------------


def check_rule(rule: vRecur) -> None:
    """Refuse a rule that would keep the expansion busy for more than a second or two, or for ever.

    The library walks from the first instance to the window, and on to the year 9999 where nothing
    matches. What is refused: a repetition by hour, minute or second; an interval or count below 1;
    more than `MAX_TIMES_A_DAY` instances in a day; days that do not exist, such as 30 February;
    BYSETPOS in a daily rule; COUNT together with UNTIL, which RFC 5545 section 3.3.10 forbids.

    Raises:
        NotUnderstood: naming the part of the rule that is refused.
    """
    frequency = str(next(iter(rule.get("FREQ", [])), "missing"))
    if frequency not in _FREQUENCIES:
        raise NotUnderstood(
            f"FREQ in the recurrence rule is {frequency!r}, not one of {', '.join(_FREQUENCIES)}.",
            "RRULE:FREQ=DAILY;BYHOUR=0,6,12,18",
        )
    for part in ("INTERVAL", "COUNT"):
        if any(int(number) < 1 for number in rule.get(part, [])):
            raise NotUnderstood(f"{part} in the recurrence rule is {rule[part][0]}, not 1 or more.", _EXAMPLE)
    if "COUNT" in rule and "UNTIL" in rule:
        raise NotUnderstood("The recurrence rule has both COUNT and UNTIL.", "RRULE:FREQ=DAILY;COUNT=5")
    times = prod(max(1, len(rule.get(part, []))) for part in ("BYHOUR", "BYMINUTE", "BYSECOND"))
    if times > MAX_TIMES_A_DAY:
        raise NotUnderstood(
            f"The event repeats {times} times a day; at most {MAX_TIMES_A_DAY} are understood.",
            "RRULE:FREQ=DAILY;BYHOUR=0,6,12,18",
        )
    if frequency == "DAILY" and "BYSETPOS" in rule:
        raise NotUnderstood("BYSETPOS has no meaning in a daily recurrence rule.", "RRULE:FREQ=DAILY")
    months = [int(month) for month in rule.get("BYMONTH", range(1, 13))]
    longest = max((_DAYS_IN_MONTH[month - 1] for month in months if 1 <= month <= 12), default=0)
    days = [abs(int(day)) for day in rule.get("BYMONTHDAY", [1])]
    if min(days, default=1) > longest:
        raise NotUnderstood(
            "The recurrence rule names days that no month has.", "RRULE:FREQ=MONTHLY;BYMONTHDAY=-1"
        )
