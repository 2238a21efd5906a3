"""Asking Google with a deadline, and again where that helps.

One `GoogleClient` per calendar. Each operation (a `Conversation`) runs in a thread of its own, so that the
caller's wait is bounded by a clock: httplib2 bounds each single read, which a server that drips bytes never
exceeds, and bounds neither name resolution nor google-auth's own pauses between requests for a token.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Generic, TypeVar

import tenacity

from calendars.google_failures import Asking, GoogleUnavailable, explain, not_an_answer, not_in_time
from calendars.google_wire import DELETED, LIBRARY_FAILURES, GivenUp, Wire, knock

MAX_PAUSE_SECONDS = 64.0
"""The longest pause between two tries, as Google's guides have it."""

MAX_ATTEMPTS = 5
"""Tries of one request; with the pauses between them more do not fit into a sensible deadline."""

MAX_PAGES = 200
MAX_LISTINGS = 3

T = TypeVar("T")


@dataclass(frozen=True)
class Listing:
    """Everything the calendar answered about a window, not yet looked at, and what it says of itself."""

    items: tuple[object, ...]
    zone_name: str
    access_role: str
    title: str


@dataclass
class _Page:
    items: list[object]
    token: str | None
    updated: str
    zone_name: str
    access_role: str
    title: str


@dataclass(frozen=True)
class Manners:
    """Whom to ask, and how: what stays the same from one conversation to the next."""

    calendar_id: str
    key_file: Path | None
    endpoint: str | None
    deadline_seconds: float
    retry_pause_seconds: float
    page_size: int


