"""The control endpoint: what the Python API does, for other processes and for curl. It needs no token.

``GET /control`` answers this text.

- ``GET /control/log``: the requests so far, and how many came in each minute; ``DELETE`` forgets them.
- ``POST /control/faults`` ``{"fault": "error:backendError", "times": 3, "method": "GET", "path": "/events",
  "seconds": 2}``: only ``fault`` is needed, ``times: null`` is for ever. ``GET`` lists those that wait,
  ``DELETE`` ends them and the storm and releases what hangs.
- ``POST /control/storm`` ``{"seed": 1, "rate": 0.2}``.
- ``POST /control/clock`` ``{"advance_seconds": 60}`` where the server has a fake clock;
  ``{"offset_seconds": 600}`` judges tokens by a clock that much ahead.
- ``POST /control/knobs`` ``{"api_enabled": false, "quota_per_minute": 10, "largest_page": 2}``, any of them.
- ``POST /control/tokens/expire``: all access tokens are invalid from now on.
- ``POST /control/calendars`` ``{"id": "lab", "time_zone": "Europe/Berlin", "role": "reader"}``.
- ``POST /control/calendars/ID/share`` ``{"email": "x@example.org", "role": "reader"}``.
- ``GET /control/calendars/ID/events``: all events, cancelled ones too.
- ``POST /control/calendars/ID/events`` ``{"summary": "M", "start": "2026-11-22T09:00",
  "end": "2026-11-22T10:00", "description": "replicas: 2", "repeat": "RRULE:FREQ=WEEKLY",
  "by": "ada@example.org"}``: times are in the calendar's zone unless they have an offset.
- ``PATCH /control/calendars/ID/events/EVENT``: the fields to change. ``DELETE`` cancels the event.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tests.google_server.api import Call
from tests.google_server.clock import FakeClock
from tests.google_server.errors import ApiError
from tests.google_server.people import CalendarHandle

if TYPE_CHECKING:
    from tests.google_server.server import GoogleServer
    from tests.google_server.wire import Answer


class Control:
    """Answers ``/control…``; mistakes come back as 400 with a sentence."""

    def __init__(self, google: GoogleServer) -> None:
        self.google = google

    def answer(self, call: Call) -> Answer:
        from tests.google_server.wire import Answer, json_answer

        parts = [unquote(part) for part in call.path.strip("/").split("/")][1:]
        if not parts:
            return Answer(200, (__doc__ or "").encode(), content_type="text/plain; charset=UTF-8")
        try:
            return json_answer(self._do(call.method, parts, json.loads(call.body or b"{}")))
        except ApiError as error:
            return Answer(error.code, error.body())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return json_answer({"error": f"{type(error).__name__}: {error}"}, 400)

    def _do(self, method: str, parts: list[str], body: dict[str, Any]) -> Any:
        google = self.google
        if parts[0] == "calendars" and len(parts) > 1:
            google.store.calendar(parts[1])
            return self._calendar(method, google.calendar(parts[1]), parts[2:], body)
        commands: dict[str, Callable[[], Any]] = {
            "GET log": self._log,
            "DELETE log": google.log.clear,
            "GET faults": lambda: [fault.as_json() for fault in google.faults.waiting],
            "POST faults": lambda: google.faults.add(body.pop("fault"), **body).as_json(),
            "DELETE faults": google.faults.clear,
            "POST storm": lambda: google.faults.storm(**body),
            "POST clock": lambda: self._clock(**body),
            "POST knobs": lambda: self._knobs(body),
            "POST tokens/expire": google.accounts.expire_tokens,
            "POST calendars": lambda: {"id": google.calendar(body.pop("id", ""), **body).id},
        }
        command = f"{method} {'/'.join(parts)}"
        if command not in commands:
            raise ValueError(f"no command {command!r}; GET /control lists them")
        return commands[command]()

    def _log(self) -> Any:
        log = self.google.log
        minutes = {at.isoformat(): count for at, count in log.per_minute().items()}
        return {"requests": [one.as_json() for one in log.requests], "per_minute": minutes}

    def _calendar(self, method: str, calendar: CalendarHandle, rest: list[str], body: dict[str, Any]) -> Any:
        match method, *rest:
            case "POST", "share":
                return calendar.share(**body)
            case "GET", "events":
                return calendar.events()
            case "POST", "events":
                return calendar.add(body.pop("summary"), body.pop("start"), body.pop("end"), **body)
            case "PATCH", "events", event_id:
                return calendar.edit(event_id, **body)
            case "DELETE", "events", event_id:
                return calendar.cancel(event_id)
        raise ValueError(f"no such command: {method} on calendar {calendar.id}: {'/'.join(rest)}")

    def _clock(self, advance_seconds: float = 0, offset_seconds: float | None = None) -> Any:
        clock = self.google.clock
        if advance_seconds:
            if not isinstance(clock, FakeClock):
                raise ValueError("this server runs on the real clock")
            clock.advance(seconds=advance_seconds)
        if offset_seconds is not None:
            self.google.clock_offset = timedelta(seconds=offset_seconds)
        return {"now": clock().isoformat()}

    def _knobs(self, body: dict[str, Any]) -> Any:
        knobs = self.google.knobs
        for name, value in body.items():
            if not hasattr(knobs, name):
                raise ValueError(f"no knob {name!r}; there are {', '.join(vars(knobs))}")
            setattr(knobs, name, deque(value) if name == "page_sizes" else value)
        return vars(knobs) | {"page_sizes": list(knobs.page_sizes)}
