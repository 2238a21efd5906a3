"""Whatever Google, the way there or the credentials do, it never reads as an empty calendar."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import httplib2
import pytest
from google.auth.exceptions import DefaultCredentialsError, RefreshError, TransportError

from calendars.google import GoogleCalendar
from calendars.google_client import MAX_ATTEMPTS
from calendars.google_failures import Asking, GoogleUnavailable, explain
from calendars.google_wire import api_endpoint
from calendars.source import CalendarUnavailable
from tests.calendars.google_desk import MODEL, Desk, read, refusal
from tests.calendars.texts import at, times
from tests.google_server import ROBOT, CalendarHandle

ONE = ["2026-03-02 09:00 10:00"]


@pytest.fixture
def lab(desk: Desk) -> CalendarHandle:
    """A calendar with one event."""
    lab = desk.lab()
    lab.add(MODEL, "2026-03-02T09:00", "2026-03-02T10:00")
    return lab


# --- what is tried again, and what is not ----------------------------------------------------------------

TRIED_AGAIN = [
    "error:backendError",
    "error:badGateway",
    "error:serviceUnavailable",
    "error:gatewayTimeout",
    "error:requestTimeout",
    "error:rateLimitExceeded",
    "error:rateLimitExceeded429",
    "error:userRateLimitExceeded",
    "truncated",
    "drop_before",
    "drop_after",
    "empty",
]


@pytest.mark.parametrize("fault", TRIED_AGAIN)
def test_what_passes_is_tried_again(desk: Desk, lab: CalendarHandle, fault: str) -> None:
    desk.google.faults.add(fault, times=2, path="/events")
    assert times(read(desk.source(lab))) == ONE


@pytest.mark.parametrize("fault", TRIED_AGAIN)
def test_what_does_not_pass_is_unavailable_after_a_few_tries(
    desk: Desk, lab: CalendarHandle, fault: str
) -> None:
    desk.google.faults.add(fault, times=None, path="/events")
    source = desk.source(lab)
    error = refusal(source)
    assert lab.id in error.reason
    # A connection that breaks before an answer is opened once more by httplib2 itself.
    assert MAX_ATTEMPTS <= desk.requests("GET") <= 2 * MAX_ATTEMPTS
    desk.google.faults.clear()
    assert times(read(source)) == ONE


NOT_TRIED_AGAIN = {
    "error:quotaExceeded": ("the quota is used up", "quota"),
    "error:badRequest": ("refused", "endpoint"),
    "error:fullSyncRequired": ("gone", "next reading"),
    "error:conditionNotMet": ("refused", ""),
    "error:insufficientPermissions": ("do not allow calendars", "auth/calendar.events"),
    "error:accessNotConfigured": ("API is not enabled", "console.cloud.google.com"),
    "error:forbidden": (f"{ROBOT} may not do this", f"share it with {ROBOT}"),
    "error:notFound": (f"not shared with {ROBOT}", f"share it with {ROBOT}"),
    "html": ("a web page was answered", "proxy"),
}


@pytest.mark.parametrize("fault", NOT_TRIED_AGAIN)
def test_what_does_not_pass_by_itself_is_said_at_once(desk: Desk, lab: CalendarHandle, fault: str) -> None:
    what, remedy = NOT_TRIED_AGAIN[fault]
    desk.google.faults.add(fault, times=None, path="/events")
    error = refusal(desk.source(lab))
    assert what in error.reason
    assert remedy in error.remedy
    assert desk.requests("GET") == 1


def test_a_calendar_that_is_not_shared_names_the_mail_address(desk: Desk) -> None:
    mine = desk.google.calendar(share_with=None)
    error = refusal(desk.source(mine))
    assert (ROBOT in error.reason, ROBOT in error.remedy) == (True, True)
    assert isinstance(error, GoogleUnavailable)
    assert (error.status, error.codes) == (404, ("notFound",))


def test_sharing_it_is_enough(desk: Desk) -> None:
    mine = desk.google.calendar(share_with=None)
    source = desk.source(mine)
    refusal(source)
    mine.share(ROBOT, "reader")
    assert read(source).reservations == ()


def test_an_api_that_is_not_enabled(desk: Desk, lab: CalendarHandle) -> None:
    desk.google.knobs.api_enabled = False
    error = refusal(desk.source(lab))
    assert "not enabled" in error.reason
    assert "accessNotConfigured" in error.reason, "the reason is that of the errors, not of the details"


@pytest.mark.parametrize("code", [403, 429])
def test_a_quota_of_requests_is_waited_for_and_then_said(desk: Desk, lab: CalendarHandle, code: int) -> None:
    desk.google.knobs.quota_per_minute, desk.google.knobs.quota_code = 0, code
    error = refusal(desk.source(lab))
    assert "too many requests" in error.reason
    assert "Poll less often" in error.remedy
    assert desk.requests("GET") == MAX_ATTEMPTS


def test_a_token_that_was_revoked_is_fetched_anew(desk: Desk, lab: CalendarHandle) -> None:
    source = desk.source(lab)
    read(source)
    desk.google.accounts.expire_tokens()
    assert times(read(source)) == ONE
    assert len(desk.google.log.matching("POST", "/token")) == 2


def test_a_failure_in_the_middle_of_the_pages_is_not_the_pages_so_far(
    desk: Desk, lab: CalendarHandle
) -> None:
    lab.add("good/model", "2026-03-02T09:00", "2026-03-02T10:00")
    source = desk.source(lab, page_size=1)
    read(source)
    desk.google.log.clear()
    first = desk.google.faults.add("slow", path="/events", seconds=30)
    errors: list[CalendarUnavailable] = []
    reader = Thread(target=lambda: errors.append(refusal(source)))
    reader.start()
    assert first.reached.wait(10)
    desk.google.faults.add("error:quotaExceeded", path="/events")
    first.release()
    reader.join(20)
    assert len(errors) == 1
    assert desk.requests("GET") == 2


# --- deadlines ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/events", "/token"], ids=["list", "token"])
def test_a_hung_connection_hangs_for_the_deadline_only(desk: Desk, lab: CalendarHandle, path: str) -> None:
    hung = desk.google.faults.add("hang", times=None, path=path)
    source = desk.source(lab, deadline_seconds=0.5)
    begun = time.monotonic()
    error = refusal(source)
    assert time.monotonic() - begun < 3
    assert hung.reached.is_set()
    assert "no answer" in error.reason
    desk.google.faults.clear()
    slow_to_sign = desk.source(lab)
    assert times(read(slow_to_sign)) == ONE


def test_the_next_reading_is_not_in_the_way_of_one_that_was_given_up(desk: Desk, lab: CalendarHandle) -> None:
    source = desk.source(lab, deadline_seconds=1.0)
    read(source)
    # 0.45 s each: no single wait reaches httplib2's own timeout, all together pass the deadline.
    desk.google.faults.add("slow", times=2, path="/events", seconds=0.45)
    desk.google.faults.add("hang", times=1, path="/events")
    for n in range(3):
        lab.add(f"a/m{n}", "2026-03-03T09:00", "2026-03-03T10:00")
    desk.google.knobs.largest_page = 1
    assert "no answer" in refusal(source).reason
    desk.google.faults.clear()
    desk.google.knobs.largest_page = None
    assert len(read(source).reservations) == 4


def test_a_pause_that_would_pass_the_deadline_is_not_begun(desk: Desk, lab: CalendarHandle) -> None:
    desk.google.faults.add("error:backendError", times=None, path="/events")
    begun = time.monotonic()
    error = refusal(desk.source(lab, retry_pause_seconds=60.0))
    assert time.monotonic() - begun < 5
    assert "in trouble" in error.reason, "the last failure is said, not that time ran out"
    assert desk.requests("GET") == 1


class _Answers(BaseHTTPRequestHandler):
    """Answers everything with the same few bytes."""

    answer = b""
    status = 200
    headers_too: tuple[tuple[str, str], ...] = ()
    asked: list[str] = []  # noqa: RUF012 - replaced for each server
    slowly = False
    stop = Event()

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        if self.slowly:
            while not self.stop.wait(0.05):
                try:
                    self.wfile.write(b"H")
                except OSError:
                    return
            return
        self.send_response(self.status)
        for name, value in self.headers_too:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def answering(answer: bytes = b"", **attributes: object) -> Iterator[tuple[str, list[str]]]:
    """A server that is no Google, and what it was asked."""
    kind = type("Answers", (_Answers,), {"answer": answer, "asked": [], "stop": Event(), **attributes})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", kind.asked
        finally:
            kind.stop.set()
            server.shutdown()


def test_a_server_that_drips_bytes_is_given_up(desk: Desk) -> None:
    with answering(slowly=True) as (url, _):
        begun = time.monotonic()
        error = refusal(desk.source("lab", endpoint=url, deadline_seconds=1.0))
        assert time.monotonic() - begun < 4
    assert "no answer within 1 s" in error.reason


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"{}", "{}"),
        (b"[]", "[]"),
        (b"null", "nothing"),
        (b'"events"', "events"),
        (b'{"kind": "calendar#event"}', "calendar#event"),
        (b'{"kind": "calendar#events", "items": {}}', "items"),
        (b'{"kind": "calendar#events", "items": [], "nextPageToken": 5}', "nextPageToken"),
        (b'{"kind": "calendar#events", "items": [', "items"),
        (b"\xff\xfe", "cannot be read"),
        (b"<html>Log in</html>", "web page"),
    ],
)
def test_an_answer_of_another_kind_is_no_empty_calendar(desk: Desk, answer: bytes, said: str) -> None:
    with answering(answer) as (url, _):
        assert said in refusal(desk.source("lab", endpoint=url)).reason


def test_two_events_with_one_key_are_told_apart_by_their_ids(desk: Desk) -> None:
    when = {
        name: {"dateTime": f"2026-03-02T{hour}:00:00Z"}
        for name, hour in (("start", "09"), ("end", "10"), ("originalStartTime", "09"))
    }
    twins = [
        {"id": name, "summary": "a/b", "recurringEventId": "series", "status": "confirmed", **when}
        for name in ("y", "x")
    ]
    page = {"kind": "calendar#events", "items": twins, "timeZone": "UTC", "accessRole": "writer"}
    with answering(json.dumps(page).encode()) as (url, _):
        found = read(desk.source("lab", endpoint=url)).reservations
    assert [one.key for one in found] == ["series/20260302T090000Z", "series/20260302T090000Z#y"]


def test_an_event_on_two_pages_is_as_it_is_on_the_later(desk: Desk) -> None:
    when = {"start": {"date": "2026-03-02"}, "end": {"date": "2026-03-03"}}
    items = [{"id": "x", "etag": name, "summary": name, **when} for name in ("a/b", "c/d")]
    page = {"kind": "calendar#events", "items": items, "timeZone": "UTC", "accessRole": "writer"}
    with answering(json.dumps(page).encode()) as (url, _):
        found = read(desk.source("lab", endpoint=url)).reservations
    assert [one.title for one in found] == ["c/d"]


def test_pages_without_end_are_given_up(desk: Desk) -> None:
    page = b'{"kind": "calendar#events", "items": [], "nextPageToken": "again"}'
    with answering(page) as (url, asked):
        assert "more than 200" in refusal(desk.source("lab", endpoint=url)).reason
    assert len(asked) == 200


def test_retry_after_is_heeded(desk: Desk) -> None:
    with answering(b"{}", status=503, headers_too=(("Retry-After", "3600"),)) as (url, asked):
        begun = time.monotonic()
        refusal(desk.source("lab", endpoint=url))
    assert len(asked) == 1, "an hour would pass the deadline"
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("path", ["", "/", "/calendar/v3", "/calendar/v3/"])
def test_the_endpoint_is_completed(path: str) -> None:
    assert api_endpoint(f"http://127.0.0.1:1{path}") == "http://127.0.0.1:1/calendar/v3/"


def test_nothing_listens(desk: Desk) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        error = refusal(desk.source("lab", endpoint=endpoint))
    assert "nothing listens" in error.reason


# --- credentials -------------------------------------------------------------------------------------------


def test_a_key_file_that_is_not_there(desk: Desk, tmp_path: Path) -> None:
    error = refusal(desk.source("lab", key_file=tmp_path / "none.json"))
    assert str(tmp_path / "none.json") in error.reason
    assert "does not exist" in error.reason
    assert "SCHEDULING_GOOGLE_CREDS_PATH" in error.remedy


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[]", "not the key of a service account"),
        ('{"type": "authorized_user"}', "'authorized_user'"),
        ('{"installed": {"client_id": "x"}}', "an OAuth client's"),
        ('{"type": "service_account"}', "has no client_email and no private_key and no token_uri"),
        (
            '{"type": "service_account", "client_email": "a@b.c", "private_key": "x", "token_uri": "http://x"}',
            "holds a private key that cannot be used",
        ),
    ],
)
def test_a_key_file_that_is_none(desk: Desk, tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "key.json"
    path.write_text(content)
    error = refusal(desk.source("lab", key_file=path))
    assert said in error.reason
    assert str(path) in error.reason


def test_a_directory_is_no_key_file(desk: Desk, tmp_path: Path) -> None:
    assert "cannot be read (is a directory)" in refusal(desk.source("lab", key_file=tmp_path)).reason


def test_a_key_that_was_replaced_is_taken_without_a_restart(desk: Desk, tmp_path: Path) -> None:
    lab = desk.google.calendar(share_with="other@stand-in.iam.gserviceaccount.com")
    path = tmp_path / "key.json"
    path.write_text("")
    source = desk.source(lab, key_file=path)
    assert "is not JSON" in refusal(source).reason
    desk.google.write_key(path, "other@stand-in.iam.gserviceaccount.com")
    assert read(source).reservations == ()
    desk.google.accounts.revoke_keys("other@stand-in.iam.gserviceaccount.com")
    desk.google.accounts.expire_tokens()
    error = refusal(source)
    assert "has been deleted" in error.reason
    assert "new key" in error.remedy
    desk.google.write_key(path, "other@stand-in.iam.gserviceaccount.com")
    assert read(source).reservations == ()


@pytest.mark.parametrize("minutes", [-10, 70])
def test_a_clock_that_is_off_by_minutes(desk: Desk, lab: CalendarHandle, minutes: int) -> None:
    desk.google.clock_offset = timedelta(minutes=minutes)
    error = refusal(desk.source(lab))
    assert "clock is off by minutes" in error.reason
    assert "NTP" in error.remedy
    assert "Google's clock reads " in error.remedy
    assert len(desk.google.log.matching("POST", "/token")) == 1


def test_an_account_that_no_longer_exists(desk: Desk, lab: CalendarHandle, tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    desk.google.write_key(path, "gone@stand-in.iam.gserviceaccount.com")
    del desk.google.accounts.accounts["gone@stand-in.iam.gserviceaccount.com"]
    assert "no longer exists" in refusal(desk.source(lab, key_file=path)).reason


def test_a_token_endpoint_that_answers_with_a_web_page(desk: Desk, lab: CalendarHandle) -> None:
    desk.google.faults.add("html", times=None, path="/token")
    assert "web page" in refusal(desk.source(lab)).reason


def test_a_token_endpoint_in_trouble_is_asked_again(desk: Desk, lab: CalendarHandle) -> None:
    # google-auth itself asks three times, with pauses of its own.
    desk.google.faults.add("drop_before", times=2, path="/token")
    assert times(read(desk.source(lab))) == ONE


def test_application_default_credentials(
    desk: Desk, lab: CalendarHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(desk.key))
    assert times(read(desk.source(lab, key_file=None))) == ONE


def test_no_application_default_credentials(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    error = refusal(desk.source("lab", key_file=None))
    assert "there are no credentials" in error.reason
    assert "SCHEDULING_GOOGLE_CREDS_PATH" in error.remedy


def test_nothing_is_read_or_sent_before_it_is_asked_for(desk: Desk, tmp_path: Path) -> None:
    source = GoogleCalendar("lab", key_file=tmp_path / "none.json", endpoint=desk.google.api_endpoint)
    assert (source.name, source.account, source.seen) == ("lab", None, None)
    source.close()
    assert desk.google.log.requests == []


# --- words -------------------------------------------------------------------------------------------------

ASKING = Asking("lab", None, None, "Mon, 02 Mar 2026 09:00:00 GMT")

WORDS = {
    "DNS": (httplib2.ServerNotFoundError("Unable to find the server at x.org"), "not found (x.org)", True),
    "DNS, raw": (socket.gaierror(-2, "Name or service not known"), "not found", True),
    "DNS, for a token": (TransportError(httplib2.ServerNotFoundError("Unable at y.org")), "y.org", True),
    "certificate": (ssl.SSLCertVerificationError("self-signed"), "not trusted", False),
    "broken off": (http.client.IncompleteRead(b"x"), "broke", True),
    "hung up": (http.client.RemoteDisconnected("hung up"), "broke", True),
    "no route": (OSError(113, "No route to host"), "No route to host", True),
    "timeout": (TimeoutError("timed out"), "no answer came in time", True),
    "proxies cannot be used": (httplib2.ProxiesUnavailableError("no support"), "proxy", False),
    "compressed badly": (
        httplib2.FailedToDecompressContent("bad", httplib2.Response({}), b""),
        "cannot be read",
        True,
    ),
    "no credentials": (DefaultCredentialsError("none"), "no credentials", False),
    "scope": (RefreshError("invalid_scope: x", {}), "may not ask for access", False),
    "client": (RefreshError("unauthorized_client: x", {}), "may not ask for access", False),
    "another refusal": (RefreshError("access_denied: Account restricted", {}), "are not accepted", False),
    "Google in trouble": (RefreshError("internal_failure", {}, retryable=True), "just now", True),
    "a login page": (RefreshError("<html>log in</html>"), "web page", False),
    "nonsense": (TypeError("string indices must be integers"), "cannot be read", False),
}


@pytest.mark.parametrize(("error", "words", "transient"), WORDS.values(), ids=WORDS)
def test_words(error: Exception, words: str, transient: bool) -> None:
    explained = explain(error, ASKING)
    assert words in explained.reason
    assert explained.transient is transient
    assert explained.reason.startswith("The Google calendar lab cannot be reached: ")
    assert explained.remedy


def test_a_wrong_clock_is_told_googles(desk: Desk) -> None:
    error = explain(RefreshError("invalid_grant: Token must be in a reasonable timeframe"), ASKING)
    assert "Google's clock reads Mon, 02 Mar 2026 09:00:00 GMT." in error.remedy


def test_what_google_says_is_shown_on_one_line_and_cut(desk: Desk) -> None:
    message = "spilled\nover\x1b[31m" + "x" * 5000
    body = json.dumps({"error": {"message": message, "errors": [{"reason": "odd"}]}}).encode()
    with answering(body, status=418) as (url, _):
        reason = refusal(desk.source("lab", endpoint=url)).reason
    assert "spilled over?[31m" in reason
    assert len(reason) < 500


@pytest.mark.parametrize("status", [400, 403])
@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"[{}]", b"5", b'{"error": "x"}', b'{"error": {"errors": {}}}', b"\xff"],
)
def test_an_error_without_its_json_is_an_error_nevertheless(desk: Desk, body: bytes, status: int) -> None:
    with answering(body, status=status) as (url, _):
        reason = refusal(desk.source("lab", endpoint=url)).reason
    assert f"HTTP {status}" in reason or "the answer cannot be read" in reason


def test_reading_goes_on_after_any_failure(desk: Desk, lab: CalendarHandle) -> None:
    source = desk.source(lab)
    for fault in ("html", "error:notFound", "error:authError", "error:quotaExceeded"):
        desk.google.faults.add(fault, times=None)
        refusal(source)
        desk.google.faults.clear()
        assert times(source.read(at("2026-03-01"), at("2026-04-01"))) == ONE
