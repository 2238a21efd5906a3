"""Links that open Google Calendar's form for a new event, filled in; nothing is booked by following one."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlencode

from calendars.event_text import render_request
from calendars.reservation import ModelRequest

FORM = "https://calendar.google.com/calendar/render"


def new_event(
    request: ModelRequest, start: datetime, end: datetime, calendar: str | None = None, title: str = ""
) -> str:
    """The form with a booking in it.

    Args:
        calendar: id of the calendar it is to be put in; the reader's own one if None.

    Raises:
        ValueError: the request cannot be written in an event.
    """
    fields = {
        "action": "TEMPLATE",
        "text": title or request.model,
        "dates": f"{_stamp(start)}/{_stamp(end)}",
        "details": render_request(request),
    }
    if calendar:
        fields["src"] = calendar
    return f"{FORM}?{urlencode(fields)}"


def _stamp(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