class GoogleClient:
    """Lists and changes the events of one calendar.

    A request is tried again after: no answer, a broken connection, an answer that breaks off, a name that is
    not found, status 408, 429 and 5xx, 403 with ``rateLimitExceeded`` or ``userRateLimitExceeded``, and a
    token that Google could not give just then. It is not tried again after anything else: not after
    ``quotaExceeded``, refused credentials, 404, 410, 412, or a web page in place of events.

    The pause doubles from ``retry_pause_seconds`` up to 64 s, each with up to ``retry_pause_seconds`` more
    by chance, or is as long as ``Retry-After`` asks; a pause that would pass the deadline is not begun.

    Changing an event is tried again like reading, because it is conditional: where the first try did arrive,
    the second finds another etag and changes nothing. So is making one, because it brings its own id, and
    deleting one.

    For one thread at a time.
    """

    def __init__(self, manners: Manners) -> None:
        self._manners = manners
        self._wire: Wire | None = None
        self.account: str | None = None
        self.server_date = ""

    def list_events(self, start: datetime, end: datetime) -> Listing:
        """Every item that overlaps the window, from all pages.

        Raises:
            GoogleUnavailable: not every page could be read before the deadline.
        """
        return self.converse(lambda conversation: conversation.list_events(start, end))

    def converse(self, operation: Callable[[Conversation], T]) -> T:
        """Run an operation in a thread of its own, and wait for it until the deadline.

        Raises:
            GoogleUnavailable: what the operation raised, or that the deadline passed. In the latter case the
                operation sends nothing more.
        """
        conversation = Conversation(self._manners, self._wire, self.account)
        worker = _Worker(lambda: operation(conversation))
        worker.start()
        worker.join(self._manners.deadline_seconds)
        hung = worker.is_alive()
        self.account, self.server_date = conversation.account, conversation.server_date
        if hung:
            # The connection may still be in that thread's hands.
            self._wire = None
            conversation.give_up()
            raise not_in_time(self._manners.deadline_seconds, conversation.asking)
        self._wire = conversation.wire
        if worker.defect is not None:
            raise worker.defect
        if worker.error is not None:
            if worker.error.blames_credentials:
                # The next reading takes the key file as it is then: replacing a key needs no restart.
                self.close()
            raise worker.error
        return worker.outcome[0]

    def close(self) -> None:
        """Give the connections back; the next operation makes new ones."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None


class _Worker(threading.Thread, Generic[T]):
    """Runs one operation; a daemon, so that one which hangs does not keep the process."""

    def __init__(self, operation: Callable[[], T]) -> None:
        super().__init__(name="google-calendar", daemon=True)
        self._operation = operation
        self.outcome: list[T] = []
        self.error: GoogleUnavailable | None = None
        self.defect: BaseException | None = None

    def run(self) -> None:
        try:
            self.outcome.append(self._operation())
        except GoogleUnavailable as error:
            self.error = error
        except BaseException as defect:  # noqa: BLE001 - raised again where the operation was asked for
            self.defect = defect


class Conversation:
    """The requests of one operation, until its deadline. Used inside the operation's thread only."""

    def __init__(self, manners: Manners, wire: Wire | None, account: str | None) -> None:
        self._manners = manners
        self._deadline = monotonic() + manners.deadline_seconds
        self._given_up = threading.Event()
        self._pause = tenacity.wait_exponential_jitter(
            multiplier=manners.retry_pause_seconds,
            max=MAX_PAUSE_SECONDS,
            jitter=manners.retry_pause_seconds,
        )
        self.wire = wire
        self.account = account
        self.server_date = ""

    @property
    def asking(self) -> Asking:
        """Who asks, for the words of a failure."""
        return Asking(self._manners.calendar_id, self.account, self._manners.key_file, self.server_date)

    def give_up(self) -> None:
        """From another thread: break what is waited for, and let nothing more be sent."""
        self._given_up.set()
        if self.wire is not None:
            self.wire.give_up()

    def patch(self, event_id: str, etag: str, body: Mapping[str, object]) -> dict[str, object]:
        """Change an event if its etag is still this one, and answer it as it is then.

        Raises:
            GoogleUnavailable: with ``status`` 412 where the event has changed meanwhile.
        """
        calendar_id = self._manners.calendar_id
        return dict(self._ask(lambda wire: wire.patch(calendar_id, event_id, etag, body), "calendar#event"))

    def insert(self, body: Mapping[str, object]) -> None:
        """Make an event; its body must bring its id, so that a second try finds what the first one made.

        Raises:
            GoogleUnavailable: with ``status`` 409 where there is an event of that id.
        """
        if not body.get("id"):
            raise ValueError("an event without an id of its own could be made twice")
        self._ask(lambda wire: wire.insert(self._manners.calendar_id, body), "calendar#event")

    def delete(self, event_id: str) -> None:
        """Delete an event, a series or an instance.

        Raises:
            GoogleUnavailable: with ``status`` 404 or 410 where it is not there, perhaps after a first try.
        """
        self._ask(lambda wire: wire.delete(self._manners.calendar_id, event_id), DELETED)

    def sign_in(self, *, with_token: bool) -> None:
        """Read the credentials and, if asked to, get a new access token with them."""

        def request(wire: Wire) -> object:
            if with_token:
                wire.refresh_token()
            return {"kind": "signed in"}

        self._ask(request, "signed in")

    def knock(self) -> str:
        """Ask the API something without credentials: what its clock reads, as in a ``Date`` header.

        Raises:
            GoogleUnavailable: nothing answered, or something that is not the API.
        """
        try:
            status, content, date = knock(self._manners.endpoint, self._manners.deadline_seconds / 2)
        except LIBRARY_FAILURES as error:
            raise explain(error, self.asking) from error
        if status < 400:
            raise not_an_answer(content, self.asking)
        self.server_date = date
        return date

    def list_events(self, start: datetime, end: datetime) -> Listing:
        """All pages. Where the calendar changed between two of them, an event may be on neither: again."""
        for _ in range(MAX_LISTINGS):
            pages: list[_Page] = []
            while not pages or pages[-1].token:
                if len(pages) == MAX_PAGES:
                    raise not_an_answer({"pages": f"more than {MAX_PAGES}"}, self.asking)
                pages.append(self._page(start, end, pages[-1].token if pages else None))
            if len({page.updated for page in pages}) == 1:
                break
        last = pages[-1]
        items = tuple(item for page in pages for item in page.items)
        return Listing(items, last.zone_name, last.access_role, last.title)

    def _page(self, start: datetime, end: datetime, token: str | None) -> _Page:
        manners = self._manners
        answer = self._ask(
            lambda wire: wire.list_page(manners.calendar_id, start, end, manners.page_size, token),
            "calendar#events",
        )
        items, next_token = answer.get("items", []), answer.get("nextPageToken")
        if not isinstance(items, list) or not isinstance(next_token, str | None):
            raise not_an_answer(dict(answer), self.asking)
        zone, role, title, updated = (
            str(answer.get(name) or "") for name in ("timeZone", "accessRole", "summary", "updated")
        )
        return _Page(items, next_token, updated, zone, role, title)

    def _ask(self, request: Callable[[Wire], object], kind: str) -> Mapping[str, object]:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_transient),
            wait=self._next_pause,
            stop=self._stop,
            sleep=tenacity.sleep_using_event(self._given_up),
            reraise=True,
        )
        return retrying(self._attempt, request, kind)

    def _attempt(self, request: Callable[[Wire], object], kind: str) -> Mapping[str, object]:
        try:
            if self.wire is None:
                # Half the deadline for a silent connection leaves time for a second one.
                self.wire = Wire(
                    key_file=self._manners.key_file,
                    endpoint=self._manners.endpoint,
                    timeout_seconds=self._manners.deadline_seconds / 2,
                )
            self.account = self.wire.account or self.account
            if self._given_up.is_set():
                raise GivenUp("nobody waits for an answer any more")
            answer = request(self.wire)
        except LIBRARY_FAILURES as error:
            self._learn()
            raise explain(error, self.asking) from error
        self._learn()
        if not isinstance(answer, dict) or answer.get("kind") != kind:
            raise not_an_answer(answer, self.asking)
        return answer

    def _learn(self) -> None:
        if self.wire is not None:
            self.account = self.wire.account or self.account
            self.server_date = self.wire.server_date

    def _next_pause(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after_seconds if isinstance(error, GoogleUnavailable) else 0.0
        return max(float(self._pause(state)), asked)

    def _stop(self, state: tenacity.RetryCallState) -> bool:
        return (
            state.attempt_number >= MAX_ATTEMPTS
            or monotonic() + state.upcoming_sleep >= self._deadline
            or self._given_up.is_set()
        )


def _transient(error: BaseException) -> bool:
    return isinstance(error, GoogleUnavailable) and error.transient
