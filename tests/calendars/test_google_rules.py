"""One test for each sentence of `GoogleCalendar`, through the real client on a server that speaks Google's.

What a server would not send is in ``test_google_events.py``.
"""

from __future__ import annotations

from threading import Thread

import pytest

from calendars import google_events
from calendars.google import GoogleCalendar
from calendars.reservation import Reading
from calendars.source import CalendarSource
from calendars.write_back import with_report
from tests.calendars.google_desk import MODEL, Desk, problem, read, refusal, say
from tests.calendars.texts import at, times
from tests.google_server import ROBOT

WEEKLY = "RRULE:FREQ=WEEKLY;COUNT=4"


def one(reading: Reading) -> str:
    """The only reservation, as `times` writes it."""
    (only,) = times(reading)
    return only


def keys(reading: Reading) -> list[str]:
    return [reservation.key for reservation in reading.reservations]


def test_it_is_a_calendar_source(desk: Desk) -> None:
    lab = desk.lab()
    source: CalendarSource = desk.source(lab)
    lab.add(MODEL, "2026-03-02T09:00", "2026-03-02T10:00", "replicas: 2", by="Ada@Example.org")
    reading = source.read(at("2026-03-01"), at("2026-04-01"))
    (found,) = reading.reservations
    assert source.name == reading.calendar == found.calendar == lab.id
    assert (found.title, found.request.model, found.request.replicas) == (MODEL, MODEL, 2)
    assert found.owner == "ada@example.org"


# --- what counts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "shown"),
    [
        (("2026-03-02 10:00", "2026-03-03"), False),
        (("2026-03-02 09:59:59.5", "2026-03-03"), True),
        (("2026-03-01", "2026-03-02 09:00"), False),
        (("2026-03-01", "2026-03-02 09:00:00.5"), True),
    ],
)
@pytest.mark.parametrize("style", ["off", "colour"])
def test_an_event_is_shown_when_it_overlaps_the_half_open_window(
    desk: Desk, window: tuple[str, str], shown: bool, style: str
) -> None:
    lab = desk.lab()
    lab.add(MODEL, "2026-03-02T09:00", "2026-03-02T10:00")
    lab.add("no model here", "2026-03-02T09:00", "2026-03-02T10:00")
    reading = read(desk.source(lab, style=style), window)
    assert (len(reading.reservations), len(reading.misunderstood)) == (shown, shown)


def test_an_event_across_midnight_and_both_edges_of_the_window_is_one_with_its_own_times(desk: Desk) -> None:
    lab = desk.lab("Europe/Berlin")
    lab.add(MODEL, "2026-03-01T22:00", "2026-03-04T02:00")
    inside = read(desk.source(lab), ("2026-03-02", "2026-03-03"))
    assert times(inside) == ["2026-03-01 21:00 2026-03-04 01:00"]


@pytest.mark.parametrize("leak", [False, True])
def test_cancelled_events_and_instances_are_ignored(desk: Desk, leak: bool) -> None:
    desk.google.knobs.leak_cancelled = leak
    lab = desk.lab()
    lab.cancel(lab.add(MODEL, "2026-03-02T09:00", "2026-03-02T10:00")["id"])
    series = lab.add(MODEL, "2026-03-03T09:00", "2026-03-03T10:00", repeat=WEEKLY)["id"]
    lab.cancel(lab.instance(series, "2026-03-10T09:00"))
    assert times(read(desk.source(lab))) == [
        "2026-03-03 09:00 10:00",
        "2026-03-17 09:00 10:00",
        "2026-03-24 09:00 10:00",
    ]


def test_a_cancelled_series_is_gone_altogether(desk: Desk) -> None:
    lab = desk.lab()
    source = desk.source(lab)
    series = lab.add(MODEL, "2026-03-03T09:00", "2026-03-03T10:00", repeat=WEEKLY)["id"]
    assert len(read(source).reservations) == 4
    lab.cancel(series)
    assert read(source) == Reading(calendar=lab.id)


@pytest.mark.parametrize("fields", [{"status": "tentative"}, {"transparency": "transparent"}])
def test_tentative_and_free_events_count(desk: Desk, fields: dict[str, str]) -> None:
    lab = desk.lab()
    lab.add(MODEL, "2026-03-02T09:00", "2026-03-02T10:00", **fields)
    assert one(read(desk.source(lab))) == "2026-03-02 09:00 10:00"


