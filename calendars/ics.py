"""A calendar in an .ics file or behind a URL, and the file a first start begins with."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import count
from pathlib import Path
from zoneinfo import ZoneInfo

import icalendar

from calendars import ics_writing
from calendars.called import command
from calendars.event_text import MAX_TITLE_CHARACTERS, Problem, parse_event
from calendars.ics_events import Event, EventFault, read_events
from calendars.ics_location import display_name, fetch, local_path
from calendars.ics_series import Occurrence, occurrences
from calendars.ics_stream import NotACalendar
from calendars.reservation import Misunderstood, ModelRequest, Reading, Reservation
from calendars.source import CalendarUnavailable, NewEvent, Scope


class IcsCalendar:
    """Reads an iCalendar text (RFC 5545) from a path, a ``file://`` or an ``http(s)://`` URL.

    ``webcal://`` is fetched over https, from loopback hosts over http. Every rule below has a test of
    its own in ``tests/calendars/test_ics_rules.py``.

    What counts
        An event is shown when it overlaps the half-open window: one that ends as the window starts, or
        starts as it ends, is not in it.
        A cancelled event (STATUS:CANCELLED) is ignored, and a cancelled instance is taken out of its series.
        A tentative event counts like a confirmed one.
        TRANSP, CLASS, attendees and alarms change nothing: they speak of people's time, not of the model's.
        Tasks, journal entries and free/busy times are not events.
        Several calendars in one text are read as one.

    Times
        A time with TZID is in that zone of the tz database or of Windows, else in the calendar's VTIMEZONE
        of that name; a name that is neither makes the event misunderstood.
        A floating time is in the calendar's zone: X-WR-TIMEZONE, else ``default_timezone``.
        An all-day event runs from midnight to midnight in the calendar's zone, its end date exclusive.
        A time that the clock skips is read with the offset from before the skip.
        A time that the clock shows twice means the first.
        A DTSTART that is a date, without an end, lasts one day; one with a time needs DTEND or DURATION.
        DURATION counts days by the calendar and hours exactly: P1D keeps the clock time, PT24H does not.
        An event lasts at most 366 days and lies in the years 1970 to 2199.

    Series
        An instance keeps the clock time of its series across a change of offset.
        An instance lasts exactly as long as the first, where the first has DTEND (RFC 5545 section 3.8.5.3).
        EXDATE takes an instance out; a date without a time takes out all instances of that day.
        RDATE adds an instance, with a length of its own where it is a PERIOD.
        An event with RECURRENCE-ID stands in for that instance, even where it is misunderstood itself.
        RANGE=THISANDFUTURE moves and renames the later instances too.
        UNTIL includes the instance that starts then; an UNTIL without a time includes its whole day.
        A series that repeats more than 1000 times in the window, more often than daily rules can say, or
        by a rule that never matches, is misunderstood.

    Who and which
        The key of an event is its UID; of an instance, its UID and the start its series gave it, so it
        stays when the instance is moved.
        Events with one UID and different SEQUENCE are revisions, and the highest counts; with the same
        SEQUENCE the first counts and the others are misunderstood.
        ``booked_at`` is CREATED, else DTSTAMP, else the start; instances have that of their series.
        The owner is the organizer's mail address in lower case.
        The people of an event are the organizer and the attendees, but not those who declined, and rooms.

    What is wrong
        One event that is not understood never hides another.
        An event that is misunderstood is reported while it overlaps the window, and always where its time
        is not known or it repeats; where only its end is not known, until a day after its start.
        A series whose text is misunderstood is reported once, not once for each instance.
        A text that is not complete makes the calendar unavailable: it is not an empty calendar.
    """

    def __init__(
        self,
        location: str,
        *,
        timeout_seconds: float = 20.0,
        default_timezone: str = "UTC",
        retry_pause_seconds: float = 0.5,
    ) -> None:
        """``timeout_seconds`` bounds a whole fetch by URL; before its second attempt at a URL that fails
        in passing it pauses for ``retry_pause_seconds``, before the third for twice as long.

        Raises:
            ValueError: ``default_timezone`` is not in the tz database.
        """
        self._location = location
        self._timeout_seconds = timeout_seconds
        self._retry_pause_seconds = retry_pause_seconds
        try:
            self._default_zone: tzinfo = ZoneInfo(default_timezone)
        except (KeyError, OSError, ValueError):
            raise ValueError(
                f"{default_timezone!r} is not a time zone; write one like Europe/Berlin"
            ) from None
        self._events: tuple[Event | EventFault, ...] = ()
        self._events_digest = b""

    @property
    def name(self) -> str:
        """The path, or the URL without user, password, query and secret-looking parts of its path."""
        return display_name(self._location)

    def read(self, start: datetime, end: datetime) -> Reading:
        """Every occurrence that overlaps ``[start, end)``, sorted by start and key.

        Raises:
            CalendarUnavailable: the text could not be fetched, or is not a complete iCalendar text.
            ValueError: a bound is naive, or the window is empty.
        """
        if start.tzinfo is None or end.tzinfo is None or start >= end:
            raise ValueError(f"not a window of time: {start} to {end}")
        start, end = start.astimezone(UTC), end.astimezone(UTC)
        by_uid: dict[str, list[Event | EventFault]] = {}
        for number, entry in enumerate(self._fetch_events()):
            by_uid.setdefault(entry.uid or f"\0{number}", []).append(entry)
        reservations: list[Reservation] = []
        verdicts: list[Misunderstood] = []
        for entries in by_uid.values():
            found, faults = occurrences(entries, start, end)
            verdicts += [self._verdict(fault) for fault in faults if _concerns(fault, start, end)]
            for one in self._understand(found):
                if isinstance(one, Reservation):
                    reservations.append(one)
                else:
                    verdicts.append(one)
        return Reading(
            calendar=self.name,
            reservations=tuple(sorted(reservations, key=lambda one: (one.start, one.key))),
            misunderstood=tuple(_with_keys_of_their_own(verdicts, {one.key for one in reservations})),
        )

    @property
    def path(self) -> Path | None:
        """The file it lies in; None behind a URL, where it can only be read."""
        return local_path(self._location)

    def insert(self, event: NewEvent) -> str:
        """Make an event in the file; see `calendars.source.Bookable`. A missing file is made."""

        def change(content: bytes | None) -> bytes:
            text = ics_writing.new_calendar() if content is None else content
            return ics_writing.with_event(text, event, self._default_zone)

        ics_writing.write(self._writable_path(), change, self.name)
        return ics_writing.uid(event)

    def scope(self, key: str) -> Scope | None:
        """What cancelling this key would take away, by the file as it is now."""
        try:
            found = ics_writing.find(self._fetch(), key, self._default_zone)
        except (CalendarUnavailable, NotACalendar):
            return None
        return found.scope if found else None

    def cancel(self, key: str) -> None:
        """Take an event, a series or an instance out of the file; see `calendars.source.Bookable`."""

        def change(content: bytes | None) -> bytes:
            found = ics_writing.find(content or b"", key, self._default_zone)
            if found is None:
                raise CalendarUnavailable(
                    f"The calendar {self.name} has no booking {key}.",
                    f"“{command('calendar list')}” shows the keys.",
                )
            return ics_writing.without(content or b"", found, self._default_zone)

        ics_writing.write(self._writable_path(), change, self.name)

    def _writable_path(self) -> Path:
        if self.path is None:
            raise CalendarUnavailable(
                f"The calendar {self.name} lies behind a URL, so it can only be read here.",
                "Make the change where the calendar is kept.",
            )
        return self.path

    def _fetch(self) -> bytes:
        return fetch(
            self._location,
            timeout_seconds=self._timeout_seconds,
            retry_pause_seconds=self._retry_pause_seconds,
        )

    def _fetch_events(self) -> tuple[Event | EventFault, ...]:
        """The events of the text as it is now; parsed again only when it has changed."""
        content = self._fetch()
        digest = hashlib.sha256(content).digest()
        if digest != self._events_digest:
            try:
                self._events = read_events(content, self._default_zone)
            except NotACalendar as error:
                raise CalendarUnavailable(
                    f"The calendar {self.name} {error}.",
                    "Check what lies there, and that whatever writes it does so in one step "
                    "(write another file, then rename it).",
                ) from None
            self._events_digest = digest
        return self._events

    def _understand(self, found: list[Occurrence]) -> Iterator[Reservation | Misunderstood]:
        """Requests out of the texts of one UID's occurrences; each text is read once."""
        requests: dict[int, ModelRequest | Problem] = {}
        for one in sorted(found, key=lambda one: one.start):
            event = one.event
            known = id(event) in requests
            request = requests.setdefault(id(event), parse_event(event.title, event.description))
            if isinstance(request, ModelRequest):
                yield Reservation(
                    key=one.key,
                    calendar=self.name,
                    title=event.title,
                    start=one.start,
                    end=one.end,
                    booked_at=one.booked_at,
                    owner=event.owner,
                    people=event.people,
                    request=request,
                )
            elif not known:
                yield Misunderstood(
                    key=_text_key(one),
                    calendar=self.name,
                    title=event.title[:MAX_TITLE_CHARACTERS],
                    start=one.start,
                    end=one.end,
                    owner=event.owner,
                    reason=request.reason,
                    example=request.example,
                )

    def _verdict(self, fault: EventFault) -> Misunderstood:
        return Misunderstood(
            key=fault.key,
            calendar=self.name,
            title=fault.title[:MAX_TITLE_CHARACTERS],
            start=fault.start,
            end=fault.end,
            owner=fault.owner,
            reason=fault.reason,
            example=fault.example,
        )


