"""``google_server()``: the whole stand-in, started in a thread, with everything a test may do to it."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from tests.google_server.accounts import Accounts
from tests.google_server.api import CalendarApi, Knobs
from tests.google_server.clock import Clock, system_clock
from tests.google_server.control import Control
from tests.google_server.faults import Faults
from tests.google_server.people import CalendarHandle
from tests.google_server.request_log import RequestLog
from tests.google_server.store import Calendar, Store
from tests.google_server.times import Json, zone
from tests.google_server.wire import Wire

ROBOT = "scheduler@calendar-stand-in.iam.gserviceaccount.com"
"""The service account that key files are for unless told otherwise."""


class GoogleServer:
    """A Google of one's own.

    ``clock`` is the time of the calendar: ``created``, ``updated``, quota minutes, the request log.
    ``token_clock`` is the time JWTs and access tokens are judged by; it is the real one by default, because
    google-auth always signs with the real time. Move ``clock_offset`` to make the client's clock look wrong.

    Knobs: ``knobs.api_enabled``, ``knobs.quota_per_minute``, ``knobs.quota_code`` (403 or 429),
    ``knobs.page_sizes`` (sizes of the next pages of ``events.list``, 0 for an empty one),
    ``knobs.largest_page``, ``knobs.leak_cancelled`` (cancelled items even with ``showDeleted=false``),
    ``knobs.check_answers`` (hold every answer, and the field names of every body, against the discovery
    document; what is wrong is in ``violations``).
    """

    def __init__(
        self,
        port: int = 0,
        clock: Clock = system_clock,
        token_clock: Clock = system_clock,
        state: Path | None = None,
    ) -> None:
        self.clock = clock
        self.clock_offset = timedelta()
        self.knobs = Knobs()
        self.store = Store(clock, state)
        self.accounts = Accounts(self.store.accounts, lambda: token_clock() + self.clock_offset)
        self.api = CalendarApi(self.store, self.accounts, self.knobs)
        self.faults = Faults()
        self.log = RequestLog(clock)
        self.control = Control(self)
        self._wire = Wire(self, port)
        self._thread: threading.Thread | None = None
        self.port = int(self._wire.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def api_endpoint(self) -> str:
        """For ``client_options={"api_endpoint": …}``, with the slash it needs."""
        return f"{self.url}/calendar/v3/"

    @property
    def token_uri(self) -> str:
        return f"{self.url}/token"

    @property
    def violations(self) -> list[str]:
        """What was wrong with answers, while ``knobs.check_answers`` was on."""
        return self.api.violations

    def start(self) -> None:
        """Serves in a thread of its own until ``stop``; again on the same port after one."""
        if self._thread is not None:
            self._wire = Wire(self, self.port)
        self._thread = threading.Thread(
            target=self._wire.serve_forever, kwargs={"poll_interval": 0.02}, name="google-server", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stops serving: what hangs is released and every connection dropped."""
        self.faults.clear()
        if self._thread is not None:
            self._wire.shutdown()
            self._thread.join()
        self._wire.drop_all()
        self._wire.server_close()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Google cannot be reached: connections are refused; calendars, tokens and the log stay."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def grant(self, body: bytes) -> Json:
        with self.store.lock:
            return self.accounts.grant(body, self.token_uri)

    def key_file(self, directory: Path, email: str = ROBOT) -> Path:
        """Makes a new RSA key for a service account and writes its key file; answers the file's path."""
        path = directory / "google-service-account.json"
        self.write_key(path, email)
        return path

    def write_key(self, path: Path, email: str = ROBOT) -> None:
        """Writes a key file for google-auth to that path, readable by its owner only."""
        with self.store.lock:
            content = self.accounts.new_key(email)
            if email not in self.store.calendars:
                self.store.calendars[email] = Calendar(email, email, "UTC", email)
            self.store.save()
        path.touch(mode=0o600)
        path.write_text(json.dumps(content | {"token_uri": self.token_uri}, indent=2))

    def calendar(
        self,
        calendar_id: str = "",
        time_zone: str = "UTC",
        *,
        summary: str = "",
        owner: str = "owner@example.org",
        share_with: str | None = ROBOT,
        role: str = "writer",
    ) -> CalendarHandle:
        """The calendar of that id; where there is none, it is made and shared as told."""
        zone(time_zone)
        calendar_id = calendar_id or f"c_{secrets.token_hex(16)}@group.calendar.google.com"
        with self.store.lock:
            calendar = self.store.calendars.get(calendar_id)
            if calendar is None:
                calendar = Calendar(calendar_id, summary or calendar_id, time_zone, owner)
                self.store.calendars[calendar_id] = calendar
                self.store.touch(calendar)
                if share_with:
                    calendar.roles[share_with] = role
                self.store.save()
        return CalendarHandle(self.store, calendar)


@contextmanager
def google_server(
    port: int = 0,
    clock: Clock = system_clock,
    token_clock: Clock = system_clock,
    state: Path | None = None,
) -> Iterator[GoogleServer]:
    """A running server on a free port of the loopback interface."""
    google = GoogleServer(port, clock, token_clock, state)
    google.start()
    try:
        yield google
    finally:
        google.stop()
