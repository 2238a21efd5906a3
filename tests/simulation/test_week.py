"""A scripted week of edits in a shared calendar: what runs at each step, and what each event says at the end.

The cluster has three GPUs of 80 GiB on two nodes; what the models take is in ``harness.MODELS``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from calendars.write_back import COLOURS
from tests.simulation.harness import World, world

WHOLE_LIFE = ["scheduled", "loading", "serving", "ended"]
PASTED = (
    '<p>Hi all,</p><br>model:&nbsp;<a href="http://lab/llama">lab/llama</a><br>'
    "<html-blob><u></u><span>replicas: 1</span></html-blob>&nbsp;<br>it’s the “usual” room &amp; time"
)


@dataclass
class People:
    """Those who book. They remember their own words, and what they expect to be told."""

    lab: World
    words: dict[str, tuple[str, str]] = field(default_factory=dict)
    expected: dict[str, list[str]] = field(default_factory=dict)

    def book(self, title: str, start: str, end: str, words: str = "", *told: str, **options: Any) -> str:
        """An event, and the states that will be written into it: its whole life where none are named."""
        event = self.lab.calendar.add(title, start, end, words or None, **options)
        event_id = str(event["id"])
        self.words[event_id] = (title, words)
        self.expected[event_id] = list(told) or WHOLE_LIFE
        return event_id

    def series(self, title: str, start: str, end: str, repeat: str) -> str:
        """A series, into which nothing is written while nothing is wrong with it."""
        event_id = self.book(title, start, end, repeat=repeat)
        self.expected[event_id] = []
        return event_id

    def runs(self, when: str, *models: str) -> None:
        """Let time pass; then exactly these answer."""
        self.lab.run_until(when)
        assert self.lab.serving() == set(models), (when, self.lab.models())

    def told(self, event_id: str, state: str) -> None:
        """The calendar says this about an event, in colour and in words."""
        event = self.lab.calendar.event(event_id)
        assert self.lab.state(event_id) == state, (event["summary"], self.lab.writes(event_id))
        assert event["colorId"] == COLOURS[state]  # type: ignore[index]
        assert f"\n| {state}\n" in event["description"].replace("<br>", "\n")


@pytest.fixture
def people(tmp_path: Path) -> Iterator[People]:
    with world(
        tmp_path, "2026-03-23T08:00", poll_seconds=1800, load_seconds=8, warn_before_end_minutes=0
    ) as lab:
        lab.google.knobs.check_answers = True
        yield People(lab)
        assert lab.google.violations == []
        assert lab.faults_of_the_loop() == []


def replicas(lab: World) -> set[int]:
    """Numbers of the model replicas there are: a model that was not restarted kept its own."""
    return {one.number for app in lab.ray.serve.apps.values() for one in app.replicas if one.needs.node}


def monday(people: People) -> None:
    """Booked, moved, extended while it runs, shortened while it runs."""
    lab = people.lab
    extended = people.book("phi", "2026-03-23T10:00", "2026-03-23T12:00", "for the seminar\n")
    moved = people.book("llama", "2026-03-23T16:00", "2026-03-23T18:00", by="bob@example.org")
    lab.poll()
    people.told(extended, "scheduled")
    people.told(moved, "scheduled")
    people.runs("2026-03-23T09:50")
    people.runs("2026-03-23T10:00", "phi")
    people.told(extended, "serving")
    first = replicas(lab)
    people.runs("2026-03-23T11:00", "phi")
    lab.calendar.move(extended, "2026-03-23T10:00", "2026-03-23T14:00")
    people.runs("2026-03-23T13:59:59", "phi")
    assert replicas(lab) == first
    people.runs("2026-03-23T14:00:01")
    people.told(extended, "ended")
    lab.calendar.move(moved, "2026-03-23T17:00", "2026-03-23T19:00")
    people.runs("2026-03-23T16:30")
    people.told(moved, "scheduled")
    people.runs("2026-03-23T17:00", "llama")
    people.runs("2026-03-23T17:50", "llama")
    lab.calendar.move(moved, "2026-03-23T17:00", "2026-03-23T18:20")
    people.runs("2026-03-23T18:19:59", "llama")
    people.runs("2026-03-23T18:20:01")
    people.told(moved, "ended")


def tuesday(people: People) -> None:
    """A series of which one is cancelled, two people on one model, and back to back."""
    lab = people.lab
    daily = people.series("mistral", "2026-03-24T09:00", "2026-03-24T10:00", "RRULE:FREQ=DAILY;COUNT=7")
    lab.calendar.cancel(lab.calendar.instance(daily, "2026-03-25T09:00"))
    people.book("phi", "2026-03-24T11:00", "2026-03-24T13:00", "Ada's")
    # the model runs already when this booking nears: there is nothing to load
    people.book("phi", "2026-03-24T12:00", "2026-03-24T14:00", "Bob's", "scheduled", "serving", "ended")
    people.book("llama", "2026-03-24T15:00", "2026-03-24T16:00")
    people.book("llama", "2026-03-24T16:00", "2026-03-24T17:00", "", "scheduled", "serving", "ended")
    people.runs("2026-03-24T09:00", "mistral")
    people.runs("2026-03-24T10:00:01")
    people.runs("2026-03-24T11:00", "phi")
    shared = replicas(lab)
    for when in ("2026-03-24T12:30", "2026-03-24T13:00:01", "2026-03-24T13:59:59"):
        people.runs(when, "phi")
        assert replicas(lab) == shared
    people.runs("2026-03-24T14:00:01")
    people.runs("2026-03-24T15:00", "llama")
    adjacent = replicas(lab)
    for when in ("2026-03-24T15:59:59", "2026-03-24T16:00", "2026-03-24T16:00:01", "2026-03-24T16:59:59"):
        people.runs(when, "llama")
        assert replicas(lab) == adjacent
    people.runs("2026-03-24T17:00:01")


def wednesday(people: People) -> None:
    """Overlapping, what cannot fit, what nobody understands, and what was pasted from a web page."""
    lab = people.lab
    people.runs("2026-03-25T09:30")
    giant = people.book("giant", "2026-03-25T13:00", "2026-03-25T15:00", "please", "refused", "ended")
    lunch = people.book("Lunch with the team", "2026-03-25T12:00", "2026-03-25T13:00", "", "refused")
    people.book("phi", "2026-03-25T13:00", "2026-03-25T15:00")
    people.book("qwen", "2026-03-25T14:00", "2026-03-25T16:00", "priority: 1\n\n")
    pasted = people.book("Reading group", "2026-03-25T17:00", "2026-03-25T18:00", PASTED)
    lab.poll()
    people.told(giant, "refused")
    assert "1035.5 GiB" in lab.calendar.event(giant)["description"]
    people.told(lunch, "refused")
    assert "model: " in lab.calendar.event(lunch)["description"]
    people.told(pasted, "scheduled")
    people.runs("2026-03-25T13:00", "phi")
    people.runs("2026-03-25T14:00", "phi", "qwen")
    people.runs("2026-03-25T15:00:01", "qwen")
    people.runs("2026-03-25T16:00:01")
    people.runs("2026-03-25T17:00", "llama")
    people.told(pasted, "serving")
    people.runs("2026-03-25T18:00:01")


def thursday(people: People) -> None:
    """Three GPUs are full for an hour; whoever booked later waits, is told so, and gets room as they end."""
    lab = people.lab
    people.book("qwen", "2026-03-26T11:00", "2026-03-26T12:00", "replicas: 3")
    lab.clock.advance(seconds=60)
    waits = people.book(
        *("llama", "2026-03-26T11:00", "2026-03-26T13:00", "", "refused"),
        *("loading", "serving", "ended"),
    )
    people.runs("2026-03-26T09:00", "mistral")
    people.runs("2026-03-26T11:00:01", "qwen")
    people.told(waits, "refused")
    assert "qwen" in lab.calendar.event(waits)["description"]
    people.runs("2026-03-26T12:00:01")
    people.told(waits, "loading")
    people.runs("2026-03-26T12:01", "llama")
    people.told(waits, "serving")
    people.runs("2026-03-26T13:00:01")


def friday(people: People) -> None:
    """Deleted while it runs; a person rewrites the text while it runs, and the answer stays where it is."""
    lab = people.lab
    deleted = people.book("phi", "2026-03-27T11:00", "2026-03-27T13:00")
    # the answer is in its place and true: nothing is written for a change of words
    edited = people.book("mistral", "2026-03-27T11:00", "2026-03-27T12:00", "old words")
    people.runs("2026-03-27T11:20", "phi", "mistral")
    lab.calendar.cancel(deleted)
    people.expected[deleted] = ["scheduled", "loading", "serving"]
    description = lab.calendar.event(edited)["description"]
    lab.calendar.edit(edited, description=description.replace("old words", "new words\n\n"))
    people.words[edited] = ("mistral", "new words\n\n")
    people.runs("2026-03-27T11:30:01", "mistral")
    people.runs("2026-03-27T12:00:01")


def weekend(people: People) -> None:
    """The clocks go forward on Sunday at 2: dragged over it, a series through it, an event across it."""
    lab = people.lab
    lab.poll_seconds = 7200  # nobody edits anything for hours
    dragged = people.book("llama", "2026-03-28T14:00", "2026-03-28T16:00")
    people.book("phi", "2026-03-29T01:30", "2026-03-29T03:30", "an hour, not two")
    people.book("qwen", "2026-03-29", "2026-03-30", "all day, which has 23 hours")
    people.runs("2026-03-28T09:00+01:00", "mistral")
    lab.calendar.move(dragged, "2026-03-30T14:00", "2026-03-30T16:00")
    people.runs("2026-03-28T15:00")
    people.runs("2026-03-28T23:00+00:00", "qwen")
    people.runs("2026-03-29T00:30+00:00", "qwen", "phi")
    people.runs("2026-03-29T01:29:59+00:00", "qwen", "phi")
    people.runs("2026-03-29T01:30:01+00:00", "qwen")
    people.runs("2026-03-29T07:00+00:00", "qwen", "mistral")
    people.runs("2026-03-29T21:59:59+00:00", "qwen")
    people.runs("2026-03-29T22:00:01+00:00")
    people.runs("2026-03-30T07:00+00:00", "mistral")
    people.runs("2026-03-30T11:56:00+00:00")
    people.runs("2026-03-30T12:00:00+00:00", "llama")
    people.runs("2026-03-30T14:00:01+00:00")


def check_calendar(people: People) -> None:
    """Every event has been told each change once, shows the last one, and has its owner's own words."""
    lab = people.lab
    written = {event_id: lab.writes(event_id) for event_id in people.expected}
    assert written == people.expected
    assert len(lab.writes()) == sum(map(len, people.expected.values()))
    for event_id, (title, words) in people.words.items():
        event = lab.calendar.event(event_id)
        if event["status"] == "cancelled":
            continue
        assert event["summary"] == title
        if not people.expected[event_id]:
            assert not {"colorId", "description", "extendedProperties"} & set(event)
            continue
        people.told(event_id, people.expected[event_id][-1])
        description = event["description"]
        assert description.startswith(words)
        block = description[len(words) :].removeprefix("<br><br>" if "<p>" in words else "\n\n" * bool(words))
        assert block.startswith("[booking status, kept up to date by ndif-ray]")
        assert block.endswith("[end of booking status]")


