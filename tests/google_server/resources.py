"""Stored events as Google shows them: instances of series, cancelled items, what each role may see."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from tests.google_server.recurrence import Series, instance_id
from tests.google_server.store import ROLES, Calendar, Event, etag
from tests.google_server.times import Json, Moment, local_text, moment, written

HIDDEN_FROM = ("freeBusyReader", "reader", "writerWithoutPrivateAccess")
WITHOUT_DETAILS = (
    "id",
    "status",
    "start",
    "end",
    "recurringEventId",
    "originalStartTime",
    "recurrence",
    "iCalUID",
    "updated",
    "eventType",
    "transparency",
)


@dataclass(frozen=True)
class Row:
    """One event or instance: what is stored of it, and the number of the change it comes from."""

    data: Json
    change: int

    @property
    def id(self) -> str:
        return str(self.data["id"])

    @property
    def cancelled(self) -> bool:
        return bool(self.data["status"] == "cancelled")


def at_least(role: str, needed: str) -> bool:
    return ROLES.index(role) >= ROLES.index(needed)


def series_of(event: Event, calendar: Calendar) -> Series:
    return Series(event.data, calendar.time_zone)


def instance_row(event: Event, series: Series, original: Moment) -> Row:
    """One instance of a series: the series' fields, then what was changed for this instance alone.

    An untouched instance has the etag of its series; a changed one has its own. A cancelled series cancels
    all.
    """
    name = instance_id(event.data["id"], original)
    data = {key: copy.deepcopy(value) for key, value in event.data.items() if key != "recurrence"}
    start_zone, end_zone = (event.data[side].get("timeZone") for side in ("start", "end"))
    data |= {
        "id": name,
        "recurringEventId": event.data["id"],
        "originalStartTime": written(original, start_zone),
        "start": written(original, start_zone),
        "end": written(original + series.length, end_zone),
    }
    changed = event.instances.get(name)
    if changed is None:
        return Row(data, event.change)
    for key, value in changed.overrides.items():
        if value is None:
            data.pop(key, None)
        else:
            data[key] = copy.deepcopy(value)
    data["updated"] = max(changed.updated, data["updated"])
    if event.cancelled:
        data["status"] = "cancelled"
    # a changed series shows in its changed instances too
    return Row(data, max(changed.change, event.change))


def changed_rows(event: Event, calendar: Calendar) -> list[Row]:
    """The changed instances that the rule still yields; the others belong to a rule that is gone."""
    series = series_of(event, calendar)
    rows = []
    for change in event.instances.values():
        original = moment(change.overrides["originalStartTime"], "original", calendar.time_zone)
        if series.has(original):
            rows.append(instance_row(event, series, original))
    return rows


def shown(row: Row, calendar: Calendar, role: str, in_zone: ZoneInfo) -> Json:
    """The resource as answered to someone with that role.

    Cancelled items: only what is guaranteed (discovery document, ``Event.status``). Private events hide their
    details below ``writer`` (``Events.accessRole``); ``freeBusyReader`` sees no details at all.
    """
    data = row.data
    head = {"kind": "calendar#event", "etag": etag(row.change), "id": data["id"], "status": data["status"]}
    if row.cancelled:
        kept = ("recurringEventId", "originalStartTime")
        return head | {key: _localised(key, data[key], in_zone) for key in kept if key in data}
    hidden = role == "freeBusyReader" or (
        role in HIDDEN_FROM and data.get("visibility") in ("private", "confidential")
    )
    fields = {key: value for key, value in data.items() if not hidden or key in WITHOUT_DETAILS}
    if hidden:
        fields["visibility"] = "private"
    else:
        fields["htmlLink"] = f"https://www.google.com/calendar/event?eid={data['id']}"
    return head | {key: _localised(key, value, in_zone) for key, value in fields.items()}


def _localised(key: str, value: object, in_zone: ZoneInfo) -> object:
    if key not in ("start", "end", "originalStartTime") or not isinstance(value, dict):
        return copy.deepcopy(value)
    if "dateTime" not in value:
        return dict(value)
    return value | {"dateTime": local_text(datetime.fromisoformat(value["dateTime"]), in_zone)}
