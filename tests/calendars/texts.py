"""iCalendar texts for the tests, written as a person would, and reading them from a file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent

from calendars.ics import IcsCalendar
from calendars.reservation import Reading

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def at(text: str) -> datetime:
    """``2026-03-02 09:00`` in UTC, or with an offset of its own."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def event(lines: str, *, title: str = MODEL, uid: str = "one") -> str:
    """A VEVENT with these lines, a title and a UID; an empty title or UID leaves the line out."""
    own = [f"UID:{uid}"] * bool(uid) + [f"SUMMARY:{title}"] * bool(title)
    return "\n".join(["BEGIN:VEVENT", *own, dedent(lines).strip("\n"), "END:VEVENT"])


GOOD = event("DTSTART:20260302T090000Z\nDTEND:20260302T100000Z", uid="good", title="good/model")
"""An ordinary event in March 2026; nothing that stands beside it may hide it."""


def calendar(*parts: str) -> str:
    return "\n".join(["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//test//EN", *parts, "END:VCALENDAR", ""])


def read(
    folder: Path,
    *parts: str,
    window: tuple[str, str] = ("2026-03-01", "2026-04-01"),
    default_timezone: str = "UTC",
) -> Reading:
    """What `IcsCalendar` makes of a calendar with these parts."""
    path = folder / "calendar.ics"
    path.write_text(calendar(*parts), encoding="utf-8")
    return IcsCalendar(str(path), default_timezone=default_timezone).read(at(window[0]), at(window[1]))


def times(reading: Reading) -> list[str]:
    """``2026-03-02 09:00 10:00`` for each reservation, in UTC; the end's date where it is another day."""
    assert not reading.misunderstood, reading.misunderstood
    return [
        f"{one.start:%Y-%m-%d %H:%M} {one.end:%H:%M}"
        if one.end.date() == one.start.date()
        else f"{one.start:%Y-%m-%d %H:%M} {one.end:%Y-%m-%d %H:%M}"
        for one in reading.reservations
    ]
