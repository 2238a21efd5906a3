"""The Calendar API: from a request to an answer, with access, scopes, quota and partial responses.

Source: discovery document (paths, parameters, scopes); Google's guides "Manage quotas", "Handle API errors".
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import unquote

from tests.google_server import listing, schemas
from tests.google_server.accounts import Accounts, Actor
from tests.google_server.errors import (
    ApiError,
    access_not_configured,
    bad_request,
    insufficient_scope,
    login_required,
    not_found,
    rate_limit,
)
from tests.google_server.events import Events
from tests.google_server.partial import partial
from tests.google_server.resources import Row, at_least, shown
from tests.google_server.store import ROLES, Calendar, Store, etag
from tests.google_server.times import Json, zone

PREFIX = "/calendar/v3/"


@dataclass
class Call:
    """One request to the API, and what was found out about it on the way."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    actor: Actor | None = None
    parts: dict[str, str] = field(default_factory=dict)

    def json(self) -> object:
        try:
            return json.loads(self.body or b"null")
        except ValueError:
            raise bad_request("Parse Error", reason="parseError") from None


@dataclass
class Knobs:
    """What a test may turn: see ``GoogleServer``."""

    api_enabled: bool = True
    quota_per_minute: int = 600
    quota_code: int = 403
    page_sizes: deque[int] = field(default_factory=deque)
    largest_page: int | None = None
    leak_cancelled: bool = False
    check_answers: bool = False


class CalendarApi:
    """Answers calls; the paths, scopes and answer schemas come from the discovery document."""

    def __init__(self, store: Store, accounts: Accounts, knobs: Knobs) -> None:
        self.store = store
        self.accounts = accounts
        self.knobs = knobs
        self.violations: list[str] = []
        self._recent: dict[str, deque[datetime]] = {}
        self._routes = [self._route(*entry) for entry in ROUTES]

    @staticmethod
    def _route(resource: str, name: str, serve: Serve) -> tuple[str, re.Pattern[str], Json, Serve]:
        description = schemas.method(resource, name)
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", description["path"])
        return description["httpMethod"], re.compile(pattern), description, serve

    def answer(self, call: Call) -> Json | None:
        """The JSON of the answer, None for 204; raises ``ApiError``."""
        with self.store.lock:
            call.actor = self._authenticate(call)
            if not self.knobs.api_enabled:
                raise access_not_configured()
            self._count(call.actor.email)
            description, serve = self._find(call)
            if not call.actor.scopes & set(description["scopes"]):
                raise insufficient_scope()
            self._check_parameters(call, description)
            if self.knobs.check_answers:
                self._check_body(call, description)
            answer = serve(self, call)
        if answer is None:
            return None
        if self.knobs.check_answers:
            problems = schemas.answer_problems(description["response"]["$ref"], answer)
            self.violations += [f"{call.method} {call.path}: {problem}" for problem in problems]
        selector = call.query.get("fields")
        return partial(answer, selector[-1]) if selector else answer

    def _authenticate(self, call: Call) -> Actor:
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise login_required()
        return self.accounts.actor(token.strip())

    def _count(self, email: str) -> None:
        """600 requests a minute per user and project, over a sliding minute; refused ones do not count."""
        recent = self._recent.setdefault(email, deque())
        now = self.store.now()
        while recent and recent[0] <= now - timedelta(minutes=1):
            recent.popleft()
        if len(recent) >= self.knobs.quota_per_minute:
            raise rate_limit(self.knobs.quota_code)
        recent.append(now)

    def _find(self, call: Call) -> tuple[Json, Serve]:
        for method, pattern, description, serve in self._routes:
            found = pattern.fullmatch(call.path.removeprefix(PREFIX))
            if method == call.method and found and call.path.startswith(PREFIX):
                call.parts = {name: unquote(value) for name, value in found.groupdict().items()}
                return description, serve
        raise not_found()

    @staticmethod
    def _check_parameters(call: Call, description: Json) -> None:
        for name, values in call.query.items():
            known = description["parameters"].get(name) if name in description.get("parameters", {}) else None
            if known and "enum" in known and not set(values) <= set(known["enum"]):
                raise bad_request(f"Invalid value for: {name}", name, "invalidParameter")

    def _check_body(self, call: Call, description: Json) -> None:
        """Google drops unknown fields without a word; a test wants to hear of them."""
        body = call.json() if "request" in description else None
        if isinstance(body, dict):
            known = schemas.fields(description["request"]["$ref"])
            self.violations += [f"{call.method} {call.path}: no field {key!r}" for key in body.keys() - known]

    def calendar(self, call: Call) -> tuple[Calendar, str]:
        """The calendar a call is about and the caller's role on it; without access it does not exist."""
        assert call.actor is not None
        wanted = call.parts["calendarId"]
        calendar = self.store.calendar(call.actor.email if wanted == "primary" else wanted)
        role = calendar.role_of(call.actor.email)
        if role == "none":
            raise not_found()
        return calendar, role

    def events(self, call: Call) -> Events:
        assert call.actor is not None
        return Events(self.store, self.calendar(call)[0], call.actor)

    def shown(self, call: Call, row: Row) -> Json:
        """An event as this caller sees it; ``timeZone`` is the zone times are written in."""
        calendar, role = self.calendar(call)
        name = call.query.get("timeZone", [calendar.time_zone])[-1]
        return shown(row, calendar, role, zone(name))


