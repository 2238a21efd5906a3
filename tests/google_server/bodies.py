"""What clients send: merging patches, checking values, dropping what Google drops.

Sources: discovery document (required fields, limits, read-only fields); Google's guides "Performance tips"
(PATCH: objects merge, arrays are replaced, ``null`` deletes) and "Extended properties" (limits).
"""

from __future__ import annotations

import copy
import re

from tests.google_server import schemas
from tests.google_server.errors import attendees_need_delegation, bad_request, time_range_empty
from tests.google_server.recurrence import Series
from tests.google_server.times import Json, as_instant, duration, moment, written, zone

READ_ONLY = (
    "kind",
    "etag",
    "htmlLink",
    "created",
    "updated",
    "creator",
    "organizer",
    "recurringEventId",
    "originalStartTime",
    "hangoutLink",
    "locked",
    "endTimeUnspecified",
    "iCalUID",
    "id",
)
TEXT_OF_LOCKED = ("summary", "description", "location", "start", "end", "recurrence")
LONGEST_KEY, LONGEST_VALUE = 44, 1024
EVENT_COLOURS = frozenset(str(number) for number in range(1, 12))
STATUSES = ("confirmed", "tentative", "cancelled")
CREATABLE_TYPES = ("default", "focusTime", "outOfOffice", "workingLocation", "birthday")


def merge(old: Json, patch: Json) -> Json:
    """PATCH: nested objects merge, arrays and values are replaced, ``null`` deletes."""
    merged = dict(old)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        elif isinstance(value, dict):
            merged[key] = merge({}, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def accepted(body: object, may_invite: bool) -> Json:
    """The writable part of a request body; 400 on wrong types, as the schema in the discovery document has
    them.

    Unknown fields are dropped without a word. Extended properties: a key over 44 characters is dropped, a
    value over 1024 cut.
    """
    if not isinstance(body, dict):
        raise bad_request("Parse Error", reason="parseError")
    problem = schemas.request_problem("Event", body)
    if problem:
        raise bad_request(problem)
    if body.get("attendees") and not may_invite:
        raise attendees_need_delegation()
    known = schemas.fields("Event")
    kept = {key: copy.deepcopy(value) for key, value in body.items() if key in known and key not in READ_ONLY}
    for side, values in (kept.get("extendedProperties") or {}).items():
        if isinstance(values, dict):
            kept["extendedProperties"][side] = {
                key: text if text is None else text[:LONGEST_VALUE]
                for key, text in values.items()
                if len(key) <= LONGEST_KEY
            }
    return kept


def settled(data: Json, calendar_zone: str) -> Json:
    """A whole event after a write: checked, its times normalised.

    Start and end must be there and be of one kind; a timed series must name its zone; the end must not lie
    before the start, and for an all-day event must lie after it.
    """
    for side in ("start", "end"):
        if not data.get(side):
            raise bad_request(f"Missing {side} time.", reason="required")
    start, end = (moment(data[side], side, calendar_zone) for side in ("start", "end"))
    length = duration(start, end)
    if length.total_seconds() < 0 or (length.total_seconds() == 0 and "date" in data["start"]):
        raise time_range_empty(None)
    _check_values(data)
    times = {}
    for side, at in (("start", start), ("end", end)):
        named = data[side].get("timeZone") or calendar_zone
        zone(named)
        times[side] = written(at, named)
    whole = data | times
    if whole.get("recurrence"):
        Series(whole, calendar_zone)
    else:
        whole.pop("recurrence", None)
    return whole


def _check_values(data: Json) -> None:
    if data.get("colorId") is not None and data["colorId"] not in EVENT_COLOURS:
        raise bad_request("Invalid event color id.")
    if data.get("status") not in STATUSES:
        raise bad_request("Invalid value for: status")
    for side in ("start", "end"):
        timed = "dateTime" in data[side]
        if timed and data.get("recurrence") and not data[side].get("timeZone"):
            raise bad_request(f"Missing time zone definition for {side} time.", reason="required")


def check_id(event_id: str) -> None:
    """``Event.id``: base32hex characters, 5 to 1024 of them."""
    if not re.fullmatch(r"[a-v0-9]{5,1024}", event_id):
        raise bad_request("Invalid resource id value.")


def moved(old: Json, new: Json, calendar_zone: str) -> bool:
    """Whether two versions of an event differ in time, which is what ``sequence`` counts."""
    return any(
        as_instant(moment(old[side], side, calendar_zone), calendar_zone)
        != as_instant(moment(new[side], side, calendar_zone), calendar_zone)
        for side in ("start", "end")
    ) or old.get("recurrence") != new.get("recurrence")
