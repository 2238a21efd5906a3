"""Making and cancelling events in an .ics file.

The text is cut and pasted by whole lines, so that whatever is not about the booking stays as it is, byte for
byte. Before a file is replaced, the new text is read back: it must say what the old one said, but for the
booking. The replacement is one step (another file, then a rename).
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path

import icalendar

from calendars.ics_events import Event, EventFault, read_events
from calendars.ics_series import occurrences
from calendars.ics_stream import NotACalendar
from calendars.source import CalendarUnavailable, NewEvent, Scope

UID_DOMAIN = "ndif-ray"

_BY_HAND = "Edit the file with a calendar program or an editor."


@dataclass(frozen=True)
class Found:
    """What a key stands for in a text: the numbers of its VEVENTs, and how much of a series it is.

    ``at`` is the instant of an instance's original start, or the day for all-day series.
    """

    scope: Scope
    blocks: tuple[int, ...]
    master: int | None = None
    at: datetime | date | None = None


def uid(event: NewEvent) -> str:
    """The UID, and so the key, of a new event."""
    return f"{event.event_id}@{UID_DOMAIN}"


def new_calendar() -> bytes:
    """A calendar without events."""
    calendar = icalendar.Calendar()
    calendar.add("PRODID", "-//ndif-ray//model bookings//EN")
    calendar.add("VERSION", "2.0")
    calendar.add("X-WR-CALNAME", "Model bookings")
    return bytes(calendar.to_ical())


def with_event(content: bytes, event: NewEvent, default_zone: tzinfo) -> bytes:
    """The text with one more event, before the last END:VCALENDAR.

    Raises:
        NotACalendar: the text is not a complete calendar.
        CalendarUnavailable: it cannot be changed without changing something else.
    """
    before = read_events(content, default_zone)
    made = icalendar.Event()
    made.add("UID", uid(event))
    made.add("DTSTAMP", event.made_at.replace(microsecond=0))
    made.add("CREATED", event.made_at.replace(microsecond=0))
    made.add("DTSTART", event.start.replace(microsecond=0))
    made.add("DTEND", event.end.replace(microsecond=0))
    made.add("SUMMARY", event.title)
    made.add("DESCRIPTION", event.description)
    lines = _lines(content)
    last = max(number for number, line in enumerate(lines) if _is(line, b"END:VCALENDAR"))
    lines.insert(last, _in_style_of(bytes(made.to_ical()), lines[0]))
    changed = b"".join(lines)
    after = read_events(changed, default_zone)
    if after[:-1] != before or not isinstance(after[-1], Event):
        raise _cannot_be_changed()
    return changed


def find(content: bytes, key: str, default_zone: tzinfo) -> Found | None:
    """What a key of a reading stands for; None where there is no such thing.

    Raises:
        NotACalendar: the text is not a complete calendar.
    """
    entries = read_events(content, default_zone)
    own = [number for number, one in enumerate(entries) if one.uid == key]
    if own:
        repeats = any(entries[number].repeats for number in own)
        return Found("series" if repeats else "event", tuple(own))
    for number, one in enumerate(entries):
        if one.uid is None and one.key == key:
            return Found("event", (number,))
        if one.uid is None or not key.startswith(f"{one.uid}/"):
            continue
        at = _instant(key.removeprefix(f"{one.uid}/"))
        if at is None:
            continue
        same = [index for index, other in enumerate(entries) if other.uid == one.uid]
        standing_in = [index for index in same if _replaces(entries[index], at)]
        master = next((index for index in same if entries[index].replaces is None), None)
        if standing_in or (master is not None and _has(entries, same, key, at)):
            return Found("instance", tuple(standing_in), master, at)
    return None


def without(content: bytes, found: Found, default_zone: tzinfo) -> bytes:
    """The text without what was found: its VEVENTs gone, an instance excluded from its series.

    Raises:
        NotACalendar: the text is not a complete calendar.
        CalendarUnavailable: it cannot be changed without changing something else.
    """
    before = read_events(content, default_zone)
    lines = _lines(content)
    spans = _spans(lines)
    if len(spans) != len(before) or any(_is_and_later(before[number]) for number in found.blocks):
        raise _cannot_be_changed()
    master = found.master if found.at is not None else None
    if master is not None and found.at is not None:
        start, end = spans[master]
        excluded = _exclusion(lines[start:end], before[master], found.at)
        lines[end - 1] = _in_style_of(excluded, lines[0]) + lines[end - 1]
    gone = {line for number in found.blocks for line in range(*spans[number])}
    changed = b"".join(line for number, line in enumerate(lines) if number not in gone)
    _check(before, read_events(changed, default_zone), found)
    return changed


def write(path: Path, change: Callable[[bytes | None], bytes], name: str) -> None:
    """Replace a file by what ``change`` makes of its content (None where there is no file), in one step.

    A file that changes meanwhile is read again. Symbolic links and permissions stay.

    Raises:
        CalendarUnavailable: the file cannot be read or written, or is not a complete calendar.
    """
    path = path.expanduser().resolve()
    try:
        for _ in range(3):
            content = path.read_bytes() if path.exists() else None
            new = change(content)
            if _replace(path, content, new):
                return
    except NotACalendar as error:
        raise CalendarUnavailable(
            f"The calendar {name} {error}, so nothing was written to it.", "Correct the file first."
        ) from None
    except OSError as error:
        words = error.strerror or type(error).__name__
        raise CalendarUnavailable(
            f"The calendar {name} cannot be written: {words[0].lower()}{words[1:]}.",
            f"Let this user write {path} and its folder, and make room on the disk.",
        ) from error
    raise CalendarUnavailable(
        f"The calendar {name} changed three times while it was being written to.", "Try again."
    )


def _replace(path: Path, expected: bytes | None, new: bytes) -> bool:
    """Put the new content in place; False where the file is not as expected any more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o7777 if expected is not None else 0o644
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(new)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        if (path.read_bytes() if path.exists() else None) != expected:
            return False
        if expected is not None and not os.access(path, os.W_OK):
            # A rename would go through: it asks for the folder's permission only.
            raise PermissionError(13, "Permission denied")
        Path(temporary).replace(path)
        return True
    finally:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()