@pytest.mark.parametrize(
    ("mail", "answer", "counts"),
    [
        (ROBOT, "declined", False),
        (ROBOT.upper(), "declined", False),
        ("calendar", "declined", False),
        (ROBOT, "needsAction", True),
        (ROBOT, "tentative", True),
        ("bob@example.org", "declined", True),
    ],
)
def test_what_the_scheduler_has_declined_is_ignored(desk: Desk, mail: str, answer: str, counts: bool) -> None:
    lab = desk.lab()
    guest = {"email": lab.id if mail == "calendar" else mail, "responseStatus": answer}
    lab.add(MODEL, "2026-03-02T09:00", "2026-03-02T10:00", attendees=[{"email": "x@y.org"}, guest])
    assert len(read(desk.source(lab)).reservations) == counts


def test_a_private_event_counts_where_its_text_is_shown(desk: Desk) -> None:
    lab = desk.lab(role="writer")
    lab.add(MODEL, "2026-03-02T09:00", "2026-03-02T10:00", visibility="private")
    assert len(read(desk.source(lab)).reservations) == 1


def test_a_private_event_is_misunderstood_where_its_text_is_not_shown(desk: Desk) -> None:
    lab = desk.lab(role="reader")
    lab.add(MODEL, "2026-03-02T09:00", "2026-03-02T10:00", visibility="private")
    lab.add("good/model", "2026-03-02T09:00", "2026-03-02T10:00")
    reading = read(desk.source(lab))
    assert [one.request.model for one in reading.reservations] == ["good/model"]
    verdict = problem(reading)
    assert "private" in verdict.reason and ROBOT in verdict.reason
    assert verdict.start == at("2026-03-02 09:00")


@pytest.mark.parametrize("kind", ["outOfOffice", "focusTime", "fromGmail", "kindToCome"])
def test_events_of_other_types_are_ignored(desk: Desk, kind: str) -> None:
    lab = desk.lab()
    lab.add(MODEL, "2026-03-02T09:00", "2026-03-02T10:00", eventType=kind)
    assert read(desk.source(lab)) == Reading(calendar=lab.id)


# --- times -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "read_as"),
    [
        ("2026-10-25T02:30:00+02:00", "2026-10-25T02:45:00+02:00", "2026-10-25 00:30 00:45"),
        ("2026-10-25T02:30:00+01:00", "2026-10-25T02:45:00+01:00", "2026-10-25 01:30 01:45"),
        ("2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-25 00:30 01:30"),
        ("2026-03-29T01:30:00+01:00", "2026-03-29T03:30:00+02:00", "2026-03-29 00:30 01:30"),
    ],
)
def test_a_time_is_the_instant_its_offset_says(desk: Desk, start: str, end: str, read_as: str) -> None:
    lab = desk.lab("Europe/Berlin")
    lab.add(MODEL, start, end)
    assert one(read(desk.source(lab), ("2026-03-01", "2026-11-01"))) == read_as


def test_a_series_keeps_its_clock_time_across_a_change_of_offset(desk: Desk) -> None:
    lab = desk.lab("Europe/Berlin")
    lab.add(MODEL, "2026-03-22T09:00", "2026-03-22T10:00", repeat="RRULE:FREQ=WEEKLY;COUNT=2")
    assert times(read(desk.source(lab))) == ["2026-03-22 08:00 09:00", "2026-03-29 07:00 08:00"]


@pytest.mark.parametrize(
    ("zone", "day", "after", "read_as"),
    [
        ("Europe/Berlin", "2026-03-29", "2026-03-30", "2026-03-28 23:00 2026-03-29 22:00"),  # 23 hours
        ("Europe/Berlin", "2026-10-25", "2026-10-26", "2026-10-24 22:00 2026-10-25 23:00"),  # 25 hours
        ("Pacific/Auckland", "2026-03-02", "2026-03-04", "2026-03-01 11:00 2026-03-03 11:00"),
        # Midnight does not exist on this day in Cairo: clocks go from 0:00 to 1:00.
        ("Africa/Cairo", "2026-04-24", "2026-04-25", "2026-04-23 22:00 2026-04-24 21:00"),
    ],
)
def test_an_all_day_event_runs_from_midnight_to_midnight_in_the_calendars_zone(
    desk: Desk, zone: str, day: str, after: str, read_as: str
) -> None:
    lab = desk.lab(zone)
    lab.add(MODEL, day, after)
    assert one(read(desk.source(lab), ("2026-02-01", "2026-12-01"))) == read_as