def test_a_week_of_edits(people: People) -> None:
    for day in (monday, tuesday, wednesday, thursday, friday, weekend):
        day(people)
    people.lab.poll()
    check_calendar(people)
    patches = people.lab.google.log.matching("PATCH")
    assert all(request.query["sendUpdates"] == ["none"] for request in patches)
    assert all("if-match" in request.headers for request in patches)


def test_the_clocks_go_back(tmp_path: Path) -> None:
    """On Sunday 25 October the hour from 2 to 3 happens twice."""
    with world(tmp_path, "2026-10-24T20:00", poll_seconds=1800, warn_before_end_minutes=0) as lab:
        people = People(lab)
        dragged = people.book("llama", "2026-10-24T21:00", "2026-10-24T22:00")
        people.book("phi", "2026-10-25T01:30", "2026-10-25T03:30", "three hours, not two")
        people.book("qwen", "2026-10-25", "2026-10-26", "all day, which has 25 hours")
        people.series("mistral", "2026-10-24T23:00", "2026-10-24T23:30", "RRULE:FREQ=DAILY;COUNT=2")
        lab.poll()
        # dragged into the hour that comes twice: Google says which one by its offset, here the second
        lab.calendar.move(dragged, "2026-10-25T02:15+01:00", "2026-10-25T02:45+01:00")
        people.runs("2026-10-24T21:00+00:00", "mistral")
        people.runs("2026-10-24T22:00+00:00", "qwen")
        people.runs("2026-10-24T23:30+00:00", "qwen", "phi")
        people.runs("2026-10-25T00:20+00:00", "qwen", "phi")
        people.runs("2026-10-25T01:15+00:00", "qwen", "phi", "llama")
        people.runs("2026-10-25T01:45:01+00:00", "qwen", "phi")
        people.runs("2026-10-25T02:29:59+00:00", "qwen", "phi")
        people.runs("2026-10-25T02:30:01+00:00", "qwen")
        people.runs("2026-10-25T22:00+00:00", "qwen", "mistral")
        people.runs("2026-10-25T22:59:59+00:00", "qwen")
        people.runs("2026-10-25T23:00:01+00:00")
        lab.poll()
        check_calendar(people)


