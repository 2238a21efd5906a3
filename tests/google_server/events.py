"""``events.get/insert/update/patch/delete/import`` and changes to single instances of a series.

The same functions serve the HTTP requests and the Python API: a person's edit and a client's write take one
path.
"""

from __future__ import annotations

import copy
import secrets

from tests.google_server import bodies
from tests.google_server.accounts import Actor
from tests.google_server.errors import (
    bad_request,
    deleted,
    duplicate,
    forbidden,
    not_found,
    precondition_failed,
    writer_required,
)
from tests.google_server.recurrence import instance_id, split_instance_id
from tests.google_server.resources import Row, at_least, instance_row, series_of
from tests.google_server.store import Calendar, Event, InstanceChange, Store, etag
from tests.google_server.times import Json, Moment, as_instant, moment


class Events:
    """Reads and writes of the events of one calendar by one actor; the store's lock must be held."""

    def __init__(self, store: Store, calendar: Calendar, actor: Actor) -> None:
        self.store = store
        self.calendar = calendar
        self.actor = actor
        self.role = calendar.role_of(actor.email)
        if self.role == "none":
            raise not_found()

    def row(self, event_id: str) -> Row:
        """The event, series or instance of that id, cancelled ones too; 404 when there never was one."""
        event, original = self._find(event_id)
        if original is None:
            return Row(event.data, event.change)
        return instance_row(event, series_of(event, self.calendar), original)

    def insert(self, body: object, if_id: str | None = None, import_uid: str | None = None) -> Row:
        """Creates an event; a client's own ``id`` must be new (409)."""
        self._need_writer()
        fields = bodies.accepted(body, not self.actor.service_account)
        event_id = if_id if if_id is not None else secrets.token_hex(13)
        bodies.check_id(event_id)
        if event_id in self.calendar.events:
            raise duplicate()
        if fields.get("eventType", "default") not in bodies.CREATABLE_TYPES:
            raise bad_request("Invalid event type.")
        data = {"status": "confirmed"} | bodies.merge({}, fields)
        data = bodies.settled(data, self.calendar.time_zone)
        change, now = self.store.touch(self.calendar)
        calendar = self.calendar
        head = {
            "id": event_id,
            "created": now,
            "updated": now,
            "creator": {"email": self.actor.email}
            | ({"self": True} if self.actor.email == calendar.id else {}),
            "organizer": {"email": calendar.id, "displayName": calendar.summary, "self": True},
            "iCalUID": import_uid or f"{event_id}@google.com",
            "sequence": 0,
            "reminders": {"useDefault": True},
            "eventType": "default",
        }
        calendar.events[event_id] = Event(head | data, change)
        self.store.save()
        return self.row(event_id)

    def patch(self, event_id: str, body: object, if_match: str | None = None) -> Row:
        """Merges a partial body into an event or an instance."""
        row = self._writable(event_id, if_match)
        fields = bodies.accepted(body, not self.actor.service_account)
        return self._write(event_id, row, bodies.merge(row.data, fields), fields)

    def update(self, event_id: str, body: object, if_match: str | None = None) -> Row:
        """Replaces an event or an instance: what the body does not have is gone."""
        row = self._writable(event_id, if_match)
        fields = bodies.accepted(body, not self.actor.service_account)
        kept = {key: row.data[key] for key in (*bodies.READ_ONLY, "sequence", "eventType") if key in row.data}
        new = {"status": "confirmed", "reminders": {"useDefault": True}} | kept | bodies.merge({}, fields)
        return self._write(event_id, row, new, fields)

    def delete(self, event_id: str, if_match: str | None = None) -> None:
        """Cancels an event, a whole series, or one instance; 410 when that has been done before."""
        row = self._writable(event_id, if_match)
        if row.cancelled:
            raise deleted()
        self._write(event_id, row, row.data | {"status": "cancelled"}, {})

    def _need_writer(self) -> None:
        if not at_least(self.role, "writerWithoutPrivateAccess"):
            raise writer_required()

    def _find(self, event_id: str) -> tuple[Event, Moment | None]:
        event = self.calendar.events.get(event_id)
        if event is not None:
            return event, None
        parts = split_instance_id(event_id)
        event = self.calendar.events.get(parts[0]) if parts else None
        if event is None or parts is None or not event.recurring:
            raise not_found()
        if not series_of(event, self.calendar).has(parts[1]):
            raise not_found()
        return event, parts[1]

    def _writable(self, event_id: str, if_match: str | None) -> Row:
        row = self.row(event_id)
        self._need_writer()
        if if_match not in (None, "*", etag(row.change)):
            raise precondition_failed()
        return row

    def _write(self, event_id: str, row: Row, new: Json, fields: Json) -> Row:
        """Stores a new version of an event, a series or an instance, under a new change number."""
        if row.data.get("locked") and any(
            key in fields and new.get(key) != row.data.get(key) for key in bodies.TEXT_OF_LOCKED
        ):
            raise forbidden()
        if fields.get("eventType", row.data.get("eventType")) != row.data.get("eventType"):
            raise bad_request("Event type cannot be changed.")
        zone = self.calendar.time_zone
        new = bodies.settled(new, zone)
        if bodies.moved(row.data, new, zone):
            new["sequence"] = row.data.get("sequence", 0) + 1
        event, original = self._find(event_id)
        if original is not None and new.get("recurrence"):
            raise bad_request("Invalid recurrence rule.")
        change, now = self.store.touch(self.calendar)
        if original is None:
            event.data = new | {"updated": now}
            event.change = change
        else:
            self._write_instance(event, original, new, InstanceChange({}, change, now))
        self.store.save()
        return self.row(event_id)

    def _write_instance(self, event: Event, original: Moment, new: Json, changed: InstanceChange) -> None:
        """Keeps what differs from the untouched instance: later edits of the series shine through."""
        name = instance_id(event.data["id"], original)
        event.instances.pop(name, None)
        plain = instance_row(event, series_of(event, self.calendar), original).data
        overrides = {key: copy.deepcopy(value) for key, value in new.items() if plain.get(key) != value}
        overrides |= {key: None for key in plain if key not in new}
        overrides.pop("updated", None)
        for key in ("start", "end"):
            same = as_instant(moment(new[key], key, "UTC"), "UTC") == as_instant(
                moment(plain[key], key, "UTC"), "UTC"
            )
            if same:
                overrides.pop(key, None)
        changed.overrides = overrides | {"originalStartTime": plain["originalStartTime"]}
        event.instances[name] = changed
