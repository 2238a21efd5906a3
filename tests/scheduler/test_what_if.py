"""Bookings that nobody has made, as they are written in one line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from scheduler.calendar_desk import window
from scheduler.errors import OperatorError
from scheduler.moments import SystemZone
from scheduler.what_if import Answer, booking_from
from tests.scheduler.builders import NOON, booking, cluster, gpus, known, planned


@pytest.mark.parametrize(
    ("written", "understood"),
    [
        ("Small, tomorrow for 2h", "for 2h"),
        ("Small tomorrow for 2h", "for 2h"),
        ("Small, friday for 2h", "for 2h"),
        ("Small, friday, for 2h", "for 2h"),
        ("Small, replicas: 2, on fridays, for 2h", "for 2h"),
        ("Small, accelerator: H100 tomorrow for 2h", "for 2h"),
        ("Small, yesterday 14:00-18:00", "14:00-18:00"),
        ("Small, tommorow, 14:00-18:00", "14:00-18:00"),
        ("Small, next friday 14:00-18:00", "friday 14:00-18:00"),
        ("Small, the day after tomorrow 14:00-18:00", "tomorrow 14:00-18:00"),
        ("Small, in 2 days, 14:00-18:00", "14:00-18:00"),
        ("Small, 24.12. 14:00-18:00", "14:00-18:00"),
        ("Small, december 24, 14:00-18:00", "14:00-18:00"),
        ("Small, 2pm for 2h", "for 2h"),
        ("Small, seminar 14:00-18:00", "14:00-18:00"),
    ],
)
def test_half_a_time_is_refused(written: str, understood: str) -> None:
    with pytest.raises(OperatorError) as raised:
        booking_from(written, NOON)
    assert raised.value.reason.startswith("Of “")
    assert raised.value.reason.endswith(f" only “{understood}” is understood as a time.")
    assert "“friday 22:00-06:00”" in raised.value.remedy


@pytest.mark.parametrize(
    ("written", "title", "start"),
    [
        ("friday 14:00-18:00", "friday", 2),
        ("org/friday-7b 8xH100 14:00-18:00", "org/friday-7b 8xH100", 2),
        ("Small, replicas: 2 tomorrow 14:00-18:00", "Small, replicas: 2", 26),
        ("Small, revision: friday tomorrow 14:00-18:00", "Small, revision: friday", 26),
        ("Small, the friday seminar, 14:00-18:00", "Small, the friday seminar", 2),
        ("Small, fri, 14:00-18:00", "Small", 98),
        ("Small, on friday from 14:00 to 18:00", "Small", 98),
    ],
)
def test_a_model_or_free_text_may_be_called_like_a_day(written: str, title: str, start: float) -> None:
    found = booking_from(written, NOON)
    assert (found.title, found.start) == (title, NOON + timedelta(hours=start))
    assert found.end - found.start == timedelta(hours=4)


def test_what_is_over_is_said_to_be() -> None:
    with pytest.raises(OperatorError, match="“09:00-10:00” is over already"):
        booking_from("a/b 09:00-10:00", NOON)
    with pytest.raises(OperatorError, match="“monday 09:00 for 2h” is over already"):
        booking_from("Small, monday 09:00 for 2h", NOON)


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[ZoneInfo]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield ZoneInfo("Europe/Berlin")
    monkeypatch.delenv("TZ")
    time.tzset()


@pytest.mark.parametrize(
    ("written", "options"),
    [
        ("02:30+02:00 for 30m", "--from 2027-10-31T02:30+02:00 --to 2027-10-31T02:00+01:00"),
        ("02:30+01:00 for 30m", "--from 2027-10-31T02:30+01:00 --to 2027-10-31T03:00"),
    ],
)
def test_what_books_it_tells_the_hours_apart_that_come_twice(
    in_berlin: ZoneInfo, written: str, options: str
) -> None:
    now = datetime(2027, 10, 30, 12, 0, tzinfo=UTC)
    found = booking_from(f"Small 2027-10-31T{written}", now.astimezone(SystemZone()))
    verdict = planned([booking("org/m", 0, 1)], cluster(gpus("a", 1, 80)), known(m=20)).verdicts[0]
    books = Answer(found, True, verdict, (), ()).command or ""
    assert books.endswith(options)
    start, end = options.split()[1::2]
    assert window(start, end, now.astimezone(in_berlin)) == (found.start, found.end)


@pytest.mark.usefixtures("in_berlin")
def test_a_booking_that_clocks_are_put_forward_over_is_an_error() -> None:
    here = datetime(2027, 3, 27, 12, 0, tzinfo=UTC).astimezone(SystemZone())
    with pytest.raises(OperatorError, match="only “02:45-03:15” is understood"):
        booking_from("Small 2027-03-28 02:45-03:15", here)
