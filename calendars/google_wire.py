"""Google's client libraries, behind types: credentials, one HTTP connection, three methods.

The only module that touches googleapiclient, httplib2 and google_auth_httplib2, none of which is typed.
Raises what those raise (`LIBRARY_FAILURES`); `calendars.google_failures` puts it into words.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import google.auth
import google.auth.credentials
import google.auth.exceptions
import google_auth_httplib2  # type: ignore[import-untyped]
import httplib2
from google.oauth2 import service_account
from googleapiclient.discovery import build  # type: ignore[import-untyped]
from googleapiclient.errors import Error as ApiClientError  # type: ignore[import-untyped]
from googleapiclient.errors import HttpError

SCOPE = "https://www.googleapis.com/auth/calendar.events"
"""Suffices to list events and to change them, and for nothing else."""

API_PATH = "/calendar/v3"

DELETED = "deleted"
"""The kind of answer to a deletion, which Google answers without a body."""


class KeyFileProblem(Exception):
    """The key file cannot be used. ``str()`` completes the sentence "The key file …"."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.remedy = remedy


LIBRARY_FAILURES: tuple[type[Exception], ...] = (
    KeyFileProblem,
    ApiClientError,
    google.auth.exceptions.GoogleAuthError,
    httplib2.HttpLib2Error,
    http.client.HTTPException,
    OSError,
    # A token endpoint that answers 200 with a web page ends in a TypeError inside google-auth, broken
    # encodings in a ValueError, and a 403 with a list for a body in an IndexError of googleapiclient.
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)


class GivenUp(OSError):
    """Whoever wanted an answer has stopped waiting; nothing more is sent."""


