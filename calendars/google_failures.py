"""What Google's libraries raise, in words that an operator can act on.

Source of the reasons: Google's guide "Handle API errors" of the Calendar API; of the errors of tokens, its
guide on server to server OAuth. Every failure becomes a `GoogleUnavailable`; none is ever "no events".
"""

from __future__ import annotations

import json
import socket
import ssl
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, RefreshError, TransportError

from calendars.google_wire import KeyFileProblem, http_error, retry_after_seconds
from calendars.source import CalendarUnavailable


class GoogleUnavailable(CalendarUnavailable):
    """Google did not do what it was asked.

    ``status`` is that of the HTTP answer, 0 where there was none; ``codes`` are the reasons in it
    (``notFound``, ``rateLimitExceeded``); ``transient`` says whether it is worth trying again at once, and
    ``retry_after_seconds`` how long the answer asked to wait before. ``blames_credentials`` says that
    they should be read anew before the next try.
    """

    def __init__(
        self,
        reason: str,
        remedy: str,
        *,
        status: int = 0,
        codes: tuple[str, ...] = (),
        transient: bool = False,
        retry_after_seconds: float = 0.0,
        blames_credentials: bool = False,
    ) -> None:
        super().__init__(reason, remedy)
        self.status = status
        self.codes = codes
        self.transient = transient
        self.retry_after_seconds = retry_after_seconds
        self.blames_credentials = blames_credentials


@dataclass(frozen=True)
class Asking:
    """Who asked for what, for the words: the calendar, the account's mail address, its key file, and what
    the last answer's ``Date`` header said."""

    calendar: str
    account: str | None
    key_file: Path | None
    server_date: str = ""

    @property
    def subject(self) -> str:
        return f"The Google calendar {self.calendar} cannot be reached"

    @property
    def who(self) -> str:
        return self.account or "the account of the Application Default Credentials"


WAIT = "It is tried again at the next reading."
_API_PAGE = "https://console.cloud.google.com/apis/library/calendar-json.googleapis.com"
RATE_CODES = frozenset({"rateLimitExceeded", "userRateLimitExceeded"})
QUOTA_CODES = frozenset({"quotaExceeded", "dailyLimitExceeded", "calendarUsageLimitsExceeded"})
DISABLED_CODES = frozenset({"accessNotConfigured", "SERVICE_DISABLED", "API_DISABLED"})
_SCOPE_CODES = frozenset({"insufficientPermissions", "ACCESS_TOKEN_SCOPE_INSUFFICIENT"})
_TRANSIENT_STATUS = frozenset({408, 429})


def explain(error: Exception, asking: Asking) -> GoogleUnavailable:
    """The failure in words, for one of `calendars.google_wire.LIBRARY_FAILURES`."""
    if isinstance(error, KeyFileProblem):
        return GoogleUnavailable(
            f"{asking.subject}: the key file {asking.key_file} {error}.",
            error.remedy,
            blames_credentials=True,
        )
    answer = http_error(error)
    if answer is not None:
        return _explain_answer(*answer, asking, retry_after_seconds(error))
    if isinstance(error, TransportError):
        inner = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
        return _explain_network(inner, asking)
    if isinstance(error, GoogleAuthError):
        return _explain_credentials(error, asking)
    return _explain_network(error, asking)


def not_an_answer(answer: object, asking: Asking) -> GoogleUnavailable:
    """For an answer with status 200 that is no JSON object of the API: a portal, a proxy, half an answer."""
    text = answer.strip() if isinstance(answer, str) else ""
    if text.startswith("<"):
        return GoogleUnavailable(
            f"{asking.subject}: a web page was answered instead of events, beginning {_shown(text, 60)}.",
            "Something between here and Google answers in its place, such as a proxy or a page to log in; "
            "let this machine reach www.googleapis.com, or correct the endpoint.",
        )
    what = "nothing" if answer in ("", None) else f"{_shown(text or json.dumps(answer, default=str), 60)}"
    # An empty or broken-off body is an accident on the way; whole JSON of another kind is not.
    broken = isinstance(answer, str)
    return GoogleUnavailable(
        f"{asking.subject}: {what} was answered instead of events.",
        WAIT if broken else "Check the endpoint: what answers there is not the Calendar API.",
        transient=broken,
    )


