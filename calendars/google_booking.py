"""Making and cancelling events of a Google calendar."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from calendars.called import command
from calendars.google_client import Conversation, GoogleClient
from calendars.google_events import Target
from calendars.google_failures import QUOTA_CODES, RATE_CODES, GoogleUnavailable
from calendars.source import CalendarUnavailable, NewEvent, Scope


class Cancellable(NamedTuple):
    """What is deleted for a key: an event's id, and how much of a series that is."""

    event_id: str
    scope: Scope


def cancellable(
    targets: Iterable[tuple[str, Target]], said_of_series: Iterable[str], key_prefix: str
) -> dict[str, Cancellable]:
    """What can be cancelled after a reading, by key.

    Beside each occurrence that is its whole series, under the part of the key before the start.
    ``said_of_series`` are the keys of verdicts on the text of a whole series, which stand for the series.
    """
    whole = set(said_of_series)
    found: dict[str, Cancellable] = {}
    for key, target in targets:
        if not target.instance:
            found[key] = Cancellable(target.event_id, "event")
            continue
        series_key = key.rpartition("/")[0]
        series = Cancellable(series_key.removeprefix(key_prefix), "series")
        found[key] = series if key in whole else Cancellable(target.event_id, "instance")
        if series_key.startswith(key_prefix) and series.event_id:
            found[series_key] = series
    return found


def insert(client: GoogleClient, event: NewEvent) -> None:
    """Make an event under the id it brings along.

    Sent again after a lost answer: Google refuses an id it has already, and that is then this event.

    Raises:
        GoogleUnavailable: it was refused, or it is not known whether it arrived.
    """
    body: dict[str, object] = {
        "id": event.event_id,
        "summary": event.title,
        "description": event.description,
        "start": {"dateTime": event.start.isoformat()},
        "end": {"dateTime": event.end.isoformat()},
    }

    def operation(conversation: Conversation) -> None:
        try:
            conversation.insert(body)
        except GoogleUnavailable as error:
            if error.status != 409:
                raise

    _send(client, operation)


def cancel(client: GoogleClient, event_id: str) -> None:
    """Delete an event, a series or an instance; one that is gone already is as good.

    Raises:
        GoogleUnavailable: it was refused, or it is not known whether it arrived.
    """

    def operation(conversation: Conversation) -> None:
        try:
            conversation.delete(event_id)
        except GoogleUnavailable as error:
            # 404 is also what a calendar answers that is no longer shared; it could be read just now.
            if error.status not in (404, 410):
                raise

    _send(client, operation)


def _send(client: GoogleClient, operation: Callable[[Conversation], None]) -> None:
    try:
        client.converse(operation)
    except GoogleUnavailable as error:
        if not error.transient or set(error.codes) & (RATE_CODES | QUOTA_CODES):
            raise
        look = f"look with “{command('calendar list')}” before doing it once more."
        remedy = f"{error.remedy} Whether it arrived is not known: {look}"
        raise GoogleUnavailable(error.reason, remedy, status=error.status, transient=True) from error


def unknown_key(calendar: str, key: str) -> CalendarUnavailable:
    """For a key that the last reading did not have."""
    return CalendarUnavailable(
        f"The calendar {calendar} has no booking {key}.", f"“{command('calendar list')}” shows the keys."
    )
