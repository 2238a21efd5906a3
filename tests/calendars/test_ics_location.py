"""Files and URLs: what cannot be read says what to do, in time and without its secrets."""

from __future__ import annotations

import gzip
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import tzinfo
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from calendars.ics import IcsCalendar
from calendars.ics_events import Event, EventFault, read_events
from calendars.ics_location import MAX_ATTEMPTS, MAX_CALENDAR_BYTES, display_name
from calendars.reservation import Reading
from calendars.source import CalendarSource, CalendarUnavailable
from tests.calendars.texts import GOOD, at, calendar

WHOLE = calendar(GOOD).encode()
LOGIN_PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"


def read(location: str, timeout_seconds: float = 20.0) -> Reading:
    source: CalendarSource = IcsCalendar(location, timeout_seconds=timeout_seconds, retry_pause_seconds=0)
    return source.read(at("2026-03-01"), at("2026-04-01"))


def refusal(location: str, timeout_seconds: float = 20.0) -> CalendarUnavailable:
    with pytest.raises(CalendarUnavailable) as caught:
        read(location, timeout_seconds)
    error = caught.value
    assert error.reason.startswith("The calendar ")
    assert error.remedy.endswith(".")
    assert "\n" not in str(error)
    return error


# --- files --------------------------------------------------------------------------------------------

FOLDED = calendar(GOOD.replace("SUMMARY:good", "SUMMARY:\n go\n\tod"), GOOD.replace("UID:good", "UID:grün"))
READABLE = {
    "as it is": WHOLE,
    "CRLF": WHOLE.replace(b"\n", b"\r\n"),
    "CR": WHOLE.replace(b"\n", b"\r"),
    "a byte order mark": b"\xef\xbb\xbf" + WHOLE,
    "blank lines around": b"\n\n" + WHOLE + b"\n\n",
    "small letters": WHOLE.replace(b"BEGIN:VCALENDAR", b"begin:vcalendar"),
    # RFC 5545 section 3.1 lets a fold stand in the middle of a character.
    "folded inside a character": FOLDED.encode().replace("ü".encode(), b"\xc3\r\n \xbc"),
}