def not_in_time(deadline_seconds: float, asking: Asking) -> GoogleUnavailable:
    """For a deadline that passed while an answer was being waited for."""
    return GoogleUnavailable(
        f"{asking.subject}: no answer within {deadline_seconds:g} s.",
        f"Check the network and any proxy settings, or allow more time. {WAIT}",
        transient=True,
    )


# --- answers of the API --------------------------------------------------------------------------------


class _Words(NamedTuple):
    what: str
    remedy: str
    transient: bool = False


def _explain_answer(status: int, content: bytes, asking: Asking, retry_after: float) -> GoogleUnavailable:
    codes, message = _reasons(content)
    words = _forbidden(set(codes), asking) if status == 403 else _refused(status, set(codes), asking)
    said = f' Google says: "{_shown(message, 200)}".' if message else ""
    return GoogleUnavailable(
        f"{asking.subject}: {words.what} (HTTP {status}{''.join(f', {code}' for code in codes[:1])}).{said}",
        words.remedy,
        status=status,
        codes=codes,
        transient=words.transient,
        retry_after_seconds=retry_after,
        blames_credentials=status == 401,
    )


def _reasons(content: bytes) -> tuple[tuple[str, ...], str]:
    """``error.errors[].reason`` with those of ``error.details[]``, and the message.

    From the raw body: `HttpError.error_details` shows the details in place of the errors.
    """
    try:
        error = json.loads(content)["error"]
        entries = [*error.get("errors", []), *error.get("details", [])]
        codes = [entry["reason"] for entry in entries if isinstance(entry.get("reason"), str)]
        return tuple(dict.fromkeys(codes)), str(error.get("message", ""))
    except (ValueError, LookupError, TypeError, AttributeError):
        return (), ""


def _forbidden(codes: set[str], asking: Asking) -> _Words:
    if codes & DISABLED_CODES:
        return _Words(
            "the Google Calendar API is not enabled in the account's project",
            f"Enable it on {_API_PAGE} (choose the project of {asking.who}) and wait a few minutes.",
        )
    if codes & RATE_CODES:
        return _Words(
            "too many requests were made in a short time",
            "Poll less often, or raise the quota of requests per minute of the project.",
            transient=True,
        )
    if codes & QUOTA_CODES:
        return _Words(
            "the quota is used up",
            "Wait until it is renewed, poll less often, or raise the project's quota for the Calendar API.",
        )
    if codes & _SCOPE_CODES:
        return _Words(
            "the credentials do not allow calendars",
            "Use a service account's key file, or log in with gcloud auth application-default login "
            "--scopes=https://www.googleapis.com/auth/calendar.events,"
            "https://www.googleapis.com/auth/cloud-platform.",
        )
    return _Words(
        f"{asking.who} may not do this",
        f"In the calendar's settings, share it with {asking.who}: “See all event details” to read, “Make "
        "changes to events” to be answered in.",
    )


def _refused(status: int, codes: set[str], asking: Asking) -> _Words:
    if status == 401:
        return _Words(
            "the credentials were not accepted",
            "Check that the key has not been deleted, and make a new one where it has.",
        )
    if status == 404:
        return _Words(
            f"it does not exist, or it is not shared with {asking.who}",
            f"In the calendar's settings, share it with {asking.who} (“Make changes to events”), or correct "
            "the calendar's id in SCHEDULING_GOOGLE_CALENDAR_ID.",
        )
    if status == 429:
        return _Words(
            "too many requests were made in a short time",
            "Poll less often, or raise the quota of requests per minute of the project.",
            transient=True,
        )
    if status == 407:
        return _Words("the proxy asks for a password", "Put user and password into the proxy's setting.")
    if status >= 500 or status in _TRANSIENT_STATUS:
        return _Words("Google, or a proxy before it, is in trouble", WAIT, transient=True)
    if status == 410:
        return _Words("what was asked for is gone", WAIT)
    return _Words("the request was refused", "Check the calendar's id and the endpoint.")


# --- credentials ---------------------------------------------------------------------------------------