Serve = Callable[[CalendarApi, Call], Json | None]


def get_calendar(api: CalendarApi, call: Call) -> Json:
    calendar, _ = api.calendar(call)
    fields = {
        "kind": "calendar#calendar",
        "etag": etag(calendar.change),
        "id": calendar.id,
        "summary": calendar.summary,
        "timeZone": calendar.time_zone,
        "description": calendar.description,
    }
    if calendar.id != calendar.owner:
        fields["dataOwner"] = calendar.owner
    return {key: value for key, value in fields.items() if value is not None}


def _entry(calendar: Calendar, email: str) -> Json:
    entry = {
        "kind": "calendar#calendarListEntry",
        "etag": etag(calendar.change),
        "id": calendar.id,
        "summary": calendar.summary,
        "timeZone": calendar.time_zone,
        "accessRole": calendar.role_of(email),
        "defaultReminders": [],
        "selected": True,
    }
    return entry | ({"primary": True} if calendar.id == email else {})


def list_calendars(api: CalendarApi, call: Call) -> Json:
    """What the account has put into its list: a shared calendar does not get there by itself."""
    assert call.actor is not None
    email, least = call.actor.email, call.query.get("minAccessRole", ["freeBusyReader"])[-1]
    if least not in ROLES:
        raise bad_request("Invalid value for: minAccessRole", "minAccessRole", "invalidParameter")
    entries = [
        _entry(calendar, email)
        for calendar in api.store.calendars.values()
        if (email in calendar.listed_by or calendar.id == email) and at_least(calendar.role_of(email), least)
    ]
    size = listing.number(call.query, "maxResults", 100)
    start = listing.number(call.query, "pageToken", 1) - 1
    rest = {"nextPageToken": str(start + size + 1)} if len(entries) > start + size else {}
    head = {"kind": "calendar#calendarList", "etag": etag(api.store.change)}
    return head | {"items": entries[start : start + size]} | rest


def get_list_entry(api: CalendarApi, call: Call) -> Json:
    assert call.actor is not None
    calendar, _ = api.calendar(call)
    if call.actor.email not in (*calendar.listed_by, calendar.id):
        raise not_found()
    return _entry(calendar, call.actor.email)


