"""Where an iCalendar text lies, and fetching it: a path, ``file://``, http(s) or webcal URL.

Knows nothing of what is inside the text. Everything that can go wrong on the way comes out as
`CalendarUnavailable`, in words that name the calendar without its secrets.
"""

from __future__ import annotations

import logging
import re
import stat
import threading
from pathlib import Path
from time import monotonic
from typing import NoReturn
from urllib.parse import unquote, urlsplit

import httpx
import tenacity

from calendars.source import CalendarUnavailable

MAX_CALENDAR_BYTES = 20 * 1024 * 1024
MAX_REDIRECTS = 5
MAX_ATTEMPTS = 3

_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_URL = re.compile(r"(https?|webcals?)://", re.IGNORECASE)
_SECRET_LOOKING = re.compile(r"(?=.*[0-9])[A-Za-z0-9_~=-]{20,}", re.ASCII)


def display_name(location: str) -> str:
    """The location as it may be printed.

    A URL loses its user name, password, query and fragment, and the parts of its path that look like
    a secret: what follows ``private-`` in Google's addresses, and long runs of letters and digits in
    those of other services, of which the first four characters remain to tell calendars apart.
    """
    if not _URL.match(location):
        return location
    try:
        url = urlsplit(location)
        host = url.hostname or ""
        port = f":{url.port}" if url.port else ""
    except ValueError:
        return f"{location.split(':', 1)[0].lower()}://…"
    path = "/".join(_without_secret(segment) for segment in url.path.split("/"))
    return f"{url.scheme}://{f'[{host}]' if ':' in host else host}{port}{path}"


def _without_secret(segment: str) -> str:
    if segment.lower().startswith("private-"):
        return "private-…"
    return f"{segment[:4]}…" if _SECRET_LOOKING.fullmatch(segment) else segment


