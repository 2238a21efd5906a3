"""A Google of one's own, a key to it, and the real client on it: what tests of Google calendars sit at."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from calendars.google import GoogleCalendar
from calendars.reservation import Misunderstood, Reading
from calendars.source import CalendarUnavailable
from calendars.write_back import Report
from tests.calendars.texts import MODEL, at
from tests.google_server import CalendarHandle, GoogleServer
from tests.google_server.api import Knobs

WINDOW = ("2026-03-01", "2026-04-01")


@dataclass
class Desk:
    """The server, a service account's key file, and the calendars made with it."""

    google: GoogleServer
    key: Path
    sources: list[GoogleCalendar] = field(default_factory=list)

    def tidy(self) -> None:
        google = self.google
        google.faults.clear()
        google.log.clear()
        google.clock_offset = timedelta()
        # All tests together make more requests in a minute than one account may.
        vars(google.knobs).update(vars(Knobs(quota_per_minute=1_000_000)))
        while self.sources:
            self.sources.pop().close()

    def lab(self, time_zone: str = "UTC", role: str = "writer") -> CalendarHandle:
        """A calendar nobody has written in yet."""
        return self.google.calendar(time_zone=time_zone, role=role)

    def source(self, lab: CalendarHandle | str, **options: Any) -> GoogleCalendar:
        """The real client on a calendar: quick to try again, quick to give up."""
        given: dict[str, Any] = {
            "key_file": self.key,
            "endpoint": self.google.api_endpoint,
            "deadline_seconds": 20.0,
            "retry_pause_seconds": 0.0,
            "key_prefix": "",
        }
        source = GoogleCalendar(lab if isinstance(lab, str) else lab.id, **(given | options))
        self.sources.append(source)
        return source

    def requests(self, method: str, path: str = "/calendar/") -> int:
        return len(self.google.log.matching(method, path))


def read(source: GoogleCalendar, window: tuple[str, str] = WINDOW) -> Reading:
    return source.read(at(window[0]), at(window[1]))


def problem(reading: Reading) -> Misunderstood:
    """The one thing that was not understood."""
    assert len(reading.misunderstood) == 1, reading
    return reading.misunderstood[0]


def refusal(source: GoogleCalendar, window: tuple[str, str] = WINDOW) -> CalendarUnavailable:
    """Why a calendar could not be read, after a look at how that is said."""
    with pytest.raises(CalendarUnavailable) as caught:
        read(source, window)
    error = caught.value
    assert error.reason.startswith("The Google calendar "), error.reason
    assert error.reason.endswith("."), error.reason
    assert error.remedy.endswith("."), error.remedy
    assert "\n" not in str(error)
    return error


def say(key: str, state: str, *lines: str) -> Report:
    return Report.model_validate({"key": key, "state": state, "lines": lines})


__all__ = ["MODEL", "WINDOW", "Desk", "problem", "read", "refusal", "say"]
