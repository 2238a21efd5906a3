"""The look at an .ics file or URL: can it be read, can bookings be made in it."""

from __future__ import annotations

import os
from datetime import datetime

from calendars.called import command
from calendars.finding import Finding, booked, failed
from calendars.ics import IcsCalendar
from calendars.source import CalendarUnavailable


def check_ics(calendar: IcsCalendar, start: datetime, end: datetime) -> list[Finding]:
    """Whether an .ics file or URL can be read, and whether bookings can be made in it."""
    step = "address" if calendar.path is None else "file"
    try:
        reading = calendar.read(start, end)
    except CalendarUnavailable as error:
        return [failed(step, error), _writable(calendar)]
    return [
        Finding(step=step, outcome="ok", found=f"{calendar.name} can be read"),
        _writable(calendar),
        booked(reading),
    ]


def _writable(calendar: IcsCalendar) -> Finding:
    path = calendar.path
    if path is None:
        return Finding(
            step="writing",
            outcome="note",
            found="it lies behind a URL, so it can only be read: bookings are made where it is kept",
        )
    path = path.resolve()
    folder = next(one for one in path.parents if one.exists())
    if path.is_dir() or not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        return Finding(
            step="writing",
            outcome="note",
            found=f"it can only be read: “{command('calendar book')}” cannot write to it",
            remedy=f"Let this user write {path} and its folder, if that is wanted.",
        )
    return Finding(step="writing", outcome="ok", found="bookings can be made in it; it is not answered in")
