"""The calendar a first start begins with."""

from __future__ import annotations

import errno
import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from calendars.ics import IcsCalendar, write_empty_calendar, write_starter_calendar
from tests.calendars.texts import MODEL, at

NOW = at("2026-03-02 08:59:30.500000")
START, END = at("2026-03-02 10:00+01:00"), at("2026-03-02 17:00")


def write(path: Path, start: datetime = START, end: datetime = END, description: str = "") -> bool:
    return write_starter_calendar(path, title=MODEL, start=start, end=end, now=NOW, description=description)


def test_it_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "var" / "calendar.ics"
    assert write(path, description="the demo, with two\nreplicas: 2") is True
    (one,) = IcsCalendar(str(path)).read(START, END).reservations
    assert (one.start, one.end, one.booked_at) == (START, END, NOW.replace(microsecond=0))
    assert (one.title, one.request.model, one.request.replicas) == (MODEL, MODEL, 2)
    text = path.read_text()
    for line in ("X-WR-CALNAME:Model bookings", "DTSTAMP:20260302T085930Z", "DTSTART:20260302T090000Z"):
        assert line in text
    assert path.stat().st_mode & 0o777 == 0o644
    assert [one.name for one in path.parent.iterdir()] == ["calendar.ics"]


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "calendar.ics"
    path.write_text("mine")
    assert write(path) is False
    assert path.read_text() == "mine"


def test_a_file_that_appears_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "calendar.ics"
    sync = os.fsync

    def another_is_first(handle: int) -> None:
        path.write_text("theirs")
        sync(handle)

    monkeypatch.setattr(os, "fsync", another_is_first)
    assert write(path) is False
    assert path.read_text() == "theirs"
    assert [one.name for one in tmp_path.iterdir()] == ["calendar.ics"]


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    path = tmp_path / "calendar.ics"
    assert write(path) is True
    assert len(IcsCalendar(str(path)).read(START, END).reservations) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["calendar.ics"]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "calendar.ics")
    assert [one.name for one in tmp_path.iterdir()] == []


def test_times_that_are_no_booking(tmp_path: Path) -> None:
    path = tmp_path / "calendar.ics"
    for start, end in (
        (END, START),
        (START, START + timedelta(milliseconds=5)),
        (START.replace(tzinfo=None), END),
    ):
        with pytest.raises(ValueError, match="not a booking"):
            write(path, start, end)
    assert not path.exists()


def test_an_empty_calendar_is_a_good_reading_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "var" / "calendar.ics"
    assert write_empty_calendar(path) is True
    reading = IcsCalendar(str(path)).read(START, END)
    assert (reading.reservations, reading.misunderstood) == ((), ())
    assert write_empty_calendar(path) is False