# --- the text ----------------------------------------------------------------------------------------------


def _lines(content: bytes) -> list[bytes]:
    """Physical lines with their ends; the last one gets an end where it has none."""
    lines = content.splitlines(keepends=True) if b"\r" not in content.replace(b"\r\n", b"") else []
    if not lines:
        raise _cannot_be_changed()
    if not lines[-1].endswith(b"\n"):
        lines[-1] += b"\n"
    return lines


def _is(line: bytes, what: bytes) -> bool:
    return line.strip().upper() == what


def _in_style_of(text: bytes, line: bytes) -> bytes:
    """With line ends like those of the file."""
    return text if line.endswith(b"\r\n") else text.replace(b"\r\n", b"\n")


def _spans(lines: Sequence[bytes]) -> list[tuple[int, int]]:
    """The lines of each whole VEVENT; a broken one makes the count differ from what was read."""
    spans: list[tuple[int, int]] = []
    start: int | None = None
    for number, line in enumerate(lines):
        if _is(line, b"BEGIN:VEVENT"):
            start = number
        elif _is(line, b"END:VEVENT") and start is not None:
            spans.append((start, number + 1))
            start = None
    return spans


def _exclusion(block: Sequence[bytes], master: Event | EventFault, at: datetime | date) -> bytes:
    """The EXDATE line of an instance, written as the series writes its DTSTART."""
    text = b"".join(block).replace(b"\r\n", b"\n").replace(b"\n ", b"").replace(b"\n\t", b"")
    written = re.search(rb"^DTSTART([^:\n]*):(\S+)", text, re.MULTILINE | re.IGNORECASE)
    if isinstance(master, EventFault) or written is None:
        raise _cannot_be_changed()
    if not isinstance(at, datetime):
        value = f"{at:%Y%m%d}"
    elif written[2].upper().endswith(b"Z"):
        value = f"{at:%Y%m%dT%H%M%SZ}"
    else:
        value = f"{at.astimezone(master.start.zone):%Y%m%dT%H%M%S}"
    return b"EXDATE" + written[1] + b":" + value.encode() + b"\r\n"


# --- what it says ------------------------------------------------------------------------------------------


def _instant(written: str) -> datetime | date | None:
    """The part of a key behind the UID: ``20260302`` or ``20260302T090000Z``."""
    try:
        if "T" in written:
            return datetime.strptime(written, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return datetime.strptime(written, "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None


def _replaces(one: Event | EventFault, at: datetime | date) -> bool:
    if one.replaces is None:
        return False
    if isinstance(at, datetime):
        return one.replaces.instant() == at
    return one.replaces.wall.date() == at


def _is_and_later(one: Event | EventFault) -> bool:
    return isinstance(one, Event) and one.and_later


def _has(entries: Sequence[Event | EventFault], same: Sequence[int], key: str, at: datetime | date) -> bool:
    return key in _keys_around([entries[index] for index in same], at)


def _keys_around(entries: Sequence[Event | EventFault], at: datetime | date) -> set[str]:
    """The keys of the occurrences around an original start, moved ones within a year."""
    day = at if isinstance(at, datetime) else datetime(at.year, at.month, at.day, tzinfo=UTC)
    found, _ = occurrences(entries, day - timedelta(days=3), day + timedelta(days=3))
    return {one.key for one in found}


def _check(before: Sequence[Event | EventFault], after: Sequence[Event | EventFault], found: Found) -> None:
    """That nothing else changed: what is not taken out reads as before, but for the one exclusion."""
    left = [one for number, one in enumerate(before) if number not in found.blocks]
    if len(left) != len(after):
        raise _cannot_be_changed()
    master = before[found.master] if found.master is not None else None
    for old, new in zip(left, after, strict=True):
        if old is master and isinstance(old, Event) and isinstance(new, Event):
            own = [one for one in after if one.uid == old.uid]
            original = f"{old.uid}/{_written(found.at)}"
            if replace(new, excluded=old.excluded) != old or (
                found.at is not None and original in _keys_around(own, found.at)
            ):
                raise _cannot_be_changed()
        elif _meaning(old) != _meaning(new):
            raise _cannot_be_changed()


def _meaning(one: Event | EventFault) -> Event | EventFault:
    """Without the number of an event that has no name of its own: it counts those before it."""
    return replace(one, key="") if isinstance(one, EventFault) and one.uid is None else one


def _written(at: datetime | date | None) -> str:
    return f"{at:%Y%m%dT%H%M%SZ}" if isinstance(at, datetime) else f"{at:%Y%m%d}"


def _cannot_be_changed() -> CalendarUnavailable:
    return CalendarUnavailable(
        "The calendar file cannot be changed here without changing something else in it.", _BY_HAND
    )