@pytest.mark.parametrize("over_http", [False, True], ids=["at hand", "over HTTP"])
def test_a_restart_writes_nothing_and_restarts_nothing(over_http: bool, tmp_path: Path) -> None:
    with world(tmp_path, "2026-03-25T08:00", poll_seconds=300, over_http=over_http) as lab:
        people = People(lab)
        people.book("phi", "2026-03-25T09:00", "2026-03-25T12:00")
        people.book("llama", "2026-03-25T20:00", "2026-03-25T22:00")
        people.book("giant", "2026-03-25T20:00", "2026-03-25T22:00")
        people.runs("2026-03-25T10:00", "phi")
        before = lab.writes(), replicas(lab), len(lab.ray.puts)
        lab.start()
        people.runs("2026-03-25T10:30", "phi")
        assert (lab.writes(), replicas(lab), len(lab.ray.puts)) == before


def test_a_calendar_that_may_only_be_read_is_followed_and_said_once(tmp_path: Path) -> None:
    with world(tmp_path, "2026-03-25T08:00", poll_seconds=300, role="reader") as lab:
        people = People(lab)
        people.book("phi", "2026-03-25T09:00", "2026-03-25T10:00")
        people.runs("2026-03-25T09:00", "phi")
        people.runs("2026-03-25T10:00:01")
        assert lab.google.log.matching("PATCH") == []
        assert len([line for line in lab.said if "may only be read" in line]) == 1
