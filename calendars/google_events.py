"""One item of Google's list of events: a reservation, what is wrong with it, or nothing.

The rules are those in the docstring of `calendars.google.GoogleCalendar`. Pure: what the calendar says of
itself comes in as `Surroundings`. Source of the fields: the discovery document of Calendar v3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from calendars.event_text import MAX_TITLE_CHARACTERS, Problem, parse_event
from calendars.event_values import EXAMPLE_MODEL
from calendars.ics_events import MAX_EVENT_DAYS
from calendars.ics_times import EARLIEST_YEAR, LATEST_YEAR, Moment, NotUnderstood
from calendars.reservation import Misunderstood, Reservation
from calendars.status_block import strip_block

STATE_PROPERTY = "ndif-ray-state"
DIGEST_PROPERTY = "ndif-ray-digest"
EVENT_PROPERTY = "ndif-ray-event"
"""Keys in ``extendedProperties.private``; Google drops keys of more than 44 characters without a word."""

_TEXT_EXAMPLE = f"model: {EXAMPLE_MODEL}"
_TIME_EXAMPLE = "from 2026-03-02 09:00 to 2026-03-02 17:00"


@dataclass(frozen=True)
class Surroundings:
    """What an item has to be seen in the light of; while it stays the same, so does what an item means.

    ``calendar_id`` and ``account`` are mail addresses; ``zone_name`` is that of the calendar;
    ``access_role`` is Google's word for the account's rights in it.
    """

    calendar_id: str
    account: str | None
    zone_name: str
    access_role: str
    key_prefix: str


@dataclass(frozen=True)
class Target:
    """What is needed to answer in an event: its text and what it already says.

    ``etag`` is None where the event has changed since, and must be read again before it is written to.
    """

    event_id: str
    etag: str | None
    description: str
    locked: bool
    instance: bool
    state: str
    digest: str


@dataclass(frozen=True)
class Entry:
    """One item, understood as far as it goes.

    ``outcome`` is None for what is no booking. ``same_text`` is set where what is wrong is the text, which
    the other instances of the series share: the key of the one verdict on them all.
    """

    event_id: str
    etag: str
    outcome: Reservation | Misunderstood | None
    same_text: str | None
    target: Target | None


def understand(item: object, number: int, around: Surroundings) -> Entry:
    """What an item means; never raises for anything that JSON can hold. ``number`` counts items from 1."""
    event = item if isinstance(item, dict) else {}
    event_id, etag = _word(event, "id"), _word(event, "etag")
    if _no_booking(event, around) and item is event:
        return Entry(event_id, etag, None, None, None)
    title = _word(event, "summary")
    owner = _owner(event, around)
    start = end = None
    key = around.key_prefix + (event_id or f"event-{number}")
    same_text = None
    try:
        if not event_id:
            raise NotUnderstood("The event has no id, the name that tells it from all others.", _TEXT_EXAMPLE)
        key = around.key_prefix + _occurrence(event, event_id, around)
        start = _moment(event, "start", around)
        end = _end(event, start, around)
        words = strip_block(_text(event, "description"))
        _check_details(event, around)
        request = parse_event(_text(event, "summary"), words)
        if not isinstance(request, Problem):
            outcome = Reservation(
                key=key,
                calendar=around.calendar_id,
                title=title,
                start=start,
                end=end,
                booked_at=_booked_at(event) or start,
                owner=owner,
                people=_people(event, owner),
                request=request,
            )
            return Entry(event_id, etag, outcome, None, target(event))
        if series := _word(event, "recurringEventId"):
            told = hashlib.sha256(f"{title}\0{words}".encode(errors="replace")).hexdigest()[:8]
            same_text = f"{around.key_prefix}{series}/{told}"
        raise NotUnderstood(request.reason, request.example)
    except NotUnderstood as caught:
        fault = Misunderstood(
            key=key,
            calendar=around.calendar_id,
            title=title[:MAX_TITLE_CHARACTERS],
            start=start,
            end=end,
            owner=owner,
            reason=caught.reason,
            example=caught.example,
        )
        return Entry(event_id, etag, fault, same_text, target(event) if event_id else None)


def target(event: Mapping[str, object]) -> Target:
    """What is needed to answer in an event, out of its JSON."""
    private = _part(_part(event, "extendedProperties"), "private")
    if _word(private, EVENT_PROPERTY) != _word(event, "id"):
        # A copied event, or the instances of one that was made a series, carry what was said to another.
        private = {}
    return Target(
        event_id=_word(event, "id"),
        etag=_word(event, "etag") or None,
        # As it came: it is written back byte for byte.
        description=str(event.get("description") or ""),
        locked=event.get("locked") is True,
        instance=bool(_word(event, "recurringEventId")),
        state=_word(private, STATE_PROPERTY),
        digest=_word(private, DIGEST_PROPERTY),
    )


# --- what is a booking at all ----------------------------------------------------------------------------


def _no_booking(event: Mapping[str, object], around: Surroundings) -> bool:
    if event.get("status") == "cancelled":
        return True
    if event.get("eventType", "default") != "default":
        return True
    return any(
        guest.get("responseStatus") == "declined" and _is_own(guest, around)
        for guest in _parts(event, "attendees")
    )


def _is_own(person: Mapping[str, object], around: Surroundings) -> bool:
    """Whether an attendee or organizer is the calendar or the scheduler's account, not a person."""
    mail = _word(person, "email").lower()
    return person.get("self") is True or mail in {
        name.lower() for name in (around.account, around.calendar_id) if name
    }


