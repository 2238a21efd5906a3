"""A Google Calendar as a source of reservations, and as a place to answer in."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from calendars import google_booking
from calendars.google_answers import Answering
from calendars.google_client import GoogleClient, Listing, Manners
from calendars.google_events import Entry, Surroundings, Target, understand
from calendars.google_failures import GoogleUnavailable
from calendars.reservation import Misunderstood, Reading, Reservation
from calendars.source import NewEvent, Scope
from calendars.write_back import Answer, Report, Style

ANSWERED_FOR = timedelta(hours=1)
"""How long after its end an event is still listed, to be told that it has ended."""

_SEES_NO_TEXT = ("none", "freeBusyReader")


@dataclass(frozen=True)
class Seen:
    """What the last good reading found out about the calendar and the way there.

    ``account`` is the mail address the calendar is shared with; ``access_role`` is Google's word for its
    rights there; ``server_date`` is the ``Date`` header of Google's answer, to hold the machine's clock
    against.
    """

    title: str
    account: str | None
    access_role: str
    time_zone: str
    server_date: str
    events: int


class GoogleCalendar:
    """Reads one Google Calendar, and tells people in it what became of their bookings.

    Every rule below has a test of its own in ``tests/calendars/test_google_rules.py``, or, where no server
    would send what it is about, in ``test_google_events.py``.

    What counts
        An event is shown when it overlaps the half-open window: one that ends as the window starts, or
        starts as it ends, is not in it.
        An event that crosses midnight or an edge of the window is one reservation, with its own times.
        A cancelled event is ignored, and so is a cancelled instance of a series.
        A tentative event counts like a confirmed one.
        An event that the scheduler's own account, or the calendar itself, has declined is ignored; what
        others answer changes nothing.
        "Free" or "busy" (transparency) changes nothing: it speaks of people's time, and all-day events are
        free by default.
        A private event counts where its text is shown, and is misunderstood where it is not.
        Events of other types than ``default`` (out of office, focus time, birthdays, those to come) are
        ignored.

    Times
        A time is the instant that its offset says, so the hour that a clock shows twice is not in doubt,
        and neither is one that it skips.
        A time without an offset is in its own ``timeZone``, else in the calendar's.
        An all-day event runs from midnight to midnight in the calendar's zone, its end date exclusive;
        midnights that the clock skips are read with the offset from before the skip.
        An event whose end is not specified ends when Google says it does.
        An event lasts at most 366 days and lies in the years 1970 to 2199.

    Series
        Each instance is a reservation of its own, changed and moved ones as they are now.
        An instance that was moved keeps its key.
        A series whose text is misunderstood is reported once, not once for each instance.

    Who and which
        The key of an event is its id; of an instance, the id of its series and the start its series gave
        it; both behind ``key_prefix``, because an invitation has the same id in every calendar it is in.
        ``booked_at`` is when the event was created, else its start.
        The owner is the organizer's mail address in lower case; where that is the calendar itself or
        missing, the creator's; where both are missing there is none.
        The people of an event are its owner and its guests, but not those who declined, and rooms.
        The service's own block in a description is not read.

    What is wrong
        One event that is not understood never hides another; it is reported while it overlaps the window,
        and always where its times are not known.
        Two events with one key are told apart by their ids.
        An event with the id and etag of the last reading is not parsed again.
        A calendar of which only busy times are shown is unavailable: it is not an empty calendar.
        Whatever cannot be read whole and in time is unavailable (`calendars.google_failures`).
    """

    def __init__(
        self,
        calendar_id: str,
        *,
        key_file: Path | None = None,
        endpoint: str | None = None,
        deadline_seconds: float = 30.0,
        retry_pause_seconds: float = 1.0,
        page_size: int = 2500,
        key_prefix: str | None = None,
        style: Style = "off",
        writes_per_report: int = 100,
    ) -> None:
        """``key_file`` is a service account's, None means Application Default Credentials; ``endpoint`` is
        the API's address, None means Google's. ``deadline_seconds`` bounds one reading or one report with
        all its pages, tries and tokens. ``key_prefix`` is the calendar's id and a slash where it is None.
        ``style`` says how bookings are answered, ``writes_per_report`` to how many events at once.

        Nothing is read or sent here. For several threads: they wait for each other.
        """
        self._calendar_id = calendar_id
        self._key_prefix = f"{calendar_id}/" if key_prefix is None else key_prefix
        self._client = GoogleClient(
            Manners(calendar_id, key_file, endpoint, deadline_seconds, retry_pause_seconds, page_size)
        )
        self._answering = Answering(self._client, calendar_id, style, writes_per_report)
        self._lock = threading.Lock()
        self._around: Surroundings | None = None
        self._entries: dict[str, Entry] = {}
        self._seen: Seen | None = None
        self._cancellable: dict[str, google_booking.Cancellable] = {}

    @property
    def name(self) -> str:
        """The calendar's id, which is no secret: it opens nothing."""
        return self._calendar_id

    @property
    def account(self) -> str | None:
        """The mail address to share the calendar with, once the credentials have been read."""
        return self._client.account

    @property
    def seen(self) -> Seen | None:
        """What the last good reading found out about the calendar itself; None before it."""
        return self._seen

    def close(self) -> None:
        """Give the connection back."""
        with self._lock:
            self._client.close()

    def read(self, start: datetime, end: datetime) -> Reading:
        """Every occurrence that overlaps ``[start, end)``, sorted by start and key.

        Raises:
            CalendarUnavailable: the calendar could not be read whole before the deadline.
            ValueError: a bound is naive, or the window is empty.
        """
        if start.tzinfo is None or end.tzinfo is None or start >= end:
            raise ValueError(f"not a window of time: {start} to {end}")
        start, end = start.astimezone(UTC), end.astimezone(UTC)
        with self._lock:
            listed_from = start - ANSWERED_FOR if self._answering.wanted else start
            listing = self._client.list_events(listed_from, end)
            self._check_role(listing)
            entries = self._understand(listing)
            self._seen = Seen(
                listing.title,
                self._client.account,
                listing.access_role,
                listing.zone_name,
                self._client.server_date,
                len(entries),
            )
            outcomes = _with_keys_of_their_own(entries, start, end)
            targets = {outcome.key: target for outcome, target in outcomes if target is not None}
            self._answering.after_reading(targets, listing.access_role)
            said_of_series = {entry.same_text for entry in entries if entry.same_text}
            self._cancellable = google_booking.cancellable(targets.items(), said_of_series, self._key_prefix)
        shown = [outcome for outcome, _ in outcomes if _overlaps(outcome, start, end)]
        reservations = [one for one in shown if isinstance(one, Reservation)]
        misunderstood = [one for one in shown if isinstance(one, Misunderstood)]
        return Reading(
            calendar=self.name,
            reservations=tuple(sorted(reservations, key=lambda one: (one.start, one.key))),
            misunderstood=tuple(sorted(misunderstood, key=lambda one: one.key)),
        )

    def report(self, reports: Iterable[Report]) -> Answer:
        """Say in the calendar what is not yet said there; never raises for anything outside.

        Only events of the last reading are written to, each on condition that it still is as it was read.
        One report writes to at most ``writes_per_report`` events, urgent ones first; the others wait.
        The rules of what is written are in the docstring of `calendars.google_answers.Answering`.
        """
        with self._lock:
            answer, changed = self._answering.report(reports)
            for event_id, now in changed.items():
                # Our own write: what the event means is as before.
                if event_id in self._entries:
                    self._entries[event_id] = replace(
                        self._entries[event_id], etag=now.etag or "", target=now
                    )
            return answer

    def insert(self, event: NewEvent) -> str:
        """Make an event; see `calendars.source.Bookable`. A lost answer does not make it twice."""
        with self._lock:
            google_booking.insert(self._client, event)
        return self._key_prefix + event.event_id

    def scope(self, key: str) -> Scope | None:
        """What cancelling this key would take away; None for a key that the last reading did not have."""
        found = self._cancellable.get(key)
        return found.scope if found else None

    def cancel(self, key: str) -> None:
        """Take a booking of the last reading out of the calendar; one that is gone already is as good."""
        found = self._cancellable.get(key)
        if found is None:
            raise google_booking.unknown_key(self.name, key)
        with self._lock:
            google_booking.cancel(self._client, found.event_id)

    def _check_role(self, listing: Listing) -> None:
        if listing.access_role in _SEES_NO_TEXT:
            who = self._client.account or "the service's account"
            raise GoogleUnavailable(
                f"The Google calendar {self.name} shows {who} when people are busy, but not with what.",
                f"In the calendar's settings, let {who} “See all event details”, or “Make changes to events” "
                "to be answered in.",
            )

    def _understand(self, listing: Listing) -> list[Entry]:
        """Every item of a listing, parsed only where it or what it depends on has changed."""
        around = Surroundings(
            self._calendar_id,
            self._client.account,
            listing.zone_name,
            listing.access_role,
            self._key_prefix,
        )
        known = self._entries if around == self._around else {}
        entries: list[Entry] = []
        for number, item in enumerate(listing.items, start=1):
            entry = known.get(_id(item))
            if entry is None or not entry.etag or entry.etag != _etag(item):
                entry = understand(item, number, around)
            entries.append(entry)
        # An event that changes while it is listed can be on two pages; the later is how it is now.
        by_id = {entry.event_id: entry for entry in entries if entry.event_id}
        self._around, self._entries = around, by_id
        return [*by_id.values(), *(entry for entry in entries if not entry.event_id)]


