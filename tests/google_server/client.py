"""The real client libraries, pointed at the stand-in; and the pytest fixtures made of both."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import google_auth_httplib2
import httplib2
import pytest
from google.auth import credentials as google_credentials
from google.oauth2.service_account import Credentials
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

from tests.google_server.server import GoogleServer, google_server

EVENTS_SCOPE = "https://www.googleapis.com/auth/calendar.events"
CALENDAR_SCOPE = "https://www.googleapis.com/auth/calendar"


def client(google: GoogleServer, key: Path, scope: str = CALENDAR_SCOPE, timeout_seconds: float = 10) -> Any:
    """The Calendar service of google-api-python-client, with google-auth signing with that key file."""
    credentials = Credentials.from_service_account_file(str(key), scopes=[scope])
    http = google_auth_httplib2.AuthorizedHttp(credentials, httplib2.Http(timeout=timeout_seconds))
    return build(
        "calendar",
        "v3",
        http=http,
        static_discovery=True,
        cache_discovery=False,
        client_options={"api_endpoint": google.api_endpoint},
    )


def reason_of(act: Callable[[], object]) -> tuple[int, str]:
    """Status and ``error.errors[0].reason`` of the error a request ends in."""
    with pytest.raises(HttpError) as caught:
        act()
    error = json.loads(caught.value.content)["error"]
    assert error["code"] == caught.value.resp.status
    return error["code"], error["errors"][0]["reason"]


@pytest.fixture
def without_boundary_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    """google-auth looks up ``allowedLocations`` at Google's own host in the background; here it must not."""
    monkeypatch.setattr(
        google_credentials.CredentialsWithRegionalAccessBoundary,
        "_maybe_start_regional_access_boundary_refresh",
        lambda *_: None,
    )


@pytest.fixture
def google(without_boundary_lookup: None) -> Iterator[GoogleServer]:
    """A running server all of whose answers are held against the discovery document."""
    with google_server() as server:
        server.knobs.check_answers = True
        yield server
    assert server.violations == []


@pytest.fixture
def api(google: GoogleServer, tmp_path: Path) -> Any:
    """A client with the key of the service account that calendars are shared with."""
    return client(google, google.key_file(tmp_path))
