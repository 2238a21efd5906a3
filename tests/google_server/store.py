"""What the server remembers: calendars, their events, and the number of the last change."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.google_server.clock import Clock
from tests.google_server.errors import not_found
from tests.google_server.times import Json, stamp

ROLES = ("none", "freeBusyReader", "reader", "writerWithoutPrivateAccess", "writer", "owner")
"""Access roles, weakest first (discovery document, ``Events.accessRole``)."""


@dataclass
class InstanceChange:
    """What one instance of a series has that its series does not; ``None`` takes a field away."""

    overrides: Json
    change: int
    updated: str

    @property
    def cancelled(self) -> bool:
        return self.overrides.get("status") == "cancelled"


@dataclass
class Event:
    """A single event or the master of a series, with the changed instances by their instance id."""

    data: Json
    change: int
    instances: dict[str, InstanceChange] = field(default_factory=dict)

    @property
    def cancelled(self) -> bool:
        return bool(self.data.get("status") == "cancelled")

    @property
    def recurring(self) -> bool:
        return bool(self.data.get("recurrence"))


@dataclass
class Calendar:
    """One calendar; ``roles`` maps mail addresses to roles, ``listed_by`` have it in their list."""

    id: str
    summary: str
    time_zone: str
    owner: str
    description: str | None = None
    roles: dict[str, str] = field(default_factory=dict)
    listed_by: list[str] = field(default_factory=list)
    events: dict[str, Event] = field(default_factory=dict)
    change: int = 0
    updated: str = "2026-01-01T00:00:00.000Z"
    oldest_sync: int = 0

    def role_of(self, email: str) -> str:
        if email == self.owner:
            return "owner"
        return self.roles.get(email, self.roles.get("default", "none"))


def etag(change: int) -> str:
    """A quoted decimal, as Google's are; every change has its own."""
    return f'"{3_400_000_000_000_000 + change}"'


class Store:
    """All calendars behind one lock; with a file, every change is written to it at once."""

    def __init__(self, now: Clock, path: Path | None = None) -> None:
        self.lock = threading.RLock()
        self.now = now
        self.path = path
        self.calendars: dict[str, Calendar] = {}
        self.accounts: dict[str, Json] = {}
        self.change = 0
        if path is not None and path.exists():
            self._load(json.loads(path.read_text()))

    def calendar(self, calendar_id: str) -> Calendar:
        """The calendar of that id; Google's 404 when there is none."""
        try:
            return self.calendars[calendar_id]
        except KeyError:
            raise not_found() from None

    def touch(self, calendar: Calendar) -> tuple[int, str]:
        """Takes the next change number for a calendar: (number, ``updated`` stamp)."""
        self.change += 1
        calendar.change = self.change
        calendar.updated = stamp(self.now())
        return self.change, calendar.updated

    def save(self) -> None:
        """Writes the state file, if there is one, by replacing it whole."""
        if self.path is None:
            return
        state = {
            "change": self.change,
            "accounts": self.accounts,
            "calendars": [asdict(calendar) for calendar in self.calendars.values()],
        }
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(state, indent=1))
        draft.replace(self.path)

    def _load(self, state: dict[str, Any]) -> None:
        self.change = state["change"]
        self.accounts = state["accounts"]
        for raw in state["calendars"]:
            events = {
                key: Event(
                    event["data"],
                    event["change"],
                    {name: InstanceChange(**change) for name, change in event["instances"].items()},
                )
                for key, event in raw.pop("events").items()
            }
            self.calendars[raw["id"]] = Calendar(**raw, events=events)