class _HideSecrets(logging.Filter):
    """Shortens URLs in httpx's own log line, which prints each requested URL whole."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                display_name(str(part)) if isinstance(part, httpx.URL) else part for part in record.args
            )
        return True


logging.getLogger("httpx").addFilter(_HideSecrets())


def fetch(location: str, *, timeout_seconds: float, retry_pause_seconds: float) -> bytes:
    """Everything that lies at ``location``, at most `MAX_CALENDAR_BYTES`.

    ``timeout_seconds`` bounds the whole of it: name resolution, redirects, retries and a server that
    sends one byte at a time.

    Raises:
        CalendarUnavailable: it is not there, not readable, too large, or not there in time.
    """
    if _URL.match(location):
        return _fetch_url(location, timeout_seconds, retry_pause_seconds)
    return _read_file(_path(location), display_name(location))


def local_path(location: str) -> Path | None:
    """The file at ``location``; None for a URL, and for a file URL that names another host."""
    try:
        return None if _URL.match(location) else _path(location)
    except CalendarUnavailable:
        return None


# --- files -----------------------------------------------------------------------------------------


def _path(location: str) -> Path:
    if not location.lower().startswith("file:"):
        return Path(location).expanduser()
    url = urlsplit(location)
    if url.netloc not in ("", "localhost"):
        raise CalendarUnavailable(
            f"The calendar {location} names the host {url.netloc}, which a file URL cannot reach.",
            "Write file:///path/to/calendar.ics or an http(s) URL.",
        )
    return Path(unquote(url.path))


def _read_file(path: Path, name: str) -> bytes:
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise CalendarUnavailable(
                f"The calendar {name} is a directory.", "Name the .ics file that lies in it."
            )
        if not stat.S_ISREG(kind):
            raise CalendarUnavailable(f"The calendar {name} is not a regular file.", "Name an .ics file.")
        with path.open("rb") as file:
            content = file.read(MAX_CALENDAR_BYTES + 1)
    except FileNotFoundError:
        raise CalendarUnavailable(
            f"The calendar {name} does not exist.",
            "Create it, or correct the path to the calendar in the settings.",
        ) from None
    except (OSError, ValueError) as error:
        raise CalendarUnavailable(
            f"The calendar {name} cannot be read: {_words(error)}.",
            "Check the path, and that this user may read the file.",
        ) from error
    if len(content) > MAX_CALENDAR_BYTES:
        _refuse_size(name)
    return content


# --- URLs ------------------------------------------------------------------------------------------


class _Fetching:
    """One fetch, run in a thread of its own so that the caller's wait is bounded by a clock.

    httpx bounds each single read, which a server that drips bytes never exceeds, and does not bound
    name resolution at all. The thread is a daemon and its connections are closed when the caller
    stops waiting, so it ends soon after.
    """

    def __init__(self, location: str, timeout_seconds: float, retry_pause_seconds: float) -> None:
        self.name = display_name(location)
        self.url = _http_url(location)
        self.deadline = monotonic() + timeout_seconds
        self.timeout_seconds = timeout_seconds
        self.retry_pause_seconds = retry_pause_seconds
        self.client: httpx.Client | None = None
        self.content: bytes | None = None
        self.error: Exception | None = None

    def run(self) -> None:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((httpx.TransportError, _TransientAnswer)),
            wait=tenacity.wait_exponential(multiplier=self.retry_pause_seconds),
            stop=tenacity.stop_after_attempt(MAX_ATTEMPTS) | tenacity.stop_after_delay(self.timeout_seconds),
            reraise=True,
        )
        try:
            with httpx.Client(
                follow_redirects=True,
                max_redirects=MAX_REDIRECTS,
                timeout=self.timeout_seconds,
                headers={"Accept": "text/calendar, */*;q=0.1", "Accept-Encoding": "gzip"},
            ) as self.client:
                self.content = retrying(self._get, self.client)
        except (CalendarUnavailable, _TransientAnswer, httpx.HTTPError, httpx.InvalidURL) as error:
            self.error = error
        except (OSError, RuntimeError, ValueError) as error:
            # From below httpx: a bad certificate file or host name, a client closed by `give_up`.
            self.error = error

    def give_up(self) -> None:
        """Break whatever connection the thread still waits on."""
        if self.client is not None:
            self.client.close()

    def _get(self, client: httpx.Client) -> bytes:
        with client.stream("GET", self.url) as response:
            if response.status_code != 200:
                _refuse_status(self.name, response.status_code)
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > MAX_CALENDAR_BYTES:
                    _refuse_size(self.name)
                if monotonic() > self.deadline:
                    raise httpx.ReadTimeout("the answer did not end in time")
            return bytes(content)


class _TransientAnswer(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"it answered with status {status}")


def _fetch_url(location: str, timeout_seconds: float, retry_pause_seconds: float) -> bytes:
    fetching = _Fetching(location, timeout_seconds, retry_pause_seconds)
    thread = threading.Thread(target=fetching.run, name="fetch-calendar", daemon=True)
    thread.start()
    thread.join(timeout_seconds)
    hung = thread.is_alive()
    if hung:
        fetching.give_up()
    if hung or isinstance(fetching.error, httpx.TimeoutException):
        raise CalendarUnavailable(
            f"The calendar {fetching.name} did not answer within {timeout_seconds:g} s.",
            "Check that the server is up, or allow it more time.",
        )
    if isinstance(fetching.error, CalendarUnavailable):
        raise fetching.error
    if isinstance(fetching.error, httpx.TooManyRedirects):
        raise CalendarUnavailable(
            f"The calendar {fetching.name} redirects more than {MAX_REDIRECTS} times.",
            "Open the URL in a browser and use the address it ends at.",
        )
    if isinstance(fetching.error, _TransientAnswer):
        raise CalendarUnavailable(
            f"The calendar {fetching.name} cannot be fetched: {fetching.error}, tried {MAX_ATTEMPTS} times.",
            "This is the server's trouble; it is tried again at the next reading.",
        )
    if fetching.content is None:
        raise CalendarUnavailable(
            f"The calendar {fetching.name} cannot be fetched: {_words(fetching.error)}.",
            "Check the URL, the network and any proxy settings.",
        ) from fetching.error
    return fetching.content


def _http_url(location: str) -> str:
    """webcal as https: the address may hold a secret. Loopback hosts, which have no TLS, by http."""
    scheme, rest = location.split("://", 1)
    if scheme.lower() == "webcals":
        return f"https://{rest}"
    if scheme.lower() == "webcal":
        loopback = re.match(r"(?:[^/]*@)?(?:localhost|127\.0\.0\.1|\[::1\])(?:[:/]|$)", rest, re.IGNORECASE)
        return f"{'http' if loopback else 'https'}://{rest}"
    return location


def _refuse_status(name: str, status: int) -> NoReturn:
    if status in _TRANSIENT_STATUS:
        raise _TransientAnswer(status)
    if status in (401, 403):
        raise CalendarUnavailable(
            f"The calendar {name} refuses access (HTTP {status}).",
            "Use the calendar's secret or public address in iCal format, or put a user name and password "
            "into the URL.",
        )
    if status in (404, 410):
        raise CalendarUnavailable(
            f"The calendar {name} is not there (HTTP {status}).",
            "Copy the calendar's address in iCal format again; it changes when it is reset.",
        )
    raise CalendarUnavailable(
        f"The calendar {name} answered with HTTP {status} instead of a calendar.",
        "Open the URL in a browser to see what it serves.",
    )


def _refuse_size(name: str) -> NoReturn:
    raise CalendarUnavailable(
        f"The calendar {name} is larger than {MAX_CALENDAR_BYTES // 2**20} MiB.",
        "Use a calendar for bookings only, or move old events out of it.",
    )


def _words(error: Exception | None) -> str:
    """What an error says, without the Python around it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    return str(error).rstrip(".") or type(error).__name__
