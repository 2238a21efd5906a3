"""Items as no server sends them: whatever JSON can hold is a reservation, a fault or nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calendars.google_events import Entry, Surroundings, target, understand
from calendars.reservation import Misunderstood, Reservation
from tests.calendars.texts import MODEL, at

AROUND = Surroundings("lab@e.org", "robot@e.org", "Europe/Berlin", "writer", "lab/")

GOOD: dict[str, Any] = {
    "kind": "calendar#event",
    "id": "abc",
    "etag": '"1"',
    "status": "confirmed",
    "summary": MODEL,
    "created": "2026-01-05T08:00:00.000Z",
    "creator": {"email": "ada@e.org"},
    "organizer": {"email": "lab@e.org", "self": True},
    "start": {"dateTime": "2026-03-02T09:00:00+01:00", "timeZone": "Europe/Berlin"},
    "end": {"dateTime": "2026-03-02T10:00:00+01:00", "timeZone": "Europe/Berlin"},
    "eventType": "default",
}


def item(**changes: object) -> dict[str, object]:
    """A good item with some fields changed; None takes a field away."""
    return {key: value for key, value in (GOOD | changes).items() if value is not None}


def fault(found: Entry) -> Misunderstood:
    assert isinstance(found.outcome, Misunderstood), found
    return found.outcome


def times(found: Entry) -> tuple[object, object]:
    assert isinstance(found.outcome, Reservation), found
    return found.outcome.start, found.outcome.end


def test_a_good_item() -> None:
    outcome = understand(GOOD, 1, AROUND).outcome
    assert isinstance(outcome, Reservation)
    assert (outcome.key, outcome.calendar, outcome.owner) == ("lab/abc", "lab@e.org", "ada@e.org")
    assert (outcome.start, outcome.end) == (at("2026-03-02 08:00"), at("2026-03-02 09:00"))


@pytest.mark.parametrize(
    ("start", "end", "read_as"),
    [
        # Without an offset: in its own zone, else in the calendar's.
        (
            {"dateTime": "2026-03-02T09:00:00", "timeZone": "America/New_York"},
            {"dateTime": "2026-03-02T16:00:00"},
            ("2026-03-02 14:00", "2026-03-02 15:00"),
        ),
        # The hour that the clock shows twice is the first, the one it skips has the offset from before.
        (
            {"dateTime": "2026-10-25T02:30:00"},
            {"dateTime": "2026-10-25T03:30:00"},
            ("2026-10-25 00:30", "2026-10-25 02:30"),
        ),
        (
            {"dateTime": "2026-03-29T02:30:00"},
            {"dateTime": "2026-03-29T04:00:00"},
            ("2026-03-29 01:30", "2026-03-29 02:00"),
        ),
        ({"date": "2026-03-29"}, {"date": "2026-03-30"}, ("2026-03-28 23:00", "2026-03-29 22:00")),
        (
            {"dateTime": "2026-03-02T09:00:00.5Z", "date": None},
            {"dateTime": "2026-03-02T10:00:00Z"},
            ("2026-03-02 09:00:00.5", "2026-03-02 10:00"),
        ),
    ],
)
def test_times(start: dict[str, str], end: dict[str, str], read_as: tuple[str, str]) -> None:
    assert times(understand(item(start=start, end=end), 1, AROUND)) == (at(read_as[0]), at(read_as[1]))


FAULTS = {
    "no start": (item(start=None), "no start"),
    "no end": (item(end=None), "no end"),
    "an empty start": (item(start={}), "no start"),
    "a start of another kind": (item(start="2026-03-02"), "no start"),
    "a time that is none": (item(start={"dateTime": "soon"}), "'soon', not a time"),
    "a number for a time": (item(start={"dateTime": 5}), "'5', not a time"),
    "a day with a time": (item(start={"date": "2026-03-02T09:00:00"}), "not a time"),
    "the year 1969": (item(start={"date": "1969-01-01"}), "the year 1969"),
    "the year 9999": (item(end={"dateTime": "9999-12-31T23:59:59-12:00"}), "the year 9999"),
    "an unknown zone": (item(start={"dateTime": "2026-03-02T09:00:00", "timeZone": "Mars/X"}), "'Mars/X'"),
    "a zone outside the database": (
        item(start={"dateTime": "2026-03-02T09:00:00", "timeZone": "../../etc/passwd"}),
        "not known",
    ),
    "backwards": (item(end=GOOD["start"]), "ends before or when it starts"),
    "a title of another kind": (item(summary=["x"]), "summary is no text"),
    "a description of another kind": (item(description={"x": 1}), "description is no text"),
    "no id": (item(id=None), "no id"),
    "an id of another kind": (item(id=5), "no id"),
    "no title": (item(summary=None), "title is empty"),
}


@pytest.mark.parametrize(("bad", "said"), FAULTS.values(), ids=FAULTS)
def test_faults_are_named(bad: dict[str, object], said: str) -> None:
    verdict = fault(understand(bad, 7, AROUND))
    assert said in verdict.reason
    assert verdict.reason.endswith(".")
    assert verdict.example
    assert verdict.owner == "ada@e.org"
    assert verdict.key == ("lab/abc" if bad.get("id") == "abc" else "lab/event-7")


@pytest.mark.parametrize("value", [None, 5, "x", [], [1], True, {}])
def test_an_item_that_is_no_event_is_a_fault(value: object) -> None:
    assert fault(understand(value, 3, AROUND)).key == "lab/event-3"


def test_an_all_day_event_in_a_calendar_whose_zone_is_not_known() -> None:
    around = Surroundings("lab@e.org", None, "Middle/Earth", "writer", "")
    day = item(start={"date": "2026-03-02"}, end={"date": "2026-03-03"})
    assert "'Middle/Earth'" in fault(understand(day, 1, around)).reason
    assert times(understand(GOOD, 1, around))[0] == at("2026-03-02 08:00"), "timed events need no zone"


@pytest.mark.parametrize("original", [None, {}, {"dateTime": "soon"}, "x"])
def test_an_instance_without_a_readable_original_start_is_named_by_its_id(original: object) -> None:
    found = understand(item(recurringEventId="series", originalStartTime=original), 1, AROUND)
    assert isinstance(found.outcome, Reservation)
    assert found.outcome.key == "lab/abc"


def test_a_cancelled_item_that_is_its_id_only_is_nothing() -> None:
    assert understand({"id": "abc", "status": "cancelled"}, 1, AROUND).outcome is None


@pytest.mark.parametrize(
    "fields",
    [
        {"attendees": "x"},
        {"attendees": [None, 5, {"email": 5, "responseStatus": "declined"}]},
        {"organizer": "x", "creator": {"email": "ada@e.org"}},
        {"extendedProperties": {"private": "x"}},
        {"created": 5},
        {"created": "2026-01-05T08:00:00"},
        {"locked": "yes"},
        {"eventType": None},
        {"summary": f"{MODEL}", "description": "half \ud800 a pair"},
    ],
)
def test_what_decides_nothing_may_be_anything(fields: dict[str, object]) -> None:
    outcome = understand(item(**fields), 1, AROUND).outcome
    assert isinstance(outcome, Reservation)
    assert outcome.owner == "ada@e.org"


def test_halves_of_surrogate_pairs_are_no_trouble() -> None:
    odd = "x\ud800 y"
    verdict = fault(understand(item(summary=odd, id=odd, creator={"email": odd}), 1, AROUND))
    assert verdict.title == "x? y"
    assert target(item(description=odd)).description == odd, "what is written back stays as it came"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
MOMENTS = st.fixed_dictionaries(
    {},
    optional={
        "dateTime": VALUES | st.datetimes().map(str) | st.just("0001-01-01T00:00:00+23:59"),
        "date": VALUES | st.dates().map(str),
        "timeZone": VALUES | st.sampled_from(["UTC", "Europe/Berlin", "x", "/etc", "\0"]),
    },
)
FIELDS = [*GOOD, "description", "attendees", "recurringEventId", "visibility", "extendedProperties", "locked"]
EVENTS = st.fixed_dictionaries(
    {}, optional={name: VALUES | st.just(GOOD.get(name)) for name in FIELDS}
) | st.builds(
    lambda start, end, original: item(start=start, end=end, originalStartTime=original, recurringEventId="s"),
    MOMENTS | st.just(GOOD["start"]),
    MOMENTS | st.just(GOOD["end"]),
    MOMENTS,
)


@given(EVENTS | VALUES, st.sampled_from(["UTC", "Europe/Berlin", "", "x/y", "\0"]))
def test_nothing_that_json_can_hold_raises(event: object, zone: str) -> None:
    around = Surroundings("lab@e.org", None, zone, "reader", "")
    found = understand(event, 1, around)
    if isinstance(found.outcome, Misunderstood):
        assert found.outcome.reason.isprintable()
    if found.outcome is not None:
        json.loads(found.outcome.model_dump_json())