def _check_details(event: Mapping[str, object], around: Surroundings) -> None:
    private = event.get("visibility") in ("private", "confidential")
    hidden = private and around.access_role not in ("writer", "owner")
    if hidden and not event.get("summary") and not event.get("description"):
        raise NotUnderstood(
            "The event is private, and its title and description are not shown to "
            f"{around.account or 'the scheduler'}; make its visibility “Default visibility” or “Public”.",
            _TEXT_EXAMPLE,
        )


def _owner(event: Mapping[str, object], around: Surroundings) -> str | None:
    """The organizer's mail address, else the creator's. A shared calendar is itself the organizer of the
    events in it; there the creator is the person."""
    organizer, creator = _part(event, "organizer"), _part(event, "creator")
    people = [creator, organizer] if _is_own(organizer, around) else [organizer, creator]
    mails = (_word(person, "email").strip().lower() for person in people)
    return next((mail for mail in mails if mail), None)


def _people(event: Mapping[str, object], owner: str | None) -> tuple[str, ...]:
    """The owner and the guests who have not declined; rooms are no guests."""
    guests = {
        _word(guest, "email").strip().lower()
        for guest in _parts(event, "attendees")
        if guest.get("responseStatus") != "declined" and guest.get("resource") is not True
    }
    return tuple(sorted({one for one in (*guests, owner) if one}))


def _booked_at(event: Mapping[str, object]) -> datetime | None:
    try:
        created = datetime.fromisoformat(_word(event, "created"))
    except ValueError:
        return None
    # Events taken over from elsewhere can have been created in the year 0.
    if created.tzinfo is None or not EARLIEST_YEAR <= created.year <= LATEST_YEAR:
        return None
    return created.astimezone(UTC)


# --- times -------------------------------------------------------------------------------------------------


def _occurrence(event: Mapping[str, object], event_id: str, around: Surroundings) -> str:
    """The part of the key that names the occurrence and survives a move."""
    series = _word(event, "recurringEventId")
    if not series:
        return event_id
    try:
        return f"{series}/{_clock(event, 'originalStartTime', around).key()}"
    except NotUnderstood:
        return event_id


def _moment(event: Mapping[str, object], name: str, around: Surroundings) -> datetime:
    return _clock(event, name, around).instant()


def _clock(event: Mapping[str, object], name: str, around: Surroundings) -> Moment:
    """What a ``start``, ``end`` or ``originalStartTime`` reads: midnight of a day, or an instant."""
    value = event.get(name)
    if not isinstance(value, dict) or not (value.get("dateTime") or value.get("date")):
        raise NotUnderstood(f"The event has no {name}.", _TIME_EXAMPLE)
    written = str(value.get("dateTime") or value.get("date"))
    try:
        moment = datetime.fromisoformat(written)
        if not value.get("dateTime"):
            date.fromisoformat(written)
    except ValueError:
        raise NotUnderstood(f"The event's {name} is {written[:80]!r}, not a time.", _TIME_EXAMPLE) from None
    if not EARLIEST_YEAR <= moment.year <= LATEST_YEAR:
        raise NotUnderstood(
            f"The event's {name} lies in the year {moment.year}, not between {EARLIEST_YEAR} and "
            f"{LATEST_YEAR}.",
            _TIME_EXAMPLE,
        )
    if moment.tzinfo is not None:
        return Moment(moment.astimezone(UTC).replace(tzinfo=None), UTC)
    all_day = not value.get("dateTime")
    zone_name = around.zone_name if all_day else str(value.get("timeZone") or around.zone_name)
    try:
        return Moment(moment, ZoneInfo(zone_name), all_day=all_day)
    except (KeyError, OSError, ValueError):
        raise NotUnderstood(
            f"The time zone {zone_name[:80]!r} of the event's {name} is not known.", _TIME_EXAMPLE
        ) from None


def _end(event: Mapping[str, object], start: datetime, around: Surroundings) -> datetime:
    end = _moment(event, "end", around)
    if end <= start:
        raise NotUnderstood("The event ends before or when it starts.", _TIME_EXAMPLE)
    if end - start > timedelta(days=MAX_EVENT_DAYS):
        raise NotUnderstood(
            f"The event lasts {(end - start).days} days; a booking lasts at most {MAX_EVENT_DAYS}.",
            _TIME_EXAMPLE,
        )
    return end


# --- values of JSON -----------------------------------------------------------------------------------------


def _word(value: Mapping[str, object], name: str) -> str:
    """A text that decides nothing by itself: empty where it is anything else."""
    found = value.get(name)
    return _whole(found) if isinstance(found, str) else ""


def _text(event: Mapping[str, object], name: str) -> str:
    """A text that is asked for: whatever else stands in its place is a fault."""
    found = event.get(name)
    if found is not None and not isinstance(found, str):
        raise NotUnderstood(f"The event's {name} is no text.", _TEXT_EXAMPLE)
    return _whole(found or "")


def _whole(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON can hold and nothing else can."""
    return text.encode(errors="replace").decode() if not text.isascii() else text


def _part(value: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _parts(value: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    found = value.get(name)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
