"""Under a storm of failures a reading is whole or refused, and answers are written once each."""

from __future__ import annotations

from datetime import timedelta

import pytest

from calendars.source import CalendarUnavailable
from calendars.write_back import Report, with_report
from tests.calendars.google_desk import Desk, read, say
from tests.calendars.texts import at

READINGS = 60


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_reading_is_whole_or_refused(desk: Desk, seed: int) -> None:
    lab = desk.lab("Europe/Berlin")
    source = desk.source(lab, page_size=4)
    for n in range(10):
        lab.add(f"a/m{n}", f"2026-03-{n + 10}T09:00", f"2026-03-{n + 10}T10:00")
    whole = read(source)
    desk.google.faults.storm(seed, rate=0.5, path="/events")
    refused = 0
    for _ in range(READINGS):
        try:
            assert read(source) == whole
        except CalendarUnavailable:
            refused += 1
    assert 0 < refused < READINGS
    desk.google.faults.clear()
    assert read(source) == whole


@pytest.mark.parametrize("seed", [4, 5])
def test_answers_converge_within_one_reading_after_the_storm(desk: Desk, seed: int) -> None:
    lab = desk.lab()
    source = desk.source(lab, style="colour+text")
    start = at("2026-03-02 09:00")
    events = [
        lab.add(f"a/m{n}", start + timedelta(hours=n), start + timedelta(hours=n + 1), f"gpus: {n + 1}")["id"]
        for n in range(6)
    ]
    whole = read(source)
    desk.google.faults.storm(seed, rate=0.4, path="/events")
    for step in range(12):
        try:
            assert read(source) == whole
        except CalendarUnavailable:
            continue
        source.report([say(event, ("scheduled", "loading", "serving")[step % 3]) for event in events])
    desk.google.faults.clear()
    desk.google.log.clear()
    last: list[Report] = [say(event, "ended", "it is over") for event in events]
    read(source)
    assert set(source.report(last).written) == set(events)
    assert desk.requests("PATCH") == len(events)
    for n, report in enumerate(last):
        assert lab.event(report.key)["description"] == with_report(f"gpus: {n + 1}", report)
    assert read(source) == whole