def _id(item: object) -> str:
    return str(item.get("id", "")) if isinstance(item, dict) else ""


def _etag(item: object) -> str:
    return str(item.get("etag", "")) if isinstance(item, dict) else ""


Outcome = tuple[Reservation | Misunderstood, Target | None]


def _with_keys_of_their_own(entries: list[Entry], start: datetime, end: datetime) -> list[Outcome]:
    """What the entries say, each under a key of its own.

    The one verdict on the text of a series is on its first instance in the window.
    """
    found: dict[str, Outcome] = {}
    said: dict[str, tuple[bool, datetime, Outcome]] = {}
    for entry in sorted(entries, key=lambda one: one.event_id):
        outcome = entry.outcome
        if outcome is None:
            continue
        if entry.same_text is not None and outcome.start is not None:
            this = outcome.model_copy(update={"key": entry.same_text}), entry.target
            rank = not _overlaps(outcome, start, end), outcome.start
            earlier = said.get(entry.same_text)
            if earlier is None or rank < earlier[:2]:
                said[entry.same_text] = *rank, this
            continue
        if outcome.key in found:
            outcome = outcome.model_copy(update={"key": f"{outcome.key}#{entry.event_id}"})
        found[outcome.key] = outcome, entry.target
    return [*found.values(), *(outcome for _, _, outcome in said.values())]


def _overlaps(one: Reservation | Misunderstood, start: datetime, end: datetime) -> bool:
    """Whether a window has to do with it; without a time of its own it might."""
    return one.start is None or (one.start < end and (one.end is None or one.end > start))