def test_an_all_day_event_follows_its_calendar_to_another_zone(desk: Desk) -> None:
    lab = desk.lab("Europe/Berlin")
    source = desk.source(lab)
    lab.add(MODEL, "2026-03-02", "2026-03-03")
    assert one(read(source)) == "2026-03-01 23:00 2026-03-02 23:00"
    desk.google.store.calendars[lab.id].time_zone = "UTC"  # leaves the event's etag as it is
    assert one(read(source)) == "2026-03-02 00:00 2026-03-03 00:00"


def test_an_event_whose_end_is_not_specified_ends_when_google_says(desk: Desk) -> None:
    lab = desk.lab()
    lab.add(MODEL, "2026-03-02T09:00", "2026-03-02T10:00", endTimeUnspecified=True)
    assert one(read(desk.source(lab))) == "2026-03-02 09:00 10:00"


def test_an_event_of_no_length_and_one_of_more_than_366_days_are_misunderstood(desk: Desk) -> None:
    lab = desk.lab()
    lab.add(MODEL, "2026-03-02T09:00", "2026-03-02T09:00:01")
    lab.add("long/one", "2026-03-02", "2027-03-04")
    lab.add("just/right", "2026-03-02", "2027-03-03")
    zero = lab.add("zero/one", "2026-03-02T09:00", "2026-03-02T09:00")
    reading = read(desk.source(lab))
    assert [one.request.model for one in reading.reservations] == ["just/right", MODEL]
    # Google lists an event of no length only where its one instant lies inside the window.
    reasons = {one.title: one.reason for one in reading.misunderstood}
    assert "367 days" in reasons["long/one"]
    assert "ends before or when it starts" in reasons["zero/one"], zero


# --- series ------------------------------------------------------------------------------------------------


def test_each_instance_is_a_reservation_changed_and_moved_ones_as_they_are_now(desk: Desk) -> None:
    lab = desk.lab("Europe/Berlin")
    source = desk.source(lab)
    series = lab.add(MODEL, "2026-03-03T09:00", "2026-03-03T10:00", repeat=WEEKLY)["id"]
    before = read(source)
    second, third = (lab.instance(series, f"2026-03-{day}T09:00") for day in (10, 17))
    lab.move(second, "2026-03-12T14:00", "2026-03-12T18:00")
    lab.edit(third, summary="other/model", description="replicas: 3")
    after = read(source)
    assert times(after) == [
        "2026-03-03 08:00 09:00",
        "2026-03-12 13:00 17:00",
        "2026-03-17 08:00 09:00",
        "2026-03-24 08:00 09:00",
    ]
    assert keys(after) == keys(before), "an instance that was moved keeps its key"
    assert keys(after)[1] == f"{series}/20260310T080000Z"
    assert (after.reservations[2].request.model, after.reservations[2].request.replicas) == ("other/model", 3)


def test_an_instance_moved_into_the_window_is_in_it_and_one_moved_out_is_not(desk: Desk) -> None:
    lab = desk.lab()
    series = lab.add(MODEL, "2026-03-03T09:00", "2026-03-03T10:00", repeat=WEEKLY)["id"]
    lab.move(lab.instance(series, "2026-03-03T09:00"), "2026-03-25T09:00", "2026-03-25T10:00")
    lab.move(lab.instance(series, "2026-03-24T09:00"), "2026-03-02T09:00", "2026-03-02T10:00")
    assert times(read(desk.source(lab), ("2026-03-20", "2026-04-01"))) == ["2026-03-25 09:00 10:00"]


def test_instances_of_an_all_day_series_are_named_by_their_day(desk: Desk) -> None:
    lab = desk.lab("Europe/Berlin")
    series = lab.add(MODEL, "2026-03-28", "2026-03-29", repeat="RRULE:FREQ=DAILY;COUNT=2")["id"]
    reading = read(desk.source(lab))
    assert keys(reading) == [f"{series}/20260328", f"{series}/20260329"]
    assert times(reading)[1] == "2026-03-28 23:00 2026-03-29 22:00"