class _Http(httplib2.Http):
    """One thread's connections, which another thread may break off."""

    def __init__(self, timeout_seconds: float) -> None:
        super().__init__(timeout=timeout_seconds)
        self.given_up = False
        self.server_date = ""

    def request(self, uri: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if self.given_up:
            raise GivenUp("nobody waits for an answer any more")
        try:
            response, content = super().request(uri, *args, **kwargs)
        except BaseException:
            # A connection that timed out would go on to deliver the old answer to the next question.
            self.close()
            raise
        self.server_date = str(response.get("date", ""))
        return response, content

    def give_up(self) -> None:
        """Wake the thread that waits for an answer. Closing alone would leave it waiting."""
        self.given_up = True
        for connection in list(self.connections.values()):
            # httplib2 answers a connection that breaks with another one, and sends everything again; one
            # that is still being made would be used.
            connection.connect = connection.request = _no_more
            sock = getattr(connection, "sock", None)
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def __deepcopy__(self, memo: object) -> _Http:
        # google-auth copies it to look up `allowedLocations` in the background at a host that no operator
        # named, and goes without where it cannot. Only configured hosts are spoken to here.
        raise TypeError("not to be copied")


def _no_more(*_: object, **__: object) -> None:
    raise GivenUp("nobody waits for an answer any more")


class Wire:
    """Credentials and a connection to the API, for one thread at a time.

    Reads the key file and prepares the client when made; nothing is sent before the first method call,
    except that Application Default Credentials may ask the machine's metadata server.
    """

    def __init__(self, *, key_file: Path | None, endpoint: str | None, timeout_seconds: float) -> None:
        """``endpoint`` is the address of the API, with or without its path; None is Google's.

        Raises:
            LIBRARY_FAILURES: the credentials are missing or unusable.
        """
        self._credentials = _credentials(key_file)
        self._http = _Http(timeout_seconds)
        self._service: Any = build(
            "calendar",
            "v3",
            http=google_auth_httplib2.AuthorizedHttp(self._credentials, http=self._http),
            static_discovery=True,
            cache_discovery=False,
            client_options={"api_endpoint": api_endpoint(endpoint)} if endpoint else None,
        )

    @property
    def account(self) -> str | None:
        """The mail address that calendars are to be shared with, where the credentials tell."""
        for attribute in ("service_account_email", "account"):
            mail = getattr(self._credentials, attribute, None)
            if isinstance(mail, str) and "@" in mail:
                return mail
        return None

    @property
    def server_date(self) -> str:
        """What the last answer said the time is, as in its ``Date`` header; empty before the first."""
        return self._http.server_date

    def list_page(
        self, calendar_id: str, start: datetime, end: datetime, page_size: int, page_token: str | None
    ) -> object:
        """One page of the events between two instants, each occurrence of a series on its own.

        Bounds are sent in whole seconds, because fractions are ignored: rounded outwards.
        """
        return self._service.events().list(
            calendarId=calendar_id,
            timeMin=_whole_second(start),
            timeMax=_whole_second(end + timedelta(microseconds=999_999)),
            singleEvents=True,
            showDeleted=False,
            eventTypes=["default"],
            maxResults=page_size,
            **({"pageToken": page_token} if page_token else {}),
        ).execute(num_retries=0)  # fmt: skip

    def patch(self, calendar_id: str, event_id: str, etag: str, body: Mapping[str, object]) -> object:
        """Change an event that still is what ``etag`` names; nobody is sent a mail about it."""
        request = self._service.events().patch(
            calendarId=calendar_id, eventId=event_id, body=dict(body), sendUpdates="none"
        )
        request.headers["If-Match"] = etag
        answer: object = request.execute(num_retries=0)
        return answer

    def insert(self, calendar_id: str, body: Mapping[str, object]) -> object:
        """Make an event, under the id in its body if there is one; nobody is sent a mail about it."""
        answer: object = (
            self._service.events()
            .insert(calendarId=calendar_id, body=dict(body), sendUpdates="none")
            .execute(num_retries=0)
        )
        return answer

    def delete(self, calendar_id: str, event_id: str) -> object:
        """Delete an event, a series or an instance; an answer of kind `DELETED` says that it is done."""
        request = self._service.events().delete(calendarId=calendar_id, eventId=event_id, sendUpdates="none")
        # Google answers 204 without a body; an empty answer with status 200 comes from somewhere else.
        request.postproc = lambda response, content: (
            {"kind": DELETED} if response.status == 204 else bytes(content).decode(errors="replace")
        )
        answer: object = request.execute(num_retries=0)
        return answer

    def refresh_token(self) -> None:
        """Get an access token, whether or not there is one."""
        self._credentials.refresh(google_auth_httplib2.Request(self._http))  # type: ignore[no-untyped-call]

    def give_up(self) -> None:
        """Make the thread that uses this stop, from another thread; it is of no use afterwards."""
        self._http.give_up()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def api_endpoint(endpoint: str) -> str:
    """The address with the API's path and the slash at its end that the client library needs."""
    return f"{endpoint.rstrip('/').removesuffix(API_PATH)}{API_PATH}/"


def knock(endpoint: str | None, timeout_seconds: float) -> tuple[int, str, str]:
    """Ask the API something without credentials: status, body, and the ``Date`` of its refusal.

    Raises:
        LIBRARY_FAILURES: there was no answer.
    """
    http = _Http(timeout_seconds)
    address = api_endpoint(endpoint or "https://www.googleapis.com")
    try:
        response, content = http.request(f"{address}users/me/calendarList")
    finally:
        http.close()
    return int(response.status), bytes(content).decode(errors="replace"), http.server_date


def http_error(error: Exception) -> tuple[int, bytes] | None:
    """Status and body, where the error is an answer of the API."""
    if not isinstance(error, HttpError):
        return None
    return int(error.resp.status), bytes(error.content)


def retry_after_seconds(error: Exception) -> float:
    """What the answer asked to wait, in seconds; 0 where it asked for nothing that can be read."""
    if not isinstance(error, HttpError):
        return 0.0
    written = str(error.resp.get("retry-after", "")).strip()
    return float(written) if written.isascii() and written.isdigit() else 0.0


def _whole_second(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(microsecond=0).strftime("%Y-%m-%dT%H:%M:%SZ")


def _credentials(key_file: Path | None) -> google.auth.credentials.Credentials:
    if key_file is None:
        found, _ = google.auth.default(scopes=[SCOPE])
        return found
    content = _key_file_content(key_file)
    try:
        credentials: google.auth.credentials.Credentials
        credentials = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
            content, scopes=[SCOPE]
        )
    except (TypeError, ValueError):
        raise KeyFileProblem("holds a private key that cannot be used", _DOWNLOAD) from None
    return credentials


_DOWNLOAD = (
    "Download a JSON key of the service account (console.cloud.google.com, IAM & Admin, Service Accounts, "
    "Keys) and name that file in SCHEDULING_GOOGLE_CREDS_PATH."
)


def _key_file_content(key_file: Path) -> dict[str, object]:
    try:
        content = json.loads(key_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise KeyFileProblem("does not exist", _DOWNLOAD) from None
    except OSError as error:
        words = (error.strerror or type(error).__name__).lower()
        raise KeyFileProblem(
            f"cannot be read ({words})", "Let the user that runs the service read that file."
        ) from None
    except ValueError:
        raise KeyFileProblem("is not JSON", _DOWNLOAD) from None
    kind = content.get("type") if isinstance(content, dict) else None
    if kind != "service_account":
        what = "an OAuth client's" if isinstance(content, dict) and "installed" in content else repr(kind)
        raise KeyFileProblem(f"is not the key of a service account (its type is {what[:40]})", _DOWNLOAD)
    missing = [name for name in ("client_email", "private_key", "token_uri") if not content.get(name)]
    if missing:
        raise KeyFileProblem(f"has no {' and no '.join(missing)}", _DOWNLOAD)
    return dict(content)
