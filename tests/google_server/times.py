"""Times on the wire: RFC 3339, all-day dates, and the window an event covers.

Source of every rule: the discovery document (``EventDateTime``, parameters of ``events.list``).
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from tests.google_server.errors import bad_request

Json = dict[str, Any]
Moment = datetime | date
"""A start or an end: an aware datetime, or a date when the event is all-day."""


def zone(name: str) -> ZoneInfo:
    """The IANA zone of that name; 400 when there is none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise bad_request(f"Invalid time zone definition: {name}") from None


def instant(text: str, parameter: str | None = None) -> datetime:
    """An RFC 3339 timestamp with its mandatory offset, in UTC; 400 otherwise."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        value = None
    if value is None or value.tzinfo is None or "T" not in text.upper():
        raise bad_request("Bad Request", parameter, "badRequest")
    return value.astimezone(UTC)


def stamp(moment: datetime) -> str:
    """How Google writes ``created`` and ``updated``: UTC with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def local_text(moment: datetime, in_zone: ZoneInfo) -> str:
    """How Google writes ``dateTime``: local time with its offset, ``Z`` for UTC."""
    return moment.astimezone(in_zone).isoformat(timespec="seconds").replace("+00:00", "Z")


def moment(value: Json, which: str, calendar_zone: str) -> Moment:
    """Reads a ``start`` or ``end``.

    ``dateTime`` needs an offset unless ``timeZone`` names the zone it is meant in; exactly one of ``date``
    and ``dateTime`` must be there.
    """
    if ("date" in value) == ("dateTime" in value):
        raise bad_request(f"Invalid {which} time.")
    try:
        if "date" in value:
            return date.fromisoformat(value["date"])
        at = datetime.fromisoformat(value["dateTime"])
    except ValueError:
        raise bad_request(f"Invalid {which} time.") from None
    if at.tzinfo is not None:
        return at.astimezone(UTC)
    if "timeZone" not in value:
        raise bad_request(f"Missing time zone definition for {which} time.", reason="required")
    return at.replace(tzinfo=zone(value["timeZone"] or calendar_zone)).astimezone(UTC)


def as_instant(at: Moment, calendar_zone: str) -> datetime:
    """All-day bounds mean midnight in the calendar's own zone."""
    if isinstance(at, datetime):
        return at
    return datetime.combine(at, time.min, zone(calendar_zone)).astimezone(UTC)


def written(at: Moment, time_zone: str | None) -> Json:
    """A ``start`` or ``end`` as stored: instants in UTC, together with the zone they were meant in."""
    if not isinstance(at, datetime):
        return {"date": at.isoformat()}
    stored = {"dateTime": at.astimezone(UTC).isoformat()}
    return stored | ({"timeZone": time_zone} if time_zone else {})


def duration(start: Moment, end: Moment) -> timedelta:
    """Days between dates, exact time between instants."""
    if isinstance(start, datetime) and isinstance(end, datetime):
        return end - start
    if not isinstance(start, datetime) and not isinstance(end, datetime):
        return end - start
    raise bad_request("Start and end times must either both be date or both be dateTime.")


def window(data: Json, calendar_zone: str) -> tuple[datetime, datetime]:
    """The instants at which a stored event starts and ends."""
    return (
        as_instant(moment(data["start"], "start", calendar_zone), calendar_zone),
        as_instant(moment(data["end"], "end", calendar_zone), calendar_zone),
    )


def overlaps(start: datetime, end: datetime, low: datetime | None, high: datetime | None) -> bool:
    """``events.list``: ``timeMin`` bounds the end, ``timeMax`` bounds the start, both exclusive."""
    return (low is None or end > low) and (high is None or start < high)
