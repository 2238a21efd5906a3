"""The stand-in for Google Calendar: listing, series and writing, driven by the real client library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.google_server import ROBOT, GoogleServer
from tests.google_server.client import api, client, google, reason_of, without_boundary_lookup

__all__ = ["api", "google", "without_boundary_lookup"]
WEEK = {"timeMin": "2026-11-20T00:00:00Z", "timeMax": "2026-11-27T00:00:00Z"}
WEEKLY = "RRULE:FREQ=WEEKLY;COUNT=4"


def listed(api: Any, calendar: str = "lab", **parameters: Any) -> list[dict[str, Any]]:
    """All items of a listing, page by page."""
    items: list[dict[str, Any]] = []
    request = api.events().list(calendarId=calendar, **parameters)
    while request is not None:
        answer = request.execute()
        assert not ("nextPageToken" in answer and "nextSyncToken" in answer)
        items += answer["items"]
        request = api.events().list_next(request, answer)
    return items


def starts(items: list[dict[str, Any]]) -> list[str]:
    return [item["start"].get("dateTime") or item["start"]["date"] for item in items]


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        ("10:00", "11:00", False),  # ends when the window begins
        ("09:59", "11:00", True),
        ("08:00", "09:00", False),  # starts when the window ends
        ("08:00", "09:01", True),
        ("09:15", "09:30", True),
    ],
)
def test_an_event_is_in_the_window_when_it_ends_after_its_start_and_starts_before_its_end(
    google: GoogleServer, api: Any, low: str, high: str, found: bool
) -> None:
    google.calendar("lab").add("m", "2026-11-22T09:00", "2026-11-22T10:00")
    window = {"timeMin": f"2026-11-22T{low}:00Z", "timeMax": f"2026-11-22T{high}:00Z"}
    assert bool(listed(api, **window)) is found


def test_an_all_day_event_lasts_from_midnight_to_midnight_in_the_calendars_zone(
    google: GoogleServer, api: Any
) -> None:
    google.calendar("lab", "America/New_York").add("m", "2026-11-22", "2026-11-23")
    until_midnight = {"timeMin": "2026-11-22T00:00:00Z", "timeMax": "2026-11-22T05:00:00Z"}
    assert listed(api, **until_midnight) == []
    after = {"timeMin": "2026-11-23T04:59:00Z", "timeMax": "2026-11-23T06:00:00Z"}
    assert listed(api, **after)[0]["start"] == {"date": "2026-11-22"}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"timeMin": "2026-11-22T00:00:00"}, (400, "badRequest")),  # no offset
        ({"timeMin": "2026-11-22"}, (400, "badRequest")),
        ({"timeMin": WEEK["timeMax"], "timeMax": WEEK["timeMin"]}, (400, "timeRangeEmpty")),
        ({"orderBy": "startTime"}, (400, "invalid")),
        ({"pageToken": "nonsense"}, (400, "invalidParameter")),
        ({"syncToken": "nonsense"}, (410, "fullSyncRequired")),
        ({"updatedMin": "2020-01-01T00:00:00Z"}, (410, "updatedMinTooLongAgo")),
        ({"timeZone": "Mars/Olympus"}, (400, "invalid")),
        ({"fields": "items(id"}, (400, "invalidParameter")),
    ],
)
def test_refused_parameters(
    google: GoogleServer, api: Any, parameters: dict[str, str], expected: tuple[int, str]
) -> None:
    google.calendar("lab").add("m", "2026-11-22T09:00", "2026-11-22T10:00")
    assert reason_of(api.events().list(calendarId="lab", **parameters).execute) == expected


def test_pages_may_be_short_or_empty_and_only_the_token_tells(google: GoogleServer, api: Any) -> None:
    lab = google.calendar("lab")
    made = [lab.add(f"m{n}", f"2026-11-22T{n:02}:00", f"2026-11-22T{n:02}:30") for n in range(8, 18)]
    google.knobs.page_sizes.extend([0, 2, 0, 3])
    items = listed(api, singleEvents=True, orderBy="startTime", maxResults=4)
    assert [item["id"] for item in items] == [event["id"] for event in made]
    # 0, 2, 0 and 3 items, then 4, then the one left
    assert len(google.log.matching("GET", "/events")) == 6


def test_a_change_between_two_pages_neither_repeats_nor_shifts_items(google: GoogleServer, api: Any) -> None:
    lab = google.calendar("lab")
    made = [lab.add(f"m{n}", f"2026-11-22T{n:02}:00", f"2026-11-22T{n:02}:30") for n in range(8, 14)]
    request = api.events().list(calendarId="lab", singleEvents=True, orderBy="startTime", maxResults=3)
    first = request.execute()
    lab.cancel(made[0]["id"])
    second = api.events().list_next(request, first).execute()
    assert [item["id"] for item in first["items"] + second["items"]] == [event["id"] for event in made]


def test_sync_tokens_deliver_changes_and_deletions_and_expire(google: GoogleServer, api: Any) -> None:
    lab = google.calendar("lab")
    kept, gone = (lab.add(name, "2026-11-22T09:00", "2026-11-22T10:00") for name in ("kept", "gone"))
    token = api.events().list(calendarId="lab").execute()["nextSyncToken"]
    assert api.events().list(calendarId="lab", syncToken=token).execute()["items"] == []
    lab.cancel(gone["id"])
    lab.edit(kept["id"], summary="changed")
    delta = api.events().list(calendarId="lab", syncToken=token).execute()
    assert {item["id"]: item["status"] for item in delta["items"]} == {
        gone["id"]: "cancelled",
        kept["id"]: "confirmed",
    }
    assert listed(api, syncToken=delta["nextSyncToken"]) == []
    for forbidden in ({"timeMin": WEEK["timeMin"]}, {"q": "x"}, {"orderBy": "updated"}):
        request = api.events().list(calendarId="lab", syncToken=token, **forbidden)
        assert reason_of(request.execute) == (400, "invalid")
    lab.forget_sync_tokens()
    assert reason_of(api.events().list(calendarId="lab", syncToken=token).execute) == (
        410,
        "fullSyncRequired",
    )


def test_a_deleted_event_is_an_id_without_times(google: GoogleServer, api: Any) -> None:
    lab = google.calendar("lab")
    event = lab.add("m", "2026-11-22T09:00", "2026-11-22T10:00")
    lab.cancel(event["id"])
    assert listed(api) == []
    (item,) = listed(api, showDeleted=True)
    assert set(item) == {"kind", "etag", "id", "status"}
    google.knobs.leak_cancelled = True
    assert [found["status"] for found in listed(api, **WEEK)] == ["cancelled"]


def test_times_are_written_in_the_calendars_zone_or_the_one_asked_for(google: GoogleServer, api: Any) -> None:
    google.calendar("lab", "Europe/Berlin").add("m", "2026-11-22T09:00", "2026-11-22T10:00")
    assert starts(listed(api)) == ["2026-11-22T09:00:00+01:00"]
    assert starts(listed(api, timeZone="UTC")) == ["2026-11-22T08:00:00Z"]


def test_restrictions_and_partial_answers(google: GoogleServer, api: Any) -> None:
    lab = google.calendar("lab")
    tagged = {"private": {"ndif": "1"}}
    one = lab.add("Llama", "2026-11-22T09:00", "2026-11-22T10:00", extendedProperties=tagged)
    two = lab.add("Away", "2026-11-22T09:00", "2026-11-22T10:00", eventType="outOfOffice")
    assert [item["id"] for item in listed(api, q="llama")] == [one["id"]]
    assert [item["id"] for item in listed(api, privateExtendedProperty="ndif=1")] == [one["id"]]
    assert [item["id"] for item in listed(api, eventTypes=["outOfOffice"])] == [two["id"]]
    part = api.events().list(calendarId="lab", q="llama", fields="items(id,start/dateTime)").execute()
    assert part == {"items": [{"id": one["id"], "start": {"dateTime": "2026-11-22T09:00:00Z"}}]}


def test_a_series_keeps_its_wall_clock_across_a_dst_change(google: GoogleServer, api: Any) -> None:
    lab = google.calendar("lab", "Europe/Berlin")
    series = lab.add("m", "2026-10-18T09:00", "2026-10-18T10:00", repeat=WEEKLY)
    items = listed(api, singleEvents=True, orderBy="startTime")
    assert starts(items)[:3] == [
        "2026-10-18T09:00:00+02:00",
        "2026-10-25T09:00:00+01:00",
        "2026-11-01T09:00:00+01:00",
    ]
    assert [item["id"] for item in items[:2]] == [
        f"{series['id']}_20261018T070000Z",
        f"{series['id']}_20261025T080000Z",
    ]
    assert {item["recurringEventId"] for item in items} == {series["id"]}
    assert {item["etag"] for item in items} == {series["etag"]}
    assert all("recurrence" not in item for item in items)


@pytest.mark.parametrize(
    ("lines", "days"),
    [
        (["RRULE:FREQ=DAILY;COUNT=3"], [22, 23, 24]),
        (["RRULE:FREQ=DAILY;UNTIL=20261124T080000Z"], [22, 23, 24]),
        (["RRULE:FREQ=DAILY;UNTIL=20261124T075959Z"], [22, 23]),
        (["RRULE:FREQ=DAILY;UNTIL=20261124"], [22, 23, 24]),
        (["RRULE:FREQ=DAILY;COUNT=3", "EXDATE;TZID=Europe/Berlin:20261123T090000"], [22, 24]),
        (["RDATE:20261125T080000Z"], [22, 25]),
        (["RRULE:FREQ=DAILY;INTERVAL=2;COUNT=2", "RDATE;TZID=UTC:20261123T080000"], [22, 23, 24]),
    ],
)
def test_recurrence_lines(google: GoogleServer, api: Any, lines: list[str], days: list[int]) -> None:
    google.calendar("lab", "Europe/Berlin").add("m", "2026-11-22T09:00", "2026-11-22T10:00", repeat=lines)
    found = starts(listed(api, singleEvents=True, orderBy="startTime"))
    assert found == [f"2026-11-{day}T09:00:00+01:00" for day in days]


def test_instances_that_were_moved_changed_or_cancelled(google: GoogleServer, api: Any) -> None:
    lab = google.calendar("lab", "Europe/Berlin")
    series = lab.add("m", "2026-11-01T09:00", "2026-11-01T10:00", repeat=WEEKLY)
    moved, changed, cancelled = (
        lab.instance(series["id"], f"2026-11-{day}T09:00") for day in ("08", "15", "22")
    )
    lab.move(moved, "2026-12-24T20:00", "2026-12-24T21:00")
    lab.edit(changed, description="replicas: 2")
    lab.cancel(cancelled)
    items = {item["id"]: item for item in listed(api, singleEvents=True)}
    assert starts([items[moved]]) == ["2026-12-24T20:00:00+01:00"]
    assert items[moved]["originalStartTime"]["dateTime"] == "2026-11-08T09:00:00+01:00"
    assert items[changed]["description"] == "replicas: 2"
    assert items[changed]["etag"] != series["etag"]
    assert cancelled not in items and len(items) == 3
    # moved into one window, out of the other
    in_december = {"timeMin": "2026-12-24T00:00:00Z", "timeMax": "2026-12-25T00:00:00Z"}
    assert [item["id"] for item in listed(api, singleEvents=True, **in_december)] == [moved]
    at_first = {"timeMin": "2026-11-08T00:00:00Z", "timeMax": "2026-11-09T00:00:00Z"}
    assert listed(api, singleEvents=True, **at_first) == []
    # unexpanded: the series, and its changed instances, the cancelled one among them
    whole = {item["id"]: item for item in listed(api)}
    assert set(whole) == {series["id"], moved, changed, cancelled}
    assert whole[cancelled]["status"] == "cancelled" and "start" not in whole[cancelled]
    assert whole[cancelled]["originalStartTime"]["dateTime"] == "2026-11-22T09:00:00+01:00"
    assert reason_of(api.events().delete(calendarId="lab", eventId=cancelled).execute) == (410, "deleted")


def test_an_edit_of_the_series_shows_in_changed_instances_but_not_over_their_changes(
    google: GoogleServer, api: Any
) -> None:
    lab = google.calendar("lab")
    series = lab.add("m", "2026-11-01T09:00", "2026-11-01T10:00", "replicas: 1", repeat=WEEKLY)
    one = lab.instance(series["id"], "2026-11-08T09:00")
    lab.edit(one, colorId="10")
    lab.edit(series["id"], description="replicas: 3")
    item = api.events().get(calendarId="lab", eventId=one).execute()
    assert (item["description"], item["colorId"]) == ("replicas: 3", "10")
    answer = api.events().instances(calendarId="lab", eventId=series["id"], maxResults=3).execute()
    assert len(answer["items"]) == 3 and "nextPageToken" in answer
    lab.cancel(series["id"])
    assert listed(api, singleEvents=True) == []
    assert {item["status"] for item in listed(api, singleEvents=True, showDeleted=True)} == {"cancelled"}


@pytest.mark.parametrize(
    ("first", "found"),
    [
        # 02:30 does not exist on 29 March: an hour later by the clock
        ("2026-03-28T02:30", ["2026-03-28T02:30:00+01:00", "2026-03-29T03:30:00+02:00"]),
        # 02:30 comes twice on 25 October: the first of the two
        ("2026-10-24T02:30", ["2026-10-24T02:30:00+02:00", "2026-10-25T02:30:00+02:00"]),
    ],
)
def test_a_series_over_a_dst_gap_and_fold(
    google: GoogleServer, api: Any, first: str, found: list[str]
) -> None:
    lab = google.calendar("lab", "Europe/Berlin")
    lab.add("m", first, first.replace("30", "45"), repeat="RRULE:FREQ=DAILY;COUNT=2")
    items = listed(api, singleEvents=True, orderBy="startTime")
    assert starts(items) == found
    api.events().delete(calendarId="lab", eventId=items[1]["id"]).execute()
    assert starts(listed(api, singleEvents=True)) == found[:1]


def test_an_all_day_series(google: GoogleServer, api: Any) -> None:
    lab = google.calendar("lab", "Europe/Berlin")
    series = lab.add("m", "2026-10-24", "2026-10-25", repeat="RRULE:FREQ=DAILY;COUNT=3")
    items = listed(api, singleEvents=True, orderBy="startTime")
    assert starts(items) == ["2026-10-24", "2026-10-25", "2026-10-26"]
    assert items[1]["id"] == f"{series['id']}_20261025"
    assert items[1]["originalStartTime"] == {"date": "2026-10-25"}


def test_patch_merges_objects_replaces_arrays_and_null_deletes(google: GoogleServer, api: Any) -> None:
    lab = google.calendar("lab")
    people = [{"email": "a@example.org"}, {"email": "b@example.org"}]
    tags = {"private": {"x": "1", "y": "2"}}
    event = lab.add(
        "m", "2026-11-22T09:00", "2026-11-22T10:00", "text", attendees=people, extendedProperties=tags
    )
    body = {"description": None, "colorId": "10", "extendedProperties": {"private": {"x": None, "z": "3"}}}
    answer = api.events().patch(calendarId="lab", eventId=event["id"], body=body).execute()
    assert "description" not in answer
    assert answer["extendedProperties"]["private"] == {"y": "2", "z": "3"} == lab.private(event["id"])
    assert (answer["summary"], answer["attendees"], answer["colorId"]) == ("m", people, "10")
    assert answer["sequence"] == 0
    moved = lab.move(event["id"], "2026-11-22T11:00", "2026-11-22T12:00")
    assert moved["sequence"] == 1
    assert lab.edit(event["id"], attendees=people[:1])["attendees"] == people[:1]


def test_update_replaces_and_insert_takes_an_id_of_ones_own(google: GoogleServer, api: Any) -> None:
    google.calendar("lab")
    times = {"start": {"date": "2026-11-22"}, "end": {"date": "2026-11-23"}}
    body = times | {"summary": "m", "description": "text", "id": "abcde12345", "unknown": 1}
    made = api.events().insert(calendarId="lab", body=body).execute()
    # dropped without a word, but noticed here
    assert google.violations.pop().endswith("no field 'unknown'")
    body.pop("unknown")
    assert (made["id"], made["creator"]) == ("abcde12345", {"email": ROBOT})
    assert reason_of(api.events().insert(calendarId="lab", body=body).execute) == (409, "duplicate")
    new = api.events().update(calendarId="lab", eventId="abcde12345", body=times | {"summary": "n"}).execute()
    assert new["summary"] == "n" and "description" not in new and new["created"] == made["created"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"end": None}, (400, "required")),
        ({"end": {"date": "2026-11-22"}}, (400, "timeRangeEmpty")),
        ({"end": {"dateTime": "2026-11-23T00:00:00Z"}}, (400, "invalid")),
        ({"start": {"date": "tomorrow"}}, (400, "invalid")),
        ({"start": {"dateTime": "2026-11-22T09:00:00"}}, (400, "required")),
        ({"recurrence": ["RRULE:FREQ=NEVER"]}, (400, "invalid")),
        ({"recurrence": ["DTSTART:20261122"]}, (400, "invalid")),
        ({"colorId": "12"}, (400, "invalid")),
        ({"summary": 5}, (400, "invalid")),
        ({"id": "UPPER"}, (400, "invalid")),
        ({"attendees": [{"email": "a@example.org"}]}, (403, "forbiddenForServiceAccounts")),
    ],
)
def test_refused_bodies(
    google: GoogleServer, api: Any, change: dict[str, Any], expected: tuple[int, str]
) -> None:
    google.calendar("lab")
    body = {"start": {"date": "2026-11-22"}, "end": {"date": "2026-11-23"}} | change
    body = {key: value for key, value in body.items() if value is not None}
    assert reason_of(api.events().insert(calendarId="lab", body=body).execute) == expected
    assert google.calendar("lab").events() == []


def test_a_write_on_a_stale_etag_is_refused(google: GoogleServer, api: Any) -> None:
    lab = google.calendar("lab")
    event = lab.add("m", "2026-11-22T09:00", "2026-11-22T10:00")
    lab.edit(event["id"], summary="by hand")
    for verb, more in (("patch", {"body": {"colorId": "10"}}), ("delete", {})):
        request = getattr(api.events(), verb)(calendarId="lab", eventId=event["id"], **more)
        request.headers["If-Match"] = event["etag"]
        assert reason_of(request.execute) == (412, "conditionNotMet")
    request.headers["If-Match"] = lab.event(event["id"])["etag"]
    assert request.execute() == ""
    assert reason_of(api.events().delete(calendarId="lab", eventId=event["id"]).execute) == (410, "deleted")
    assert api.events().get(calendarId="lab", eventId=event["id"]).execute()["status"] == "cancelled"


def test_long_keys_are_dropped_and_long_values_cut(google: GoogleServer, api: Any) -> None:
    lab = google.calendar("lab")
    event = lab.add("m", "2026-11-22T09:00", "2026-11-22T10:00")
    written = {"k" * 45: "lost", "k" * 44: "v" * 1025}
    body = {"extendedProperties": {"private": written}}
    api.events().patch(calendarId="lab", eventId=event["id"], body=body).execute()
    assert lab.private(event["id"]) == {"k" * 44: "v" * 1024}


def test_a_locked_event_takes_a_colour_but_no_text(google: GoogleServer, api: Any) -> None:
    event = google.calendar("lab").add("m", "2026-11-22T09:00", "2026-11-22T10:00", locked=True)
    patch = api.events().patch
    assert patch(calendarId="lab", eventId=event["id"], body={"colorId": "10"}).execute()["locked"] is True
    refused = patch(calendarId="lab", eventId=event["id"], body={"description": "x"})
    assert reason_of(refused.execute) == (403, "forbidden")


@pytest.mark.parametrize("role", ["none", "freeBusyReader", "reader", "writer", "owner"])
def test_what_each_role_sees_and_may_do(google: GoogleServer, api: Any, role: str) -> None:
    lab = google.calendar("lab", role=role)
    plain = lab.add("m", "2026-11-22T09:00", "2026-11-22T10:00")
    secret = lab.add("s", "2026-11-22T10:00", "2026-11-22T11:00", visibility="private")
    listing = api.events().list(calendarId="lab", orderBy="startTime", singleEvents=True)
    patch = api.events().patch(calendarId="lab", eventId=plain["id"], body={"colorId": "10"})
    if role == "none":
        for request in (listing, patch, api.calendars().get(calendarId="lab")):
            assert reason_of(request.execute) == (404, "notFound")
        return
    answer = listing.execute()
    assert answer["accessRole"] == role and [item["id"] for item in answer["items"]] == [
        plain["id"],
        secret["id"],
    ]
    seen = {"freeBusyReader": [], "reader": ["m"]}.get(role, ["m", "s"])
    assert [item["summary"] for item in answer["items"] if "summary" in item] == seen
    if role in ("writer", "owner"):
        assert patch.execute()["colorId"] == "10"
    else:
        assert reason_of(patch.execute) == (403, "requiredAccessLevel")
    assert api.calendars().get(calendarId="lab").execute()["timeZone"] == "UTC"


def test_a_shared_calendar_is_in_the_accounts_list_only_once_it_was_put_there(
    google: GoogleServer, api: Any, tmp_path: Path
) -> None:
    google.calendar("lab", "Europe/Berlin", role="reader")
    assert [entry["id"] for entry in api.calendarList().list().execute()["items"]] == [ROBOT]
    assert reason_of(api.calendarList().get(calendarId="lab").execute) == (404, "notFound")
    api.calendarList().insert(body={"id": "lab"}).execute()
    entry = api.calendarList().get(calendarId="lab").execute()
    assert (entry["accessRole"], entry["timeZone"]) == ("reader", "Europe/Berlin")
    other = google.key_file(tmp_path, "other@calendar-stand-in.iam.gserviceaccount.com")
    assert reason_of(client(google, other).events().list(calendarId="lab").execute) == (404, "notFound")