def test_a_series_whose_text_is_misunderstood_is_reported_once(desk: Desk) -> None:
    lab = desk.lab()
    source = desk.source(lab, style="colour+text")
    series = lab.add("Team lunch", "2026-03-03T09:00", "2026-03-03T10:00", repeat=WEEKLY)["id"]
    lab.edit(lab.instance(series, "2026-03-10T09:00"), summary="Another lunch")
    first = read(source)
    assert {one.title: one.start for one in first.misunderstood} == {
        "Team lunch": at("2026-03-03 09:00"),
        "Another lunch": at("2026-03-10 09:00"),
    }
    # The key is that of the text: it stays as the window moves on, and the first instance in it is named.
    later = read(source, ("2026-03-03 10:00", "2026-04-01"))
    assert {one.key for one in later.misunderstood} == {one.key for one in first.misunderstood}
    assert {one.start for one in later.misunderstood} == {at("2026-03-10 09:00"), at("2026-03-17 09:00")}


# --- who and which -----------------------------------------------------------------------------------------


def test_the_key_is_the_events_id_behind_the_prefix(desk: Desk) -> None:
    lab = desk.lab()
    event = lab.add(MODEL, "2026-03-02T09:00", "2026-03-02T10:00")["id"]
    assert keys(read(desk.source(lab))) == [event]
    assert keys(read(desk.source(lab, key_prefix=None))) == [f"{lab.id}/{event}"]


def test_booked_at_is_when_the_event_was_created_else_its_start(desk: Desk) -> None:
    lab = desk.lab()
    lab.add("a/b", "2026-03-02T09:00", "2026-03-02T10:00", created="2026-01-05T08:00:00.000Z")
    lab.add("c/d", "2026-03-02T09:00", "2026-03-02T10:00", created="0000-12-29T00:00:00.000Z")
    booked = {one.title: one.booked_at for one in read(desk.source(lab)).reservations}
    assert booked == {"a/b": at("2026-01-05 08:00"), "c/d": at("2026-03-02 09:00")}


@pytest.mark.parametrize(
    ("organizer", "creator", "owner"),
    [
        ({"email": "Ada@Example.org"}, {"email": "secretary@example.org"}, "ada@example.org"),
        ({"email": "x@group.calendar.google.com", "self": True}, {"email": "bob@e.org"}, "bob@e.org"),
        ({}, {"email": "bob@e.org"}, "bob@e.org"),
        ({"email": "x@e.org", "self": True}, {}, "x@e.org"),
        ({}, {}, None),
    ],
)
def test_the_owner_is_the_organizer_else_the_creator(
    desk: Desk, organizer: dict[str, object], creator: dict[str, object], owner: str | None
) -> None:
    lab = desk.lab()
    lab.add(MODEL, "2026-03-02T09:00", "2026-03-02T10:00", organizer=organizer, creator=creator)
    assert [one.owner for one in read(desk.source(lab)).reservations] == [owner]


def test_the_people_are_the_owner_and_the_guests_who_have_not_declined(desk: Desk) -> None:
    lab = desk.lab()
    guests: list[dict[str, object]] = [
        {"email": " Bob@Example.org"},
        {"email": "carol@e.org", "responseStatus": "accepted"},
        {"email": "dan@e.org", "responseStatus": "declined"},
        {"email": "room@resource.calendar.google.com", "resource": True},
        {"displayName": "somebody without an address"},
    ]
    lab.add(MODEL, "2026-03-02T09:00", "2026-03-02T10:00", "private: yes", by="ada@e.org", attendees=guests)
    (one,) = read(desk.source(lab)).reservations
    assert one.request.private
    assert one.people == ("ada@e.org", "bob@example.org", "carol@e.org")


def test_of_nobodys_event_there_are_no_people(desk: Desk) -> None:
    lab = desk.lab()
    lab.add(MODEL, "2026-03-02T09:00", "2026-03-02T10:00", organizer={}, creator={})
    assert [one.people for one in read(desk.source(lab)).reservations] == [()]


def test_the_services_own_block_is_not_read(desk: Desk) -> None:
    lab = desk.lab()
    source = desk.source(lab)
    event = lab.add("gpt2", "2026-03-02T09:00", "2026-03-02T10:00", "replicas: 2")
    before = read(source)
    report = say("x", "refused", "gpus: needs 4, has 2", "replicas: too many", "model: none")
    lab.edit(event["id"], description=with_report("replicas: 2", report))
    assert read(source) == before


# --- what is wrong -----------------------------------------------------------------------------------------


def test_one_event_that_is_not_understood_never_hides_another(desk: Desk) -> None:
    lab = desk.lab()
    for title in ("Team lunch", MODEL, ""):
        lab.add(title, "2026-03-02T09:00", "2026-03-02T10:00", by="ada@example.org")
    reading = read(desk.source(lab))
    assert len(reading.reservations) == 1
    assert {(one.title, one.owner) for one in reading.misunderstood} == {
        ("Team lunch", "ada@example.org"),
        ("", "ada@example.org"),
    }