def insert_list_entry(api: CalendarApi, call: Call) -> Json:
    assert call.actor is not None
    body = call.json()
    if not isinstance(body, dict) or not isinstance(body.get("id"), str):
        raise bad_request("Missing required field: id", reason="required")
    call.parts = {"calendarId": body["id"]}
    calendar, _ = api.calendar(call)
    if call.actor.email not in calendar.listed_by:
        calendar.listed_by.append(call.actor.email)
        api.store.save()
    return _entry(calendar, call.actor.email)


def list_events(api: CalendarApi, call: Call) -> Json:
    calendar, role = api.calendar(call)
    knobs = api.knobs
    given = call.query
    at_most = knobs.page_sizes.popleft() if knobs.page_sizes else knobs.largest_page
    if knobs.leak_cancelled and "syncToken" not in given:
        given = given | {"showDeleted": ["true"]}
    page = listing.page(calendar, given, api.store.now(), at_most)
    return _collection(calendar, role) | {
        key: value
        for key, value in (
            ("nextPageToken", page.next_page),
            ("nextSyncToken", page.next_sync),
            ("items", [api.shown(call, row) for row in page.rows]),
        )
        if value is not None
    }


def _collection(calendar: Calendar, role: str) -> Json:
    head = {
        "kind": "calendar#events",
        "etag": etag(calendar.change),
        "summary": calendar.summary,
        "updated": calendar.updated,
        "timeZone": calendar.time_zone,
        "accessRole": role,
        "defaultReminders": [],
    }
    return head | ({"description": calendar.description} if calendar.description else {})


def list_instances(api: CalendarApi, call: Call) -> Json:
    calendar, role = api.calendar(call)
    event = calendar.events.get(call.parts["eventId"])
    if event is None or not event.recurring:
        raise not_found()
    rows = listing.instances(calendar, event, call.query, api.store.now())
    size = min(listing.number(call.query, "maxResults", listing.DEFAULT_PAGE), listing.LARGEST_PAGE)
    start = listing.number(call.query, "pageToken", 1) - 1
    more = {"nextPageToken": str(start + size + 1)} if len(rows) > start + size else {}
    items = [api.shown(call, row) for row in rows[start : start + size]]
    return _collection(calendar, role) | {"items": items} | more


def get_event(api: CalendarApi, call: Call) -> Json:
    return api.shown(call, api.events(call).row(call.parts["eventId"]))


def insert_event(api: CalendarApi, call: Call) -> Json:
    body = call.json()
    own_id = body.get("id") if isinstance(body, dict) else None
    return api.shown(call, api.events(call).insert(body, own_id))


def import_event(api: CalendarApi, call: Call) -> Json:
    body = call.json()
    if not isinstance(body, dict) or not body.get("iCalUID"):
        raise bad_request("Missing required field: iCalUID", reason="required")
    return api.shown(call, api.events(call).insert(body, import_uid=body["iCalUID"]))


def patch_event(api: CalendarApi, call: Call) -> Json:
    row = api.events(call).patch(call.parts["eventId"], call.json(), call.headers.get("if-match"))
    return api.shown(call, row)


def update_event(api: CalendarApi, call: Call) -> Json:
    row = api.events(call).update(call.parts["eventId"], call.json(), call.headers.get("if-match"))
    return api.shown(call, row)


def delete_event(api: CalendarApi, call: Call) -> None:
    api.events(call).delete(call.parts["eventId"], call.headers.get("if-match"))


ROUTES: tuple[tuple[str, str, Serve], ...] = (
    ("calendars", "get", get_calendar),
    ("calendarList", "list", list_calendars),
    ("calendarList", "get", get_list_entry),
    ("calendarList", "insert", insert_list_entry),
    ("events", "import", import_event),
    ("events", "list", list_events),
    ("events", "instances", list_instances),
    ("events", "get", get_event),
    ("events", "insert", insert_event),
    ("events", "patch", patch_event),
    ("events", "update", update_event),
    ("events", "delete", delete_event),
)
__all__ = ["ApiError", "CalendarApi", "Call", "Knobs"]
