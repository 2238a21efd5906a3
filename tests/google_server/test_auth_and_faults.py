"""The stand-in for Google Calendar: tokens, quota, faults, the control endpoint and the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import Request
from google.oauth2.service_account import Credentials
from googleapiclient.errors import HttpError
from jsonschema import Draft202012Validator

from tests.google_server import ROBOT, FakeClock, GoogleServer, google_server, schemas
from tests.google_server.client import (
    EVENTS_SCOPE,
    api,
    client,
    google,
    reason_of,
    without_boundary_lookup,
)
from tests.google_server.errors import NAMED, ApiError
from tests.google_server.faults import KINDS

__all__ = ["api", "google", "without_boundary_lookup"]
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
TIMES = {"start": {"date": "2026-11-22"}, "end": {"date": "2026-11-23"}}


def listing(api: Any) -> Any:
    return api.events().list(calendarId="lab")


def control(google: GoogleServer, method: str, path: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{google.url}/control/{path}", data, method=method)
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


# --- tokens -------------------------------------------------------------------------------------------------


def test_a_key_file_gets_a_token_for_an_hour(google: GoogleServer, tmp_path: Path) -> None:
    path = google.key_file(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    credentials = Credentials.from_service_account_file(str(path), scopes=[EVENTS_SCOPE])
    credentials.refresh(Request())
    left = credentials.expiry.replace(tzinfo=UTC) - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)


@pytest.mark.parametrize(
    ("minutes", "accepted"), [(-56, True), (-4, True), (4, True), (-61, False), (6, False), (61, False)]
)
def test_a_client_clock_that_is_off_is_an_invalid_grant(
    google: GoogleServer, api: Any, minutes: int, accepted: bool
) -> None:
    """Up to five minutes ahead is tolerated; behind, the JWT has expired after its hour."""
    google.calendar("lab")
    google.clock_offset = timedelta(minutes=-minutes)
    if accepted:
        listing(api).execute()
        return
    with pytest.raises(RefreshError, match=r"invalid_grant: Invalid JWT: Token must be a short-lived token"):
        listing(api).execute()


def altered(path: Path, **fields: object) -> Path:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return path


def test_wrong_keys_accounts_and_scopes_are_refused_as_google_does(
    google: GoogleServer, tmp_path: Path
) -> None:
    key = google.key_file(tmp_path)
    (tmp_path / "other").mkdir()
    other = google.key_file(tmp_path / "other", "other@example.org")
    private = json.loads(other.read_text())["private_key"]
    with pytest.raises(RefreshError, match=r"invalid_scope"):
        listing(client(google, key, "everything")).execute()
    with pytest.raises(RefreshError, match=r"invalid_grant: Invalid JWT Signature\."):
        listing(client(google, altered(key, private_key=private))).execute()
    with pytest.raises(RefreshError, match=r"invalid_grant: Invalid grant: account not found"):
        listing(client(google, altered(other, client_email="nobody@example.org"))).execute()
    google.accounts.revoke_keys(ROBOT)
    with pytest.raises(RefreshError, match=r"Invalid JWT Signature"):
        listing(client(google, key)).execute()


def test_an_expired_token_is_a_401_and_the_client_gets_a_new_one(google: GoogleServer, api: Any) -> None:
    google.calendar("lab")
    listing(api).execute()
    google.accounts.expire_tokens()
    listing(api).execute()
    assert [one.status for one in google.log.requests] == [200, 200, 401, 200, 200]
    assert [one.account for one in google.log.requests][1::3] == [ROBOT, ROBOT]


def test_without_a_token_and_with_too_small_a_scope(google: GoogleServer, tmp_path: Path) -> None:
    google.calendar("lab")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{google.api_endpoint}calendars/lab", timeout=5)
    assert caught.value.code == 401 and "Bearer" in caught.value.headers["WWW-Authenticate"]
    small = client(google, google.key_file(tmp_path), EVENTS_SCOPE)
    listing(small).execute()
    assert reason_of(small.calendars().get(calendarId="lab").execute) == (403, "insufficientPermissions")


def test_the_api_must_be_enabled(google: GoogleServer, api: Any) -> None:
    google.calendar("lab")
    google.knobs.api_enabled = False
    assert reason_of(listing(api).execute) == (403, "accessNotConfigured")
    with pytest.raises(HttpError, match="has not been used in project"):
        listing(api).execute()


# --- quota --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [403, 429])
def test_the_quota_is_a_number_of_requests_in_any_minute_of_the_servers_clock(
    without_boundary_lookup: None, tmp_path: Path, code: int
) -> None:
    clock = FakeClock(NOON)
    with google_server(clock=clock) as google:
        google.calendar("lab")
        google.knobs.quota_per_minute, google.knobs.quota_code = 3, code
        api = client(google, google.key_file(tmp_path))
        listing(api).execute()
        clock.advance(seconds=40)
        listing(api).execute()
        listing(api).execute()
        assert reason_of(listing(api).execute) == (code, "rateLimitExceeded")
        clock.advance(seconds=30)
        listing(api).execute()
        assert google.log.per_minute() == {NOON: 4, NOON + timedelta(minutes=1): 1}
        assert google.calendar("lab").add("m", "2026-11-22", "2026-11-23")["created"] == (
            "2026-11-22T12:01:10.000Z"
        )


# --- faults -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, make in NAMED.items() if isinstance(make(), ApiError)])
def test_every_error_can_be_had_on_command_in_googles_shape(
    google: GoogleServer, api: Any, name: str
) -> None:
    google.calendar("lab")
    error = NAMED[name]()
    assert isinstance(error, ApiError)
    # a 401 once is answered by the client with a new token
    google.faults.add(f"error:{name}", times=3 if error.code == 401 else 1, path="/events")
    assert reason_of(listing(api).execute) == (error.code, error.reason)
    google.faults.clear()
    listing(api).execute()


def test_a_fault_strikes_only_what_it_is_meant_for(google: GoogleServer, api: Any) -> None:
    lab = google.calendar("lab")
    event = lab.add("m", "2026-11-22", "2026-11-23")
    fault = google.faults.add("error:backendError", method="PATCH", path=rf"/events/{event['id']}$")
    listing(api).execute()
    patch = api.events().patch(calendarId="lab", eventId=event["id"], body={"colorId": "10"})
    assert reason_of(patch.execute) == (500, "backendError")
    patch.execute()
    assert (fault.hits, google.faults.waiting) == (1, [])


@pytest.mark.parametrize(
    ("kind", "done"),
    [("drop_before", False), ("drop_after", True), ("truncated", True), ("html", False), ("empty", False)],
)
def test_broken_answers_and_whether_the_work_was_done(
    google: GoogleServer, api: Any, kind: str, done: bool
) -> None:
    lab = google.calendar("lab")
    listing(api).execute()
    google.faults.add(kind, times=None, method="POST", path="/events")
    request = api.events().insert(calendarId="lab", body=TIMES | {"id": "abcde12345"})
    if kind in ("html", "empty"):
        assert isinstance(request.execute(), str)
    else:
        with pytest.raises((OSError, HTTPException, HttpError)):
            request.execute()
    assert [event["id"] for event in lab.events()] == ["abcde12345"] * done
    struck = google.log.matching("POST", "/events")
    assert {one.fault for one in struck} == {kind}
    assert struck[0].status == (0 if kind.startswith("drop") else 200)


def test_the_token_endpoint_answers_html(google: GoogleServer, api: Any) -> None:
    google.calendar("lab")
    google.faults.add("html", path="/token")
    with pytest.raises(TypeError):
        listing(api).execute()
    listing(api).execute()


def test_a_hanging_request_hangs_until_it_is_released(google: GoogleServer, api: Any) -> None:
    google.calendar("lab")
    listing(api).execute()
    # the client sends a broken request once more: that one is served
    fault = google.faults.add("hang", path="/events")
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(listing(api).execute()))
    thread.start()
    assert fault.reached.wait(5) and thread.is_alive() and answers == []
    fault.release()
    thread.join(5)
    assert answers[0]["items"] == []
    assert [(one.fault, one.status) for one in google.log.matching("GET")[1:]] == [("hang", 0), (None, 200)]


def test_a_client_gives_up_on_a_hanging_server_and_stopping_lets_go(
    google: GoogleServer, tmp_path: Path
) -> None:
    google.calendar("lab")
    impatient = client(google, google.key_file(tmp_path), timeout_seconds=0.2)
    google.faults.add("hang", times=None, path="/events")
    with pytest.raises(TimeoutError):
        listing(impatient).execute()


def test_google_goes_away_and_comes_back_as_it_was(google: GoogleServer, api: Any) -> None:
    google.calendar("lab").add("m", "2026-11-22", "2026-11-23")
    before = listing(api).execute()
    with google.away(), pytest.raises(OSError):
        listing(api).execute()
    assert listing(api).execute() == before


def test_a_slow_answer_comes_whole(google: GoogleServer, api: Any) -> None:
    google.calendar("lab")
    google.faults.add("slow", path="/events", seconds=0.1)
    began = time.monotonic()
    assert listing(api).execute()["items"] == []
    assert time.monotonic() - began >= 0.1


def storm(google: GoogleServer, seed: int) -> list[str | None]:
    google.faults.storm(seed, 0.5)
    struck = []
    for _ in range(40):
        fault = google.faults.strike("GET", "/calendar/v3/calendars/lab/events")
        struck.append(fault.name if fault else None)
    google.faults.clear()
    return struck


def test_a_storm_is_the_same_for_the_same_seed(google: GoogleServer) -> None:
    first = storm(google, 1)
    assert first == storm(google, 1) != storm(google, 2)
    assert first.count(None) in range(10, 31) and len(set(first)) > 5
    with pytest.raises(ValueError, match="no fault 'hail'"):
        google.faults.add("hail")


def test_a_long_query_sent_as_post_is_a_get(google: GoogleServer, api: Any) -> None:
    google.calendar("lab").add("m" * 3000, "2026-11-22", "2026-11-23")
    assert len(api.events().list(calendarId="lab", q="m" * 3000).execute()["items"]) == 1
    assert google.log.requests[-1].headers["x-http-method-override"] == "GET"
    assert google.log.requests[-1].method == "GET"


# --- control endpoint, command line -------------------------------------------------------------------------


def test_the_control_endpoint_does_what_people_and_tests_do(google: GoogleServer, api: Any) -> None:
    made = control(google, "POST", "calendars", {"id": "lab", "time_zone": "Europe/Berlin"})
    assert made == {"id": "lab"}
    event = {"summary": "m", "start": "2026-11-22T09:00", "end": "2026-11-22T10:00"}
    made = control(google, "POST", "calendars/lab/events", event)
    control(google, "PATCH", f"calendars/lab/events/{made['id']}", {"description": "replicas: 2"})
    (item,) = listing(api).execute()["items"]
    assert (item["start"]["dateTime"], item["description"]) == ("2026-11-22T09:00:00+01:00", "replicas: 2")
    fault = {"fault": "error:quotaExceeded", "times": 2, "path": "/events"}
    assert control(google, "POST", "faults", fault)["hits"] == 0
    assert reason_of(listing(api).execute) == (403, "quotaExceeded")
    assert control(google, "GET", "faults")[0]["hits"] == 1
    control(google, "DELETE", "faults")
    control(google, "DELETE", f"calendars/lab/events/{made['id']}")
    assert listing(api).execute()["items"] == []
    control(google, "POST", "knobs", {"api_enabled": False})
    assert reason_of(listing(api).execute) == (403, "accessNotConfigured")
    log = control(google, "GET", "log")
    assert sum(log["per_minute"].values()) == len(log["requests"]) - 1 == 4
    with pytest.raises(urllib.error.HTTPError) as caught:
        control(google, "POST", "knobs", {"colour": 1})
    assert b"no knob 'colour'" in caught.value.read()


def started(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """The server as a process, and what it printed until it was ready."""
    command = [sys.executable, "-u", "-m", "tests.google_server", "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    return process, "".join(process.stdout.readline() for _ in range(7))


def stopped(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(10) == 0
    assert process.stdout is not None
    process.stdout.close()


def test_by_hand_it_prints_the_daemons_environment_and_keeps_its_state(
    without_boundary_lookup: None, tmp_path: Path
) -> None:
    state, key = tmp_path / "state.json", tmp_path / "key.json"
    process, printed = started("--state", str(state), "--write-key", str(key), "--time-zone", "Europe/Berlin")
    exported = dict(re.findall(r"^export (\w+)=(.*)$", printed, re.MULTILINE))
    assert exported["SCHEDULING_GOOGLE_CREDS_PATH"] == str(key)
    assert exported["SCHEDULING_GOOGLE_CALENDAR_ID"] == "lab"
    endpoint = exported["NDIF_CALENDAR__GOOGLE_ENDPOINT"]
    url = endpoint.removesuffix("/calendar/v3/")
    event = b'{"summary": "m", "start": "2026-11-22T09:00", "end": "2026-11-22T10:00"}'
    urllib.request.urlopen(f"{url}/control/calendars/lab/events", event, timeout=5).close()
    stopped(process)
    with google_server(state=state) as google:
        altered(key, token_uri=google.token_uri)
        (item,) = listing(client(google, key)).execute()["items"]
        assert item["start"]["dateTime"] == "2026-11-22T09:00:00+01:00"


# --- schemas ------------------------------------------------------------------------------------------------


def test_the_schemas_refuse_what_the_discovery_document_does_not_know() -> None:
    for request in (False, True):
        Draft202012Validator.check_schema({"$defs": schemas.definitions(request=request)})
    event = {"id": "abcde", "start": {"dateTime": "2026-11-22T09:00:00Z"}, "reminders": {"overrides": []}}
    assert schemas.answer_problems("Event", event) == []
    wrong = event | {"colour": 1, "sequence": "1", "start": {"dateTime": "2026-11-22T09:00:00"}}
    assert len(schemas.answer_problems("Event", wrong)) == 3
    assert schemas.request_problem("Event", {"description": None, "unknown": 1}) is None
    assert schemas.request_problem("Event", {"reminders": {"overrides": [{"minutes": "5"}]}}) == (
        "Invalid value for: reminders.overrides.0.minutes"
    )
    assert set(KINDS) >= {"hang", "slow"}
