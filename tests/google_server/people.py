"""What people do in the calendar's web page, as functions for tests."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from tests.google_server.accounts import Actor
from tests.google_server.events import Events
from tests.google_server.recurrence import instance_id
from tests.google_server.resources import shown
from tests.google_server.store import ROLES, Calendar, Store
from tests.google_server.times import Json, stamp

if TYPE_CHECKING:
    from collections.abc import Sequence

When = datetime | date | str
"""A time: aware, or in the calendar's zone; a date for all-day; or either in ISO form."""

ADA = "ada@example.org"


class CalendarHandle:
    """One calendar in the hands of the people who use it. Everything is answered as Google would show it."""

    def __init__(self, store: Store, calendar: Calendar) -> None:
        self._store = store
        self._calendar = calendar

    @property
    def id(self) -> str:
        return self._calendar.id

    def share(self, email: str, role: str = "writer", listed: bool = False) -> None:
        """Shares the calendar with an account (``"default"``: everybody); ``none`` takes the access away.

        ``listed`` also puts it into the account's own list, which for service accounts does not happen by
        itself.
        """
        if role not in ROLES:
            raise ValueError(f"no role {role!r}; there are {', '.join(ROLES)}")
        with self._store.lock:
            self._calendar.roles[email] = role
            if listed and email not in self._calendar.listed_by:
                self._calendar.listed_by.append(email)
            self._store.save()

    def add(
        self,
        summary: str,
        start: When,
        end: When,
        description: str | None = None,
        *,
        by: str = ADA,
        repeat: str | Sequence[str] = (),
        time_zone: str | None = None,
        **fields: Any,
    ) -> Json:
        """A person makes an event; ``repeat`` is one RRULE line or several lines."""
        body = {
            "summary": summary,
            "start": self._time(start, time_zone),
            "end": self._time(end, time_zone),
        }
        lines = [repeat] if isinstance(repeat, str) else list(repeat)
        optional = {"description": description, "recurrence": lines or None}
        body |= {key: value for key, value in optional.items() if value is not None}
        given = {key: fields.pop(key) for key in list(fields) if key in SERVER_SIDE}
        with self._store.lock:
            row = self._events(by).insert(body | fields, given.pop("id", None))
            if given:
                self._calendar.events[row.id].data.update(given)
                self._store.save()
        return self.event(row.id)

    def edit(self, event_id: str, *, by: str = ADA, **fields: Any) -> Json:
        """A person changes fields of an event, a series or one instance; ``None`` takes a field away."""
        given = {key: fields.pop(key) for key in list(fields) if key in SERVER_SIDE}
        for side in ("start", "end"):
            if side in fields and not isinstance(fields[side], dict):
                fields[side] = {"date": None, "dateTime": None} | self._time(fields[side], None)
        with self._store.lock:
            self._events(by).patch(event_id, fields)
            if given:
                # of series and single events only: an instance takes these from its series
                self._calendar.events[event_id].data.update(given)
                self._store.save()
        return self.event(event_id)

    def move(self, event_id: str, start: When, end: When, *, by: str = ADA) -> Json:
        """A person drags an event or one instance to another time."""
        return self.edit(event_id, by=by, start=start, end=end)

    def cancel(self, event_id: str, *, by: str = ADA) -> None:
        """A person deletes an event, a series, or one instance."""
        with self._store.lock:
            self._events(by).delete(event_id)

    def instance(self, series_id: str, original: When) -> str:
        """The id of the instance that the series has at that start."""
        body = self._time(original, None)
        if "date" in body:
            return instance_id(series_id, date.fromisoformat(body["date"]))
        return instance_id(series_id, datetime.fromisoformat(body["dateTime"]))

    def event(self, event_id: str) -> Json:
        """The event as its owner sees it, with what the scheduler wrote; cancelled ones are bare."""
        with self._store.lock:
            row = self._events(self._calendar.owner).row(event_id)
            return shown(row, self._calendar, "owner", ZoneInfo(self._calendar.time_zone))

    def events(self) -> list[Json]:
        """All events, series and changed instances there ever were, in the order of their making."""
        with self._store.lock:
            names = [name for key, event in self._calendar.events.items() for name in (key, *event.instances)]
            return [self.event(name) for name in names]

    def private(self, event_id: str) -> dict[str, str]:
        """``extendedProperties.private`` of an event: the scheduler's machine-readable state."""
        return dict(self.event(event_id).get("extendedProperties", {}).get("private", {}))

    def forget_sync_tokens(self) -> None:
        """Every sync token handed out so far is answered with 410 from now on."""
        with self._store.lock:
            self._store.touch(self._calendar)
            self._calendar.oldest_sync = self._store.change
            self._store.save()

    def _events(self, by: str) -> Events:
        if self._calendar.role_of(by) == "none":
            self._calendar.roles[by] = "writer"
        return Events(self._store, self._calendar, Actor(by))

    def _time(self, when: When, time_zone: str | None) -> Json:
        name = time_zone or self._calendar.time_zone
        if isinstance(when, str):
            when = datetime.fromisoformat(when) if "T" in when or ":" in when else date.fromisoformat(when)
        if not isinstance(when, datetime):
            return {"date": when.isoformat()}
        aware = when if when.tzinfo else when.replace(tzinfo=ZoneInfo(name))
        return {"dateTime": stamp(aware), "timeZone": name}


SERVER_SIDE = ("id", "locked", "endTimeUnspecified", "creator", "organizer", "created", "eventType")
"""Fields no client may set, and a test may: they are put into the stored event as they are."""