def _explain_credentials(error: GoogleAuthError, asking: Asking) -> GoogleUnavailable:
    said = _shown(str(error.args[0] if error.args else error), 200)
    if isinstance(error, DefaultCredentialsError):
        return GoogleUnavailable(
            f"{asking.subject}: there are no credentials.",
            "Name a service account's key file in SCHEDULING_GOOGLE_CREDS_PATH, or provide Application "
            "Default Credentials.",
            blames_credentials=True,
        )
    if isinstance(error, RefreshError) and error.retryable:
        return GoogleUnavailable(
            f'{asking.subject}: Google gave no access token just now, it said "{said}".', WAIT, transient=True
        )
    what, remedy = _refused_token(said.lower(), asking)
    return GoogleUnavailable(
        f'{asking.subject}: {what}. Google says: "{said}".', remedy, blames_credentials=True
    )


def _refused_token(said: str, asking: Asking) -> tuple[str, str]:
    new_key = "Make a new key in the Google Cloud console and put it in place of the old one."
    if said.startswith("<"):
        return (
            "a web page was answered instead of an access token",
            "Something between here and Google answers in its place; let this machine reach "
            "oauth2.googleapis.com.",
        )
    if any(words in said for words in ("timeframe", "short-lived", "iat and exp")):
        clock = f"Google's clock reads {asking.server_date}. " if asking.server_date else ""
        return (
            "this machine's clock is off by minutes, so Google does not accept its signature",
            f"{clock}Set the clock, and keep it right with NTP (timedatectl set-ntp true).",
        )
    if "account not found" in said:
        return f"the account {asking.who} no longer exists", "Make a service account anew, with a new key."
    if "signature" in said:
        return f"this key of {asking.who} has been deleted, or the key file is damaged", new_key
    if "invalid_scope" in said or "unauthorized_client" in said:
        return (
            f"{asking.who} may not ask for access to calendars",
            "Use a service account, and share the calendar with its mail address.",
        )
    return f"the credentials of {asking.who} are not accepted", new_key


# --- the way there ---------------------------------------------------------------------------------------

_NETWORK = f"Check the network and any proxy settings. {WAIT}"


def _explain_network(error: Exception, asking: Asking) -> GoogleUnavailable:
    what, remedy, transient = _network_words(error)
    return GoogleUnavailable(f"{asking.subject}: {what}.", remedy, transient=transient)


def _network_words(error: Exception) -> _Words:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, TimeoutError):
        return _Words("no answer came in time", _NETWORK, transient=True)
    if "ServerNotFoundError" in kinds or isinstance(error, socket.gaierror):
        host = str(error).rpartition(" at ")[2]
        return _Words(
            f"the name of its server is not found ({_shown(host, 80)})",
            "Check DNS, the network, any proxy settings, and the endpoint if one is set.",
            transient=True,
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return _Words(
            "the server's certificate is not trusted",
            "If a proxy opens connections here, add its certificate to those this machine trusts; set the "
            "clock if it is wrong.",
        )
    if "ProxyError" in kinds or "ProxiesUnavailableError" in kinds:
        return _Words(
            f"the proxy does not let it through ({_words(error)})",
            "Check HTTPS_PROXY and NO_PROXY in the service's environment.",
        )
    if isinstance(error, ConnectionRefusedError):
        return _Words(
            "nothing listens at its server's address, or at the proxy's",
            "Check any proxy settings, and the endpoint if one is set.",
            transient=True,
        )
    if isinstance(error, OSError | HTTPException):
        return _Words(f"the connection broke ({_words(error)})", _NETWORK, transient=True)
    if isinstance(error, AttributeError | LookupError | TypeError | ValueError):
        return _Words(
            "the answer cannot be read, as if a web page had been answered in place of an access token",
            "Something between here and Google answers in its place, such as a proxy or a page to log in.",
        )
    return _Words(f"the answer cannot be read ({_words(error)})", _NETWORK, transient=True)


def _words(error: Exception) -> str:
    """What an error says, without the Python around it."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return _shown(said, 120).rstrip(".") or type(error).__name__


def _shown(text: str, limit: int) -> str:
    """On one line, printable, and cut."""
    words = " ".join(text[: limit * 5].split())
    words = "".join(letter if letter.isprintable() else "?" for letter in words).replace('"', "'")
    return words if len(words) <= limit else f"{words[: limit - 1]}…"
