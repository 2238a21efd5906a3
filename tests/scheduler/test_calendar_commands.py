"""``ndif-ray calendar``: the commands, on a stand-in for Google and on .ics files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from scheduler import calendar_commands, calendar_desk
from scheduler.errors import OperatorError
from tests.google_server import ROBOT, CalendarHandle, GoogleServer
from tests.scheduler.calendar_cli import Run, hours

# --- book, list, cancel ----------------------------------------------------------------------------------


def test_what_is_booked_is_listed_and_gone_when_cancelled(run: Run, any_calendar: str) -> None:
    booked = run(
        *("book", "org/small", "--from", "+1h", "--to", "+2h", "--replicas", "2", "--dtype", "float16"),
        *("--gpus", "1", "--priority", "5", "--revision", "v1", "--task", "text-generation"),
        *("--trust-remote-code", "--private", "--title", "Reading group, room 5", "--json"),
    )
    assert booked.code == 0, booked.err
    listed = run("list", "--json").json
    assert listed["problems"] == listed["misunderstood"] == []
    (one,) = listed["bookings"]
    assert one["key"] == booked.json["key"]
    assert one["title"] == "Reading group, room 5"
    assert one["request"] == {
        "model": "org/small",
        "revision": "v1",
        "task": "text-generation",
        "trust_remote_code": True,
        "replicas": 2,
        "dtype": "float16",
        "gpus": 1,
        "accelerator": None,
        "priority": 5,
        "private": True,
    }
    start, end = (datetime.fromisoformat(one[side]) for side in ("start", "end"))
    assert end - start == timedelta(hours=2)
    assert abs(start - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)
    gone = run("cancel", one["key"], "--json")
    assert gone.json == {"cancelled": one["key"], "calendar": one["calendar"], "scope": "event"}
    assert run("list", "--json").json["bookings"] == []
    again = run("cancel", one["key"])
    assert again.code == 1
    assert "No booking" in again.err


def test_the_list_is_in_local_time(run: Run, lab: CalendarHandle) -> None:
    start = hours(24).replace(hour=12, minute=0, second=0)
    lab.add("org/small", start, start + timedelta(hours=1), "replicas: 2")
    lab.add("Oops", start, start + timedelta(hours=1), "replicas: many")
    listed = run("list")
    local = start.astimezone()
    assert local.utcoffset() in (timedelta(hours=1), timedelta(hours=2))
    assert f"{local:%H:%M} to {local + timedelta(hours=1):%H:%M}" in listed.out
    assert "2 replicas" in listed.out
    assert "?? “Oops”" in listed.out
    assert listed.code == 0


def test_the_window_of_the_list_can_be_chosen(run: Run, lab: CalendarHandle) -> None:
    lab.add("org/small", hours(24 * 20), hours(24 * 20 + 1))
    assert "Nothing is booked until" in run("list").out
    assert len(run("list", "--days", "30", "--json").json["bookings"]) == 1


def test_a_calendar_that_cannot_be_read_is_no_empty_one(
    run: Run, google: GoogleServer, lab: CalendarHandle
) -> None:
    google.faults.add("error:quotaExceeded", None)
    listed = run("list")
    assert (listed.code, listed.out) == (1, "")
    assert "quota" in listed.err
    assert run("list", "--json").json["problems"][0]["calendar"] == lab.id


def test_a_booking_in_google_is_made_once_though_its_answer_is_lost(
    run: Run, google: GoogleServer, lab: CalendarHandle
) -> None:
    google.faults.add("drop_after", method="POST", path="/events")
    assert run("book", "org/small", "--from", "+1h", "--to", "+1h").code == 0
    (made,) = lab.events()
    assert made["status"] == "confirmed"
    assert google.log.matching("POST", "/events")[0].query.get("sendUpdates") == ["none"]


@pytest.mark.parametrize("fault", ["truncated", "error:backendError", "drop_before"])
def test_a_booking_in_google_is_made_though_it_fails_at_first(
    fault: str, run: Run, google: GoogleServer, lab: CalendarHandle
) -> None:
    google.faults.add(fault, method="POST", path="/events")
    assert run("book", "org/small", "--from", "+1h", "--to", "+1h").code == 0
    assert len(lab.events()) == 1


@pytest.mark.parametrize("fault", ["drop_after", "drop_before", "empty", "error:backendError"])
def test_a_cancellation_in_google_arrives_though_its_answer_is_lost(
    fault: str, run: Run, google: GoogleServer, lab: CalendarHandle
) -> None:
    lab.add("org/small", hours(1), hours(2))
    google.faults.add(fault, method="DELETE")
    assert run("cancel", "org/small").code == 0
    assert [one["status"] for one in lab.events()] == ["cancelled"]


def test_when_no_answer_comes_nobody_knows_and_that_is_said(
    run: Run, google: GoogleServer, lab: CalendarHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NDIF_CALENDAR__TIMEOUT_SECONDS", "0.3")
    google.faults.add("drop_before", None, method="POST", path="/events")
    booked = run("book", "org/small", "--from", "+1h", "--to", "+1h")
    assert booked.code == 1
    assert "Whether it arrived is not known" in " ".join(booked.err.split())


def test_a_calendar_that_may_only_be_read_takes_no_booking(
    run: Run, google: GoogleServer, lab: CalendarHandle
) -> None:
    lab.share(ROBOT, "reader")
    booked = run("book", "org/small", "--from", "+1h", "--to", "+1h")
    assert booked.code == 1
    assert "Make changes to events" in " ".join(booked.err.split())
    assert lab.events() == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bad name", "--from", "+1h", "--to", "+1h"], "bad name"),
        (["org/small", "--from", "soon", "--to", "+1h"], "is not a time"),
        (["org/small", "--from", "tomorrow 14:00", "--to", "13:00"], "not after"),
        (["org/small", "--from", "2020-01-01T10:00", "--to", "+1h"], "over already"),
        (["org/small", "--from", "+1h", "--to", "+400d"], "at most 366 days"),
        (["org/small", "--from", "+1h", "--to", "+1h", "--replicas", "0"], "--replicas"),
        (["org/small", "--from", "+1h", "--to", "+1h", "--task", "a b"], "cannot be written"),
        (["org/small", "--from", "+1h", "--to", "+1h", "--revision", ""], "--revision is ''"),
        (["org/small", "--from", "+1h", "--to", "+1h", "--title", "x" * 1001], "The title"),
        (["org/small", "--from", "+1h", "--to", "+1h", "--calendar", "other"], "no calendar other"),
        (["org/small", "--from", "+1h"], "--to"),
        (["Smal", "--from", "+1h", "--to", "+1h"], "Did you mean Small?"),
    ],
)
def test_what_cannot_be_booked_is_said_and_not_booked(
    arguments: list[str], says: str, run: Run, home: Path
) -> None:
    booked = run("book", *arguments)
    assert booked.code == 1
    assert says in " ".join(booked.err.split())
    assert not (home / "calendar.ics").exists()


def test_with_several_calendars_one_has_to_be_chosen(
    run: Run, google: GoogleServer, lab: CalendarHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = google.calendar()
    monkeypatch.setenv("SCHEDULING_GOOGLE_CALENDAR_ID", f"{lab.id},{other.id}")
    undecided = run("book", "org/small", "--from", "+1h", "--to", "+1h")
    assert undecided.code == 1
    assert other.id in undecided.err.replace("\n", "")
    assert run("book", "org/small", "--from", "+1h", "--to", "+1h", "--calendar", other.id).code == 0
    assert (len(lab.events()), len(other.events())) == (0, 1)


def test_times_have_the_offset_of_their_day_and_ends_go_by_the_start(home: Path) -> None:
    winter, summer = datetime(2026, 3, 27, 11, tzinfo=UTC), "2026-03-30T14:00"
    start, end = calendar_desk.window(summer, "16:30", winter)
    assert (start.astimezone(UTC).hour, end - start) == (12, timedelta(hours=2, minutes=30))
    assert calendar_desk.window("tomorrow 9:00", "+90m", winter)[1].astimezone(UTC).hour == 9
    assert calendar_desk.window("+1h", "tomorrow 9:00", winter)[0] == winter + timedelta(hours=1)
    given = calendar_desk.window("2026-03-30T14:00+05:00", "2026-03-30T18:00Z", winter)
    assert [one.astimezone(UTC).hour for one in given] == [9, 18]
    with pytest.raises(OperatorError, match="not after"):
        calendar_desk.window("2026-03-30T14:00", "2026-03-30T14:00", winter)


@pytest.mark.parametrize(
    "model",
    [
        "https://huggingface.co/org/small",
        'nnsight.modeling.transformers.TransformersModel:{"repo_id": "org/small"}',
    ],
)
def test_a_model_can_be_named_by_its_address_or_its_key(model: str) -> None:
    assert calendar_desk.named_model(model).model == "org/small"


# --- cancelling: what is meant ---------------------------------------------------------------------------


def test_a_title_names_a_booking_where_only_one_has_it(run: Run, lab: CalendarHandle) -> None:
    first = lab.add("Seminar", hours(1), hours(2), "model: org/small")
    lab.add("seminar", hours(3), hours(4), "model: org/small")
    lab.add("Tutorial", hours(5), hours(6), "model: org/huge")
    both = run("cancel", "Seminar")
    assert both.code == 1
    assert "names 2 bookings" in both.err
    assert f"{lab.id}/{first['id']}" in both.err.replace("\n", "")
    missed = run("cancel", "Tutorail")
    assert missed.code == 1
    assert "Tutorial" in missed.err
    assert run("cancel", "org/huge").code == 0
    assert run("cancel", first["id"]).code == 0, "the key without its calendar"
    assert [one["status"] for one in lab.events()] == ["cancelled", "confirmed", "cancelled"]


def test_one_of_a_series_or_all_of_it_can_be_cancelled_in_google(run: Run, lab: CalendarHandle) -> None:
    series = lab.add("org/small", hours(1), hours(2), repeat="RRULE:FREQ=DAILY;COUNT=4")
    keys = [one["key"] for one in run("list", "--json").json["bookings"]]
    assert run("cancel", keys[1], "--json").json["scope"] == "instance"
    assert [one["key"] for one in run("list", "--json").json["bookings"]] == [keys[0], *keys[2:]]
    assert run("cancel", series["id"], "--json").json["scope"] == "series"
    assert run("list", "--json").json["bookings"] == []


def test_the_verdict_on_a_series_stands_for_all_of_it(run: Run, lab: CalendarHandle) -> None:
    lab.add("Lunch with everybody", hours(1), hours(2), repeat="RRULE:FREQ=DAILY;COUNT=4")
    (wrong,) = run("list", "--json").json["misunderstood"]
    assert run("cancel", wrong["key"], "--json").json["scope"] == "series"
    assert run("list", "--json").json["misunderstood"] == []


def test_on_a_terminal_it_is_asked_first(
    run: Run, lab: CalendarHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.add("org/small", hours(1), hours(2))
    asked: list[str] = []

    def no(question: str, **_: object) -> None:
        asked.append(question)
        raise click.Abort

    monkeypatch.setattr(calendar_commands, "_asks", lambda: True)
    monkeypatch.setattr(click, "confirm", no)
    assert run("cancel", "org/small").code == 130
    assert "org/small" in asked[0]
    assert lab.events()[0]["status"] == "confirmed"
    assert run("cancel", "org/small", "--yes").code == 0
    assert len(asked) == 1


# --- check -----------------------------------------------------------------------------------------------


def test_check_says_of_each_event_whether_it_can_be_met(run: Run, lab: CalendarHandle, ray: None) -> None:
    lab.add("Small", hours(-0.1), hours(1))
    assert run("check").code == 0
    lab.add("Huge", hours(2), hours(3))
    lab.add("Small", hours(4), hours(5), "replicas: lots")
    checked = run("check")
    assert checked.code == 3
    assert "ok" in checked.out
    assert "on node-1" in checked.out
    assert "no " in checked.out
    assert "cannot be met: it needs" in checked.out
    assert "not understood" in checked.out
    assert "For example:" in checked.out
    states = [one["verdict"]["state"] for one in run("check", "--json").json["events"] if one["understood"]]
    assert states == ["placed", "refused"]


def test_without_ray_check_says_what_was_understood(run: Run, lab: CalendarHandle) -> None:
    lab.add("Huge", hours(2), hours(3))
    checked = run("check")
    assert checked.code == 0
    assert "does not answer" in checked.out
    assert "--  " in checked.out
    lab.add("Smal", hours(2), hours(3))
    guessed = run("check")
    assert guessed.code == 3
    assert "Did you mean Small?" in guessed.out
    assert run("check", "--json").json["planned"] is False


def test_check_fails_where_a_calendar_cannot_be_read(
    run: Run, google: GoogleServer, lab: CalendarHandle
) -> None:
    google.faults.add("error:notFound", None, path="/events")
    checked = run("check")
    assert checked.code == 1
    assert "Nothing is booked" not in checked.out
    assert ROBOT in checked.err.replace("\n", "")


def test_booking_tells_what_planning_says(run: Run, any_calendar: str, ray: None) -> None:
    good = run("book", "Small", "--from", "+1h", "--to", "+1h")
    assert (good.code, "Booked in" in good.out, "ok  " in good.out) == (0, True, True)
    bad = run("book", "Huge", "--from", "+1h", "--to", "+1h", "--json")
    assert bad.code == 3
    assert bad.json["verdict"]["state"] == "refused"
    assert bad.json["verdict"]["words"].startswith("it needs")
    far = run("book", "Small", "--from", "+30d", "--to", "+1h", "--json")
    assert (far.code, far.json["verdict"]) == (0, None)
    assert "horizon" in far.json["note"]
