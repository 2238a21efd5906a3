"""Answering in the calendar: one test for each sentence of `Answering`, on a server that speaks Google's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from calendars import google_events
from calendars.google import GoogleCalendar
from calendars.google_answers import MAX_DESCRIPTION_CHARACTERS
from calendars.google_events import DIGEST_PROPERTY, EVENT_PROPERTY, STATE_PROPERTY
from calendars.status_block import OPENING
from calendars.write_back import COLOURS, AnswersBack, Report, Style, render_block, with_report
from tests.calendars.google_desk import MODEL, Desk, read, say
from tests.google_server import ROBOT, CalendarHandle

NINE_TO_TEN = ("2026-03-02T09:00", "2026-03-02T10:00")
WEEKLY = "RRULE:FREQ=WEEKLY;COUNT=4"


def answering(
    desk: Desk, lab: CalendarHandle, style: Style = "colour+text", **options: Any
) -> GoogleCalendar:
    """A calendar that answers, read once."""
    source = desk.source(lab, style=style, **options)
    read(source)
    return source


def writes(desk: Desk) -> int:
    return desk.requests("PATCH")


@pytest.fixture
def lab(desk: Desk) -> CalendarHandle:
    return desk.lab()


@pytest.fixture
def event(lab: CalendarHandle) -> str:
    return str(lab.add(MODEL, *NINE_TO_TEN, "replicas: 2")["id"])


# --- what is written ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", COLOURS)
def test_colour_state_and_a_block_are_written(
    desk: Desk, lab: CalendarHandle, event: str, state: str
) -> None:
    source: AnswersBack = answering(desk, lab)
    report = say(event, state, "one line", "another: 3 < 4")
    answer = source.report([report])
    assert (answer.written, answer.waiting, answer.notices, answer.problem) == ((event,), (), (), None)
    written = lab.event(event)
    assert written["colorId"] == COLOURS[report.state]
    assert written["summary"] == MODEL
    assert written["description"] == f"replicas: 2\n\n{render_block(report)}"
    assert lab.private(event)[STATE_PROPERTY] == state
    (patch,) = desk.google.log.matching("PATCH")
    assert patch.query["sendUpdates"] == ["none"]
    assert patch.headers["if-match"]
    assert set(json.loads(patch.body)) == {"colorId", "extendedProperties", "description"}


def test_private_properties_of_others_and_of_the_person_stay(desk: Desk, lab: CalendarHandle) -> None:
    event = lab.add(MODEL, *NINE_TO_TEN, extendedProperties={"private": {"theirs": "1"}})["id"]
    answering(desk, lab).report([say(event, "scheduled")])
    assert set(lab.private(event)) == {"theirs", EVENT_PROPERTY, STATE_PROPERTY, DIGEST_PROPERTY}
    for key, value in lab.private(event).items():
        assert len(key) <= 44
        assert len(value) <= 1024


def test_with_the_style_colour_no_text_is_written(desk: Desk, lab: CalendarHandle, event: str) -> None:
    answering(desk, lab, "colour").report([say(event, "loading", "x")])
    assert lab.event(event)["description"] == "replicas: 2"
    assert lab.event(event)["colorId"] == COLOURS["loading"]


def test_with_the_style_colour_an_old_block_is_taken_out(desk: Desk, lab: CalendarHandle, event: str) -> None:
    answering(desk, lab).report([say(event, "loading", "x")])
    answering(desk, lab, "colour").report([say(event, "serving", "x")])
    assert lab.event(event)["description"] == "replicas: 2"


def test_with_the_style_off_nothing_is_written_or_noticed(
    desk: Desk, event: str, lab: CalendarHandle
) -> None:
    lab.share(ROBOT, "reader")
    answer = answering(desk, lab, "off").report([say(event, "refused", "x")])
    assert answer.model_dump() == {"written": (), "waiting": (), "notices": (), "problem": None}
    assert writes(desk) == 0


def test_a_locked_event_gets_colour_and_state_only(desk: Desk, lab: CalendarHandle) -> None:
    event = lab.add(MODEL, *NINE_TO_TEN, "replicas: 2", locked=True)["id"]
    assert answering(desk, lab).report([say(event, "serving", "x")]).written == (event,)
    assert lab.event(event)["description"] == "replicas: 2"
    assert lab.event(event)["colorId"] == COLOURS["serving"]


def test_a_description_that_would_become_too_long_is_left_alone(desk: Desk, lab: CalendarHandle) -> None:
    words = "x" * (MAX_DESCRIPTION_CHARACTERS - 20)
    event = lab.add(MODEL, *NINE_TO_TEN, words)["id"]
    answering(desk, lab).report([say(event, "serving", "x")])
    assert lab.event(event)["description"] == words
    assert lab.event(event)["colorId"] == COLOURS["serving"]


@pytest.mark.parametrize("words", ["", "tail \n", "a<br>b", "<p>x &amp; y</p>", "a\r\nb\r", "🎉 „x“"])
def test_the_persons_own_words_stay_byte_for_byte(desk: Desk, lab: CalendarHandle, words: str) -> None:
    event = lab.add("gpt2", *NINE_TO_TEN, words)["id"]
    source = answering(desk, lab)
    before = read(source)
    for state in ("scheduled", "loading", "serving", "ended"):
        source.report([say(event, state, state * 2)])
        assert lab.event(event)["description"].startswith(words)
        assert lab.event(event)["description"].count(OPENING) == 1
        assert read(source) == before


def test_a_misunderstood_event_is_answered_too(desk: Desk, lab: CalendarHandle) -> None:
    event = lab.add("Team lunch", *NINE_TO_TEN)["id"]
    answering(desk, lab).report([say(event, "refused", "write `model: gpt2` into the description")])
    assert "model: gpt2" in lab.event(event)["description"]
    assert len(read(desk.source(lab)).misunderstood) == 1


# --- when ------------------------------------------------------------------------------------------------


def test_a_state_is_written_once(desk: Desk, lab: CalendarHandle, event: str) -> None:
    source = answering(desk, lab)
    for _ in range(3):
        source.report([say(event, "scheduled", "x")])
        read(source)
    assert writes(desk) == 1
    answer = source.report([say(event, "loading", "x")])
    assert answer.written == (event,)
    assert source.report([say(event, "loading", "x")]).written == ()
    assert writes(desk) == 2


def test_several_states_between_two_readings_are_each_written(
    desk: Desk, lab: CalendarHandle, event: str
) -> None:
    source = answering(desk, lab)
    for state in ("scheduled", "loading", "serving"):
        assert source.report([say(event, state)]).written == (event,)
    assert lab.private(event)[STATE_PROPERTY] == "serving"


def test_another_reason_for_the_same_state_is_written(desk: Desk, lab: CalendarHandle, event: str) -> None:
    source = answering(desk, lab)
    source.report([say(event, "refused", "needs 4 GPUs")])
    assert source.report([say(event, "refused", "needs 8 GPUs")]).written == (event,)
    assert "8 GPUs" in lab.event(event)["description"]
    assert "4 GPUs" not in lab.event(event)["description"]


def test_a_restart_writes_nothing_twice(desk: Desk, lab: CalendarHandle, event: str) -> None:
    answering(desk, lab).report([say(event, "serving", "x")])
    assert answering(desk, lab).report([say(event, "serving", "x")]).written == ()
    assert writes(desk) == 1


def test_a_copied_event_does_not_keep_the_answer_to_its_original(
    desk: Desk, lab: CalendarHandle, event: str
) -> None:
    answering(desk, lab).report([say(event, "serving", "x")])
    original = lab.event(event)
    copied = lab.add(
        MODEL,
        "2026-03-05T09:00",
        "2026-03-05T10:00",
        original["description"],
        extendedProperties=original["extendedProperties"],
    )["id"]
    assert answering(desk, lab).report([say(copied, "serving", "x")]).written == (copied,)


def test_our_own_write_is_not_seen_as_a_change(
    desk: Desk, lab: CalendarHandle, event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = answering(desk, lab)
    before = read(source)
    source.report([say(event, "serving", "x")])
    monkeypatch.setattr(google_events, "parse_event", lambda *text: pytest.fail(f"parsed {text}"))
    assert read(source) == before


def test_instances_are_written_to_only_when_refused_or_answered_already(
    desk: Desk, lab: CalendarHandle
) -> None:
    series = lab.add(MODEL, "2026-03-03T09:00", "2026-03-03T10:00", repeat=WEEKLY)["id"]
    source = answering(desk, lab)
    first, second, *_ = [one.key for one in read(source).reservations]
    assert source.report([say(first, "scheduled"), say(second, "serving")]).written == ()
    assert source.report([say(first, "scheduled"), say(second, "refused", "x")]).written == (second,)
    assert source.report([say(first, "scheduled"), say(second, "scheduled")]).written == (second,)
    assert lab.event(lab.instance(series, "2026-03-03T09:00")).get("colorId") is None
    read(source)
    assert source.report([say(first, "scheduled"), say(second, "scheduled")]).written == ()


def test_an_event_that_became_a_series_does_not_get_each_instance_written_to(
    desk: Desk, lab: CalendarHandle, event: str
) -> None:
    source = answering(desk, lab)
    source.report([say(event, "scheduled", "x")])
    lab.edit(event, recurrence=[WEEKLY])
    instances = [one.key for one in read(source).reservations]
    assert len(instances) == 4
    assert source.report([say(key, "scheduled", "x") for key in instances]).written == ()
    assert source.report([say(key, "refused", "x") for key in instances[:1]]).written == (instances[0],)


def test_the_first_instance_of_a_misunderstood_series_is_answered(desk: Desk, lab: CalendarHandle) -> None:
    series = lab.add("Team lunch", "2026-03-03T09:00", "2026-03-03T10:00", repeat=WEEKLY)["id"]
    source = answering(desk, lab)
    (verdict,) = read(source).misunderstood
    assert source.report([say(verdict.key, "refused", "x")]).written == (verdict.key,)
    assert "x" in lab.event(lab.instance(series, "2026-03-03T09:00"))["description"]
    assert [one.key for one in read(source).misunderstood] == [verdict.key]
    assert source.report([say(verdict.key, "refused", "x")]).written == ()


def test_an_event_that_changed_since_is_left_alone_until_the_next_reading(
    desk: Desk, lab: CalendarHandle, event: str
) -> None:
    source = answering(desk, lab)
    lab.edit(event, description="replicas: 3")
    for _ in range(2):
        answer = source.report([say(event, "scheduled")])
        assert (answer.written, answer.waiting, answer.problem) == ((), (event,), None)
    assert lab.event(event)["description"] == "replicas: 3"
    assert writes(desk) == 1, "it is not tried again before it has been read"
    read(source)
    assert source.report([say(event, "scheduled")]).written == (event,)
    assert lab.event(event)["description"].startswith("replicas: 3\n\n[")


@pytest.mark.parametrize("fault", ["drop_after", "truncated", "error:backendError", "empty", "drop_before"])
def test_after_a_lost_answer_nothing_is_written_twice(
    desk: Desk, lab: CalendarHandle, event: str, fault: str
) -> None:
    source = answering(desk, lab)
    desk.google.faults.add(fault, times=2, method="PATCH")
    report = say(event, "serving", "x")
    source.report([report])
    read(source)
    source.report([report])
    assert lab.event(event)["description"] == with_report("replicas: 2", report)
    done = [one for one in desk.google.log.matching("PATCH") if one.status == 200]
    arrived = 1 if fault in ("drop_after", "truncated") else 0
    assert len(done) <= 1 or arrived == 0
    before = lab.event(event)["etag"]
    read(source)
    assert source.report([report]).written == ()
    assert lab.event(event)["etag"] == before


def test_a_write_whose_answer_never_comes_is_given_up_and_not_repeated(
    desk: Desk, lab: CalendarHandle, event: str
) -> None:
    source = answering(desk, lab, deadline_seconds=0.6)
    other = lab.add("good/model", "2026-03-03T09:00", "2026-03-03T10:00")["id"]
    read(source)
    hung = desk.google.faults.add("hang", times=None, method="PATCH")
    answer = source.report([say(event, "serving"), say(other, "serving")])
    assert hung.reached.is_set()
    assert answer.problem is not None and "no answer" in answer.problem.reason
    assert answer.waiting == tuple(sorted((event, other)))
    desk.google.faults.clear()
    read(source)
    answer = source.report([say(event, "serving"), say(other, "serving")])
    assert set(answer.written) == {event, other}, answer


def test_ended_events_are_told_for_an_hour(desk: Desk, lab: CalendarHandle, event: str) -> None:
    source = answering(desk, lab)
    reading = read(source, ("2026-03-02 10:05", "2026-04-01"))
    assert reading.reservations == ()
    assert source.report([say(event, "ended")]).written == (event,)
    assert lab.event(event)["colorId"] == COLOURS["ended"]
    read(source, ("2026-03-02 11:05", "2026-04-01"))
    assert source.report([say(event, "scheduled")]).written == ()


def test_what_is_not_in_the_calendar_is_not_written_to(desk: Desk, lab: CalendarHandle, event: str) -> None:
    source = answering(desk, lab)
    assert source.report([say("elsewhere", "serving")]).model_dump(exclude_defaults=True) == {}
    lab.cancel(event)
    read(source)
    assert source.report([say(event, "ended")]).written == ()
    assert writes(desk) == 0


def test_an_event_that_was_deleted_since_is_forgotten(desk: Desk, lab: CalendarHandle, event: str) -> None:
    source = answering(desk, lab)
    desk.google.faults.add("error:deleted", method="PATCH")
    assert source.report([say(event, "serving")]).model_dump(exclude_defaults=True) == {}
    source.report([say(event, "serving")])
    assert writes(desk) == 1


def test_urgent_answers_go_first_and_the_rest_waits(desk: Desk, lab: CalendarHandle) -> None:
    states = ("ended", "scheduled", "loading", "serving", "refused")
    reports: list[Report] = [
        say(lab.add("a/b", f"2026-03-02T{n:02}:00", f"2026-03-02T{n:02}:30")["id"], state)
        for n, state in enumerate(states, start=10)
    ]
    source = answering(desk, lab, writes_per_report=2)
    by_key = {report.key: report.state for report in reports}
    written = [[by_key[key] for key in source.report(reports).written] for _ in range(4)]
    assert written == [["refused", "serving"], ["loading", "scheduled"], ["ended"], []]


# --- what cannot be written --------------------------------------------------------------------------------


def test_a_calendar_that_may_only_be_read_is_said_once_and_works_without(
    desk: Desk, lab: CalendarHandle, event: str
) -> None:
    lab.share(ROBOT, "reader")
    source = answering(desk, lab)
    answer = source.report([say(event, "serving")])
    (notice,) = answer.notices
    assert ROBOT in notice.reason and "reader" in notice.reason
    assert "Make changes to events" in notice.remedy
    for _ in range(2):
        assert len(read(source).reservations) == 1
        assert source.report([say(event, "serving")]).model_dump(exclude_defaults=True) == {}
    assert writes(desk) == 0
    lab.share(ROBOT, "writer")
    read(source)
    assert source.report([say(event, "serving")]).written == (event,)
    lab.share(ROBOT, "reader")
    read(source)
    assert len(source.report([say(event, "ended")]).notices) == 1, "lost again, said again"


@pytest.mark.parametrize("fault", ["error:requiredAccessLevel", "error:forbidden"])
def test_a_refusal_to_be_written_to_is_said_once(
    desk: Desk, lab: CalendarHandle, event: str, fault: str
) -> None:
    source = answering(desk, lab)
    desk.google.faults.add(fault, times=None, method="PATCH")
    assert len(source.report([say(event, "serving")]).notices) == 1
    read(source)
    assert source.report([say(event, "serving")]).model_dump(exclude_defaults=True) == {}
    assert writes(desk) == 1


def test_an_event_that_may_not_be_changed_is_said_once_and_tried_when_it_has_changed(
    desk: Desk, lab: CalendarHandle, event: str
) -> None:
    other = lab.add("good/model", "2026-03-03T09:00", "2026-03-03T10:00")["id"]
    source = answering(desk, lab)
    desk.google.faults.add("error:badRequest", times=1, method="PATCH", path=event)
    answer = source.report([say(event, "serving"), say(other, "serving")])
    assert answer.written == (other,)
    (notice,) = answer.notices
    assert event in notice.reason
    read(source)
    assert source.report([say(event, "serving")]).model_dump(exclude_defaults=True) == {}
    lab.edit(event, description="replicas: 3")
    read(source)
    assert source.report([say(event, "serving")]).written == (event,)


@pytest.mark.parametrize(
    "fault", ["error:quotaExceeded", "error:rateLimitExceeded", "html", "error:authError"]
)
def test_other_trouble_ends_the_report_and_the_rest_waits(
    desk: Desk, lab: CalendarHandle, event: str, fault: str
) -> None:
    other = lab.add("good/model", "2026-03-03T09:00", "2026-03-03T10:00")["id"]
    source = answering(desk, lab)
    desk.google.faults.add(fault, times=None, method="PATCH")
    reports = [say(event, "serving"), say(other, "serving")]
    answer = source.report(reports)
    assert answer.problem is not None
    assert answer.waiting == tuple(sorted((event, other)))
    assert len({one.path for one in desk.google.log.matching("PATCH")}) == 1, "the second is not tried"
    desk.google.faults.clear()
    read(source)
    assert set(source.report(reports).written) == {event, other}


def test_reporting_before_reading_writes_nothing(desk: Desk, lab: CalendarHandle, event: str) -> None:
    assert desk.source(lab, style="colour").report([say(event, "serving")]).written == ()
    assert desk.google.log.requests == []
