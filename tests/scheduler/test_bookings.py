"""All calendars together: one that cannot be read is never an empty one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from calendars.ics import IcsCalendar
from scheduler.bookings import Bookings
from scheduler.errors import OperatorError
from scheduler.settings import Settings
from tests.scheduler.builders import NOON

EVENT = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//tests//
BEGIN:VEVENT
UID:one
DTSTAMP:20260301T000000Z
DTSTART:20260302T110000Z
DTEND:20260302T130000Z
SUMMARY:org/a
END:VEVENT
END:VCALENDAR
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "calendar.ics").write_text(EVENT.replace("\n", "\r\n"))
    return Settings(state_dir=tmp_path)


def keys(bookings: Bookings) -> list[str]:
    return [one.key for reading in bookings.readings for one in reading.reservations]


def break_calendar(settings: Settings) -> None:
    settings.in_state_dir("calendar.ics").write_text("<html>Sign in</html>")


def test_the_last_good_reading_stands_while_the_calendar_cannot_be_read(settings: Settings) -> None:
    bookings = Bookings(settings)
    bookings.refresh(NOON)
    assert len(keys(bookings)) == 1
    break_calendar(settings)
    bookings.refresh(NOON + timedelta(minutes=1))
    assert len(keys(bookings)) == 1
    assert bookings.failing
    bookings.require(NOON + timedelta(minutes=1))


def test_it_stands_over_a_restart(settings: Settings) -> None:
    Bookings(settings, keep=True).refresh(NOON)
    break_calendar(settings)
    after = Bookings(settings)
    after.refresh(NOON + timedelta(hours=1))
    assert len(keys(after)) == 1
    after.require(NOON + timedelta(hours=1))


def test_a_look_at_another_time_leaves_no_trace_for_the_next_start(settings: Settings) -> None:
    Bookings(settings, keep=True).refresh(NOON)
    Bookings(settings).refresh(NOON, NOON + timedelta(days=5))
    break_calendar(settings)
    after = Bookings(settings)
    after.refresh(NOON)
    assert len(keys(after)) == 1


def test_a_reading_that_is_too_old_is_not_acted_on(settings: Settings) -> None:
    bookings = Bookings(settings)
    bookings.refresh(NOON)
    break_calendar(settings)
    late = NOON + timedelta(hours=settings.calendar.max_stale_hours, minutes=1)
    bookings.refresh(late)
    with pytest.raises(OperatorError, match="72 hours ago"):
        bookings.require(late)


def test_a_calendar_that_was_never_read_is_not_acted_on(settings: Settings) -> None:
    break_calendar(settings)
    bookings = Bookings(settings)
    bookings.refresh(NOON)
    with pytest.raises(OperatorError, match="a web page"):
        bookings.require(NOON)


def test_it_is_read_again_once_it_can_be(settings: Settings) -> None:
    bookings = Bookings(settings)
    break_calendar(settings)
    bookings.refresh(NOON)
    settings.in_state_dir("calendar.ics").write_text(EVENT)
    bookings.refresh(NOON)
    assert not bookings.failing
    assert len(keys(bookings)) == 1


def test_a_folder_that_takes_no_snapshot_costs_only_the_snapshot(settings: Settings) -> None:
    settings.in_state_dir("snapshots").write_text("in the way")
    bookings = Bookings(settings, keep=True)
    bookings.refresh(NOON)
    assert len(keys(bookings)) == 1


def test_the_settings_name_the_calendars(tmp_path: Path) -> None:
    def names(**calendar: object) -> list[str]:
        settings = Settings.model_validate({"state_dir": tmp_path, "calendar": calendar})
        return [source.name for source in Bookings(settings).sources]

    assert names() == [str(tmp_path / "calendar.ics")]
    assert names(google_calendar_id="a@x, b@x,a@x,") == ["a@x", "b@x"]
    assert names(google_calendar_id="a@x", ics="/tmp/c.ics") == ["a@x", "/tmp/c.ics"]
    assert isinstance(Bookings(Settings(state_dir=tmp_path)).sources[0], IcsCalendar)
