"""Deployment events for another service: best effort, and nobody waits for them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from scheduler import events
from scheduler.events import Events


@pytest.fixture
def service() -> Iterator[tuple[str, list[dict[str, object]]]]:
    got: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/events", got
    server.shutdown()
    thread.join()
    server.server_close()


def test_events_arrive_in_their_order(service: tuple[str, list[dict[str, object]]]) -> None:
    url, got = service
    teller = Events(url)
    for number in range(3):
        teller.tell({"number": number})
    teller.close()
    assert got == [{"number": 0}, {"number": 1}, {"number": 2}]
    assert teller.dropped == 0


def test_a_service_that_is_away_costs_its_events_and_is_said_once(said: list[str]) -> None:
    teller = Events("http://127.0.0.1:9/events")
    for _ in range(3):
        teller.tell({})
    teller.close()
    assert teller.dropped == 3
    assert len([line for line in said if "cannot be posted" in line]) == 1


def test_nobody_waits_where_more_happens_than_can_be_posted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST_WAITING", 2)
    gate = threading.Event()
    monkeypatch.setattr(Events, "_post", lambda *_: gate.wait())
    teller = Events("http://127.0.0.1:9/events")
    for _ in range(9):
        teller.tell({})
    assert teller.dropped >= 6
    gate.set()
    teller.close()


def test_without_a_url_nothing_is_kept() -> None:
    teller = Events(None)
    teller.tell({})
    teller.close()
    assert teller.dropped == 0