def test_an_event_with_the_id_and_etag_of_the_last_reading_is_not_parsed_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []
    parse = google_events.parse_event
    monkeypatch.setattr(google_events, "parse_event", lambda *text: (parsed.append(text[0]), parse(*text))[1])
    lab = desk.lab()
    source = desk.source(lab)
    events = [lab.add(f"a/m{n}", "2026-03-02T09:00", "2026-03-02T10:00")["id"] for n in range(3)]
    first = read(source)
    assert read(source) == first
    assert sorted(parsed) == ["a/m0", "a/m1", "a/m2"]
    lab.edit(events[1], description="replicas: 2")
    assert [one.request.replicas for one in read(source).reservations if one.title == "a/m1"] == [2]
    assert parsed[3:] == ["a/m1"]


@pytest.mark.parametrize("size", [1, 2, 250])
def test_all_pages_are_read_short_and_empty_ones_too(desk: Desk, size: int) -> None:
    lab = desk.lab()
    made = [lab.add(f"a/m{n}", f"2026-03-02T{n:02}:00", f"2026-03-02T{n:02}:30")["id"] for n in range(8, 14)]
    desk.google.knobs.page_sizes.extend([0, 2, 0])
    assert keys(read(desk.source(lab, page_size=size))) == made


def test_a_calendar_that_changes_between_two_pages_is_listed_again(desk: Desk) -> None:
    lab = desk.lab()
    source = desk.source(lab, page_size=1)
    for n in range(2):
        lab.add(f"a/m{n}", "2026-03-02T09:00", "2026-03-02T10:00")
    listing = desk.google.faults.add("slow", path="/events", seconds=30)
    found: list[Reading] = []
    reader = Thread(target=lambda: found.append(read(source)))
    reader.start()
    assert listing.reached.wait(10)
    second = desk.google.faults.add("slow", path="/events", seconds=30)
    listing.release()
    assert second.reached.wait(10)
    lab.add("late/one", "2026-03-02T09:00", "2026-03-02T10:00")
    second.release()
    reader.join(20)
    assert [len(reading.reservations) for reading in found] == [3]
    assert desk.requests("GET") >= 5


def test_a_calendar_without_events_is_empty(desk: Desk) -> None:
    lab = desk.lab()
    assert read(desk.source(lab)) == Reading(calendar=lab.id)


@pytest.mark.parametrize("role", ["freeBusyReader", "none"])
def test_a_calendar_that_does_not_show_its_events_is_unavailable(desk: Desk, role: str) -> None:
    lab = desk.lab(role=role)
    lab.add(MODEL, "2026-03-02T09:00", "2026-03-02T10:00")
    error = refusal(desk.source(lab))
    assert ROBOT in str(error)
    assert "See all event details" in error.remedy or "Make changes to events" in error.remedy


@pytest.mark.parametrize(
    "window", [("2026-03-02", "2026-03-02"), ("2026-03-02", "2026-03-01")], ids=["empty", "backwards"]
)
def test_what_is_no_window_is_refused_at_once(desk: Desk, window: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="not a window"):
        read(desk.source("x"), window)
    with pytest.raises(ValueError, match="not a window"):
        desk.source("x").read(at(window[0]).replace(tzinfo=None), at("2027-01-01"))
    assert desk.google.log.requests == []


def test_what_was_seen_of_the_calendar_is_there_for_the_operator(desk: Desk) -> None:
    lab = desk.google.calendar(summary="Models", time_zone="Europe/Berlin")
    lab.add(MODEL, "2026-03-02T09:00", "2026-03-02T10:00")
    source: GoogleCalendar = desk.source(lab)
    assert source.seen is None
    read(source)
    seen = source.seen
    assert seen is not None
    assert (seen.title, seen.account, seen.access_role, seen.time_zone, seen.events) == (
        "Models",
        ROBOT,
        "writer",
        "Europe/Berlin",
        1,
    )
    assert source.account == ROBOT
    assert seen.server_date.endswith(" GMT")


def test_the_answers_of_the_server_are_what_googles_schema_says(desk: Desk) -> None:
    desk.google.knobs.check_answers = True
    lab = desk.lab()
    lab.add(MODEL, "2026-03-02", "2026-03-03", repeat=WEEKLY)
    read(desk.source(lab))
    assert desk.google.violations == []