@pytest.mark.parametrize("content", READABLE.values(), ids=READABLE)
def test_readable(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.ics"
    path.write_bytes(content)
    reading = read(str(path))
    assert {one.request.model for one in reading.reservations} == {"good/model"}
    assert not reading.misunderstood
    assert [one.key for one in reading.reservations][1:] in ([], ["grün"])


def test_a_calendar_without_events_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "c.ics"
    path.write_text(calendar())
    assert read(str(path)) == Reading(calendar=str(path))


def test_a_file_is_parsed_anew_only_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []

    def read_and_count(content: bytes, zone: tzinfo) -> tuple[Event | EventFault, ...]:
        parsed.append(content)
        return read_events(content, zone)

    monkeypatch.setattr("calendars.ics.read_events", read_and_count)
    path = tmp_path / "c.ics"
    path.write_bytes(WHOLE)
    source = IcsCalendar(str(path))
    window = at("2026-03-01"), at("2026-04-01")
    first = source.read(*window)
    assert source.read(*window) == first
    assert len(parsed) == 1
    path.write_text(calendar())
    assert source.read(*window).reservations == ()
    path.write_bytes(b"")
    for _ in range(2):  # what was last understood is not taken for what is there now
        with pytest.raises(CalendarUnavailable):
            source.read(*window)
    path.write_bytes(WHOLE)
    assert source.read(*window) == first


@pytest.mark.parametrize("prefix", ["file://", "file://localhost", "FILE://"])
def test_file_urls(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "my bookings.ics"
    path.write_bytes(WHOLE)
    assert len(read(f"{prefix}{path}".replace(" ", "%20")).reservations) == 1


NOT_CALENDARS = {
    "empty": (b"", "is empty"),
    "blank": (b" \r\n\n", "is empty"),
    "a web page": (b"\n  " + LOGIN_PAGE, "web page"),
    "prose": (b"dear all,\n", "does not begin with BEGIN:VCALENDAR"),
    "something before": (b"x\n" + WHOLE, "does not begin with BEGIN:VCALENDAR"),
    "Latin-1": (WHOLE.replace(b"good/model", b"gr\xfcn"), "not UTF-8"),
    "UTF-16": (WHOLE.decode().encode("utf-16"), "not UTF-8"),
    "cut inside an event": (WHOLE[:150], "breaks off"),
    "cut before its last line": (WHOLE.replace(b"END:VCALENDAR", b""), "breaks off"),
    "the rest of a longer one behind it": (
        WHOLE + b"SUMMARY:x\nEND:VEVENT\nEND:VCALENDAR\n",
        "goes on after",
    ),
    "two, the first cut": (WHOLE.replace(b"END:VCALENDAR", b"") + WHOLE, "breaks off"),
    "too large": (b"x" * (MAX_CALENDAR_BYTES + 1), "larger than 20 MiB"),
}


@pytest.mark.parametrize(("content", "named"), NOT_CALENDARS.values(), ids=NOT_CALENDARS)
def test_not_calendars(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "c.ics"
    path.write_bytes(content)
    error = refusal(str(path))
    assert named in error.reason
    assert str(path) in error.reason


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(WHOLE)
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    for path, named in {
        tmp_path / "missing.ics": "does not exist",
        tmp_path: "is a directory",
        tmp_path / "pipe": "not a regular file",
        tmp_path / "file" / "c.ics": "not a directory",
        tmp_path / ("x" * 300): "name too long",
        tmp_path / "loop": "cannot be read",
        tmp_path / "nul\0": "cannot be read",
    }.items():
        assert named in refusal(str(path)).reason
    assert "names the host example.org" in refusal("file://example.org/c.ics").reason


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_of_someone_else(tmp_path: Path) -> None:
    path = tmp_path / "c.ics"
    path.write_bytes(WHOLE)
    path.chmod(0)
    assert "permission denied" in refusal(str(path)).reason


# --- URLs ----------------------------------------------------------------------------------------------


@dataclass
class Server:
    """A local server that answers each path as its table says, and keeps what it was asked."""

    port: int = 0
    answers: dict[str, list[tuple[int, dict[str, str], bytes]]] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    drip: threading.Event = field(default_factory=threading.Event)
    dripping_ended: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str, user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.port}{path}"


def handler_of(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            server.requests.append((self.path, self.headers.get("Authorization")))
            if path.startswith("/drip"):
                self._drip(within_headers=path == "/drip-headers")
                return
            answers = server.answers[path]
            status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
            if status == 0:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _drip(self, *, within_headers: bool) -> None:
            """One byte now and then, so that no single read ever times out."""
            self.wfile.write(b"HTTP/1.0 200 OK\r\n" + (b"X-Slow: " if within_headers else b"\r\n"))
            try:
                while not server.drip.wait(0.02):
                    self.wfile.write(b"x")
            except OSError:
                server.dripping_ended.set()

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    told = Server()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler_of(told)) as http:
        http.daemon_threads = True
        told.port = http.server_address[1]
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield told
        told.drip.set()
        http.shutdown()
        thread.join()


def test_a_calendar_behind_a_url(server: Server) -> None:
    server.answers["/c.ics"] = [(200, {"Content-Type": "text/calendar"}, WHOLE)]
    reading = read(server.url("/c.ics?token=geheim", user="bob:pass@"))
    assert len(reading.reservations) == 1
    assert reading.calendar == server.url("/c.ics")
    assert server.requests == [("/c.ics?token=geheim", "Basic Ym9iOnBhc3M=")]


def test_webcal_redirects_and_compression(server: Server) -> None:
    server.answers["/old"] = [(302, {"Location": "/new"}, b"")]
    server.answers["/new"] = [(200, {"Content-Encoding": "gzip"}, gzip.compress(WHOLE))]
    assert len(read(server.url("/old").replace("http:", "webcal:")).reservations) == 1


BAD_ANSWERS = {
    "a page at 200": ([(200, {}, LOGIN_PAGE)], "web page", 1),
    "a redirect to a page to log in": ([(302, {"Location": "/login"}, b"")], "web page", 1),
    "redirects without end": ([(302, {"Location": "/c.ics"}, b"")], "redirects more than", 6),
    "not found": ([(404, {}, LOGIN_PAGE)], "is not there (HTTP 404)", 1),
    "gone": ([(410, {}, b"")], "is not there (HTTP 410)", 1),
    "unauthorised": ([(401, {}, b"")], "refuses access (HTTP 401)", 1),
    "forbidden": ([(403, {}, b"")], "refuses access (HTTP 403)", 1),
    "no content": ([(204, {}, b"")], "HTTP 204 instead of a calendar", 1),
    "an empty body": ([(200, {}, b"")], "is empty", 1),
    "half a calendar": ([(200, {}, WHOLE[:-20])], "breaks off", 1),
    "down for good": ([(503, {}, b"")], "status 503", MAX_ATTEMPTS),
    "connections cut off": ([(0, {}, b"")], "cannot be fetched", MAX_ATTEMPTS),
    "bad compression": ([(200, {"Content-Encoding": "gzip"}, b"nonsense")], "cannot be fetched", 1),
    "too large": ([(200, {}, b"x" * (MAX_CALENDAR_BYTES + 1))], "larger than 20 MiB", 1),
    "too large when unpacked": (
        [(200, {"Content-Encoding": "gzip"}, gzip.compress(b"x" * (MAX_CALENDAR_BYTES + 1)))],
        "larger than 20 MiB",
        1,
    ),
}


@pytest.mark.parametrize(("answers", "named", "asked"), BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_bad_answers(
    server: Server, answers: list[tuple[int, dict[str, str], bytes]], named: str, asked: int
) -> None:
    server.answers = {"/c.ics": answers, "/login": [(200, {}, LOGIN_PAGE)]}
    error = refusal(server.url("/c.ics?token=geheim", user="bob:pass@"))
    assert named in error.reason
    assert "geheim" not in str(error)
    assert "pass@" not in str(error)
    assert len([path for path, _ in server.requests if path.startswith("/c.ics")]) == asked


@pytest.mark.parametrize("trouble", [503, 500, 429, 0])
def test_troubles_that_pass_are_tried_again(server: Server, trouble: int) -> None:
    server.answers["/c.ics"] = [(trouble, {}, b"")] * (MAX_ATTEMPTS - 1) + [(200, {}, WHOLE)]
    assert len(read(server.url("/c.ics")).reservations) == 1


@pytest.mark.parametrize("path", ["/drip-headers", "/drip-body"])
def test_a_server_that_drips_is_given_up_in_time(server: Server, path: str) -> None:
    begun = time.monotonic()
    error = refusal(server.url(path), timeout_seconds=0.4)
    assert time.monotonic() - begun < 3
    assert "within 0.4 s" in error.reason
    assert server.dripping_ended.wait(10), "the connection was left open"


def test_a_server_that_says_nothing(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = refusal(f"http://127.0.0.1:{silent.getsockname()[1]}/c.ics", timeout_seconds=0.3)
    assert "did not answer within 0.3 s" in error.reason


def test_no_server_and_no_host(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "cannot be fetched" in refusal(f"http://127.0.0.1:{port}/c.ics").reason

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "Name or service not known" in refusal("https://calendar.invalid/c.ics").reason


def test_a_name_server_that_hangs(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def hang(*_: object, **__: object) -> None:
        answered.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    error = refusal("http://calendar.invalid/c.ics", timeout_seconds=0.2)
    answered.set()
    assert "did not answer within 0.2 s" in error.reason


@pytest.mark.parametrize("url", ["http://", "http://[::1", "https://example.org:99999/c.ics", "http://a b/"])
def test_urls_that_are_none(server: Server, url: str) -> None:
    assert "cannot be fetched" in refusal(url).reason


def test_httpx_does_not_log_secrets(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.answers["/private-abc/c.ics"] = [(200, {}, WHOLE)]
    with caplog.at_level(logging.INFO, logger="httpx"):
        read(server.url("/private-abc/c.ics?token=geheim", user="bob:pass@"))
    assert "HTTP Request" in caplog.text
    for secret in ("geheim", "pass@", "private-abc"):
        assert secret not in caplog.text


NAMES = {
    "var/calendar.ics": "var/calendar.ics",
    "https://bob:pass@example.org:8443/c.ics?key=1#x": "https://example.org:8443/c.ics",
    "webcal://example.org/c.ics": "webcal://example.org/c.ics",
    "https://[::1]:80/c.ics": "https://[::1]:80/c.ics",
    "https://calendar.google.com/calendar/ical/team%40example.org/private-0a1b2c/basic.ics": (
        "https://calendar.google.com/calendar/ical/team%40example.org/private-…/basic.ics"
    ),
    "https://example.org/published/2/MTIzNDU2Nzg5MDEyMzQ1Njc4OTA/team.ics": (
        "https://example.org/published/2/MTIz…/team.ics"
    ),
    "https://bob:pass@[broken": "https://…",
}


@pytest.mark.parametrize(("location", "name"), NAMES.items(), ids=range(len(NAMES)))
def test_names_have_no_secrets(location: str, name: str) -> None:
    assert display_name(location) == name
    assert IcsCalendar(location).name == name
    assert "pass" not in repr(IcsCalendar(location))


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Europe/Berlin"):
        IcsCalendar("c.ics", default_timezone="Mars/Olympus")
    source = IcsCalendar(str(tmp_path / "c.ics"))
    for window in (("2026-03-02", "2026-03-02"), ("2026-03-03", "2026-03-02")):
        with pytest.raises(ValueError, match="not a window"):
            source.read(at(window[0]), at(window[1]))
    with pytest.raises(ValueError, match="not a window"):
        source.read(at("2026-03-01").replace(tzinfo=None), at("2026-03-02"))
