"""``events.list`` and ``events.instances``: window, expansion, order, pages, sync tokens.

Source: discovery document, parameters of ``events.list``; Google's guide "Synchronize resources efficiently".
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tests.google_server.errors import (
    ApiError,
    bad_request,
    full_sync_required,
    time_range_empty,
    updated_min_too_long_ago,
)
from tests.google_server.recurrence import Series, instance_id
from tests.google_server.resources import Row, changed_rows, instance_row, series_of
from tests.google_server.store import Calendar, Event
from tests.google_server.times import Json, as_instant, instant, moment, overlaps, stamp, window

DEFAULT_PAGE, LARGEST_PAGE = 250, 2500
UPDATED_MIN_REACH = timedelta(days=28)
FORBIDDEN_WITH_SYNC = (
    "iCalUID",
    "orderBy",
    "privateExtendedProperty",
    "q",
    "sharedExtendedProperty",
    "timeMin",
    "timeMax",
    "updatedMin",
)
NO_SYNC_TOKEN_AFTER = tuple(name for name in FORBIDDEN_WITH_SYNC if name not in ("timeMin", "timeMax"))
Parameters = dict[str, list[str]]


@dataclass(frozen=True)
class Query:
    """The parameters of one listing, checked."""

    low: datetime | None
    high: datetime | None
    single: bool
    show_deleted: bool
    order: str | None
    size: int
    updated_min: datetime | None
    since: int | None
    types: tuple[str, ...]
    text: str
    uid: str | None
    private: tuple[tuple[str, str], ...]
    shared: tuple[tuple[str, str], ...]
    print: str

    @property
    def tells_deleted(self) -> bool:
        """Deleted events come with ``showDeleted``, and always in an incremental listing."""
        return self.show_deleted or self.since is not None or self.updated_min is not None


@dataclass(frozen=True)
class Page:
    rows: list[Row]
    next_page: str | None
    next_sync: str | None


def flag(given: Parameters, name: str) -> bool:
    value = given.get(name, ["false"])[-1]
    if value not in ("true", "false"):
        raise bad_request(f"Invalid value for: {name}", name, "invalidParameter")
    return value == "true"


def number(given: Parameters, name: str, default: int) -> int:
    value = given.get(name, [str(default)])[-1]
    if not value.isdigit() or int(value) < 1:
        raise bad_request(f"Invalid value for: {name}", name, "invalidParameter")
    return int(value)


def _last(given: Parameters, name: str) -> str | None:
    return given[name][-1] if name in given else None


def _time(given: Parameters, name: str) -> datetime | None:
    return instant(given[name][-1], name) if name in given else None


def _pairs(given: Parameters, name: str) -> tuple[tuple[str, str], ...]:
    pairs = [tuple(text.split("=", 1)) for text in given.get(name, [])]
    if any(len(pair) != 2 for pair in pairs):
        raise bad_request(f"Invalid value for: {name}", name, "invalidParameter")
    return tuple((pair[0], pair[1]) for pair in pairs)


def query(given: Parameters, calendar: Calendar, now: datetime) -> Query:
    """Checks the parameters against each other; 400 and 410 as Google answers them."""
    single, order = flag(given, "singleEvents"), _last(given, "orderBy")
    if order not in (None, "startTime", "updated"):
        raise bad_request("Invalid value for: orderBy", "orderBy", "invalidParameter")
    if order == "startTime" and not single:
        raise bad_request("The requested ordering is not available for the particular query.", "orderBy")
    low, high = _time(given, "timeMin"), _time(given, "timeMax")
    if low and high and low >= high:
        raise time_range_empty()
    updated_min = _time(given, "updatedMin")
    if updated_min and updated_min < now - UPDATED_MIN_REACH:
        raise updated_min_too_long_ago()
    return Query(
        low=low,
        high=high,
        single=single,
        show_deleted=flag(given, "showDeleted"),
        order=order,
        size=min(number(given, "maxResults", DEFAULT_PAGE), LARGEST_PAGE),
        updated_min=updated_min,
        since=_since(given, calendar),
        types=tuple(given.get("eventTypes", ())),
        text=(_last(given, "q") or "").casefold(),
        uid=_last(given, "iCalUID"),
        private=_pairs(given, "privateExtendedProperty"),
        shared=_pairs(given, "sharedExtendedProperty"),
        print=_fingerprint(given),
    )


def _fingerprint(given: Parameters) -> str:
    kept = {key: value for key, value in given.items() if key not in ("pageToken", "maxResults", "fields")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def _token(content: Json) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode()


def _content(token: str, parameter: str) -> Json:
    try:
        return dict(json.loads(base64.urlsafe_b64decode(token)))
    except (ValueError, TypeError):
        raise bad_request("Invalid value for: " + parameter, parameter, "invalidParameter") from None


def _since(given: Parameters, calendar: Calendar) -> int | None:
    """The change a sync token stands for; what may not stand beside it is a 400, an old one a 410."""
    token = _last(given, "syncToken")
    if token is None:
        return None
    if any(name in given for name in FORBIDDEN_WITH_SYNC):
        raise bad_request("Sync token cannot be used with other query restrictions.", "syncToken")
    if given.get("showDeleted", ["true"])[-1] == "false":
        raise bad_request("Sync token cannot be used with other query restrictions.", "showDeleted")
    try:
        content = _content(token, "syncToken")
    except ApiError:
        raise full_sync_required() from None
    since = int(content.get("change", -1))
    if content.get("calendar") != calendar.id or since < calendar.oldest_sync:
        raise full_sync_required()
    return since


def candidates(calendar: Calendar, ask: Query, now: datetime) -> Iterable[Row]:
    """Every event or instance inside the window, deleted ones where they are asked for."""
    for event in calendar.events.values():
        if not event.recurring:
            if not event.cancelled or ask.tells_deleted:
                yield from _within(calendar, ask, [Row(event.data, event.change)])
        elif ask.single:
            rows = _expanded(calendar, event, ask.low, ask.high, now)
            yield from (row for row in rows if not row.cancelled or ask.tells_deleted)
        elif not event.cancelled:
            if any(True for _ in _expanded(calendar, event, ask.low, ask.high, now)):
                yield Row(event.data, event.change)
            # cancelled instances come even without showDeleted when singleEvents is false
            yield from _within(calendar, ask, changed_rows(event, calendar))
        elif ask.tells_deleted:
            yield Row(event.data, event.change)


def _within(calendar: Calendar, ask: Query, rows: Iterable[Row]) -> Iterable[Row]:
    for row in rows:
        if overlaps(*window(row.data, calendar.time_zone), ask.low, ask.high):
            yield row


def _expanded(
    calendar: Calendar, event: Event, low: datetime | None, high: datetime | None, now: datetime
) -> Iterable[Row]:
    """Instances in the window: untouched ones by the rule, changed ones by where they are now."""
    series: Series = series_of(event, calendar)
    for original in series.starts(low, high, now):
        if instance_id(event.data["id"], original) not in event.instances:
            yield instance_row(event, series, original)
    for row in changed_rows(event, calendar):
        if overlaps(*window(row.data, calendar.time_zone), low, high):
            yield row


def matches(row: Row, ask: Query) -> bool:
    """The restrictions that look at a single item."""
    data = row.data
    if ask.since is not None and row.change <= ask.since:
        return False
    if ask.updated_min and data["updated"] < stamp(ask.updated_min):
        return False
    if ask.types and data.get("eventType", "default") not in ask.types:
        return False
    if ask.uid and data.get("iCalUID") != ask.uid:
        return False
    if ask.text:
        people = [data.get("organizer", {}), *data.get("attendees", ())]
        texts = [data.get(name, "") for name in ("summary", "description", "location")]
        texts += [person.get(name, "") for person in people for name in ("email", "displayName")]
        words = ask.text.split()
        if not all(any(word in text.casefold() for text in texts) for word in words):
            return False
    properties = data.get("extendedProperties", {})
    wanted = [("private", *pair) for pair in ask.private] + [("shared", *pair) for pair in ask.shared]
    return all(properties.get(side, {}).get(key) == value for side, key, value in wanted)


def _order(row: Row, ask: Query, calendar: Calendar) -> list[str | float]:
    if ask.order == "startTime":
        return [window(row.data, calendar.time_zone)[0].timestamp(), row.id]
    return [row.data["updated"] if ask.order == "updated" else "", row.id]


def page(calendar: Calendar, given: Parameters, now: datetime, at_most: int | None) -> Page:
    """One page. ``at_most`` makes it shorter than asked for, down to empty, as Google may.

    A page token holds the place of the last item, so changes between two pages neither repeat nor shift
    items; the sync token at the end stands for the moment the first page was made.
    """
    ask = query(given, calendar, now)
    place = _content(given["pageToken"][-1], "pageToken") if "pageToken" in given else {}
    if place and place.get("print") != ask.print:
        raise bad_request("Invalid value for: pageToken", "pageToken", "invalidParameter")
    size = ask.size if at_most is None else min(ask.size, at_most)
    rows = [(_order(row, ask, calendar), row) for row in candidates(calendar, ask, now) if matches(row, ask)]
    rows.sort(key=lambda item: item[0])
    after = place.get("after")
    rest = [item for item in rows if after is None or item[0] > after]
    change = place.get("change", calendar.change)
    if len(rest) > size:
        last = rest[size - 1][0] if size else after
        token = _token({"after": last, "change": change, "print": ask.print})
        return Page([row for _, row in rest[:size]], token, None)
    sync = None
    if not any(name in given for name in NO_SYNC_TOKEN_AFTER):
        sync = _token({"calendar": calendar.id, "change": change})
    return Page([row for _, row in rest], None, sync)


def instances(calendar: Calendar, event: Event, given: Parameters, now: datetime) -> list[Row]:
    """``events.instances``: the instances of one series in the window, by their original start."""
    low, high = _time(given, "timeMin"), _time(given, "timeMax")
    wanted = _last(given, "originalStart")
    rows = [
        row
        for row in _expanded(calendar, event, low, high, now)
        if flag(given, "showDeleted") or not row.cancelled
    ]
    zone = calendar.time_zone

    def original(row: Row) -> datetime:
        return as_instant(moment(row.data["originalStartTime"], "original", zone), zone)

    rows.sort(key=original)
    if wanted:
        rows = [row for row in rows if original(row) == instant(wanted, "originalStart")]
    return rows