def _text_key(one: Occurrence) -> str:
    """Names the text of an occurrence. The key of a first instance would change as the window moves."""
    if one.event.repeats:
        return one.event.uid
    if one.event.and_later and one.event.replaces is not None:
        return f"{one.event.uid}/{one.event.replaces.key()}"
    return one.key


def _concerns(fault: EventFault, start: datetime, end: datetime) -> bool:
    """Whether a window has to do with an event that is not understood; its class says when."""
    if fault.cancelled:
        return False
    if fault.start is None or fault.repeats:
        return True
    return fault.start < end and (fault.end or fault.start + timedelta(days=1)) > start


def _with_keys_of_their_own(verdicts: list[Misunderstood], taken: set[str]) -> Iterator[Misunderstood]:
    """The verdicts by key; a key that something before already has gets a number."""
    for verdict in sorted(verdicts, key=lambda one: one.key):
        key = verdict.key
        numbers = count(2)
        while key in taken:
            key = f"{verdict.key}#{next(numbers)}"
        taken.add(key)
        yield verdict.model_copy(update={"key": key})


_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What file systems without hard links answer; there, two first starts at once are told apart less well."""


def write_starter_calendar(
    path: Path | str, *, title: str, start: datetime, end: datetime, now: datetime, description: str = ""
) -> bool:
    """Write a calendar with one event, for a person to edit. True if written, False if there is a file.

    An existing file is never touched, whatever is in it. The new one appears complete or not at all.
    Missing directories are made. Times are aware and are written in UTC, to the second.

    Raises:
        OSError: the file cannot be written.
        ValueError: a time is naive, or the event does not end after it starts.
    """
    if any(moment.tzinfo is None for moment in (start, end, now)) or _to_second(start) >= _to_second(end):
        raise ValueError(f"not a booking: {start} to {end}, written at {now}")
    calendar = _new_calendar()
    calendar.add_component(_starter_event(title, description, *map(_to_second, (start, end, now))))
    return _write_new(Path(path), bytes(calendar.to_ical()))


def write_empty_calendar(path: Path | str) -> bool:
    """Write a calendar with nothing in it. True if written, False if there is a file, which is not touched.

    Raises:
        OSError: the file cannot be written.
    """
    return _write_new(Path(path), bytes(_new_calendar().to_ical()))


def _write_new(path: Path, text: bytes) -> bool:
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        # A link, unlike a rename, fails where another process has put a file there meanwhile.
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if path.exists():
            return False
        Path(temporary).rename(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return True


def _to_second(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)


def _new_calendar() -> icalendar.Calendar:
    calendar = icalendar.Calendar()
    calendar.add("PRODID", "-//ndif-ray//model bookings//EN")
    calendar.add("VERSION", "2.0")
    calendar.add("X-WR-CALNAME", "Model bookings")
    return calendar


def _starter_event(
    title: str, description: str, start: datetime, end: datetime, now: datetime
) -> icalendar.Event:
    event = icalendar.Event()
    event.add("UID", f"{start:%Y%m%dT%H%M%SZ}-starter@ndif-ray")
    event.add("DTSTAMP", now)
    event.add("CREATED", now)
    event.add("DTSTART", start)
    event.add("DTEND", end)
    event.add("SUMMARY", title)
    if description:
        event.add("DESCRIPTION", description)
    return event
