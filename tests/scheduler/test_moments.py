"""Times and windows as people write them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from scheduler.errors import OperatorError
from scheduler.moments import SystemZone, parse_moment, parse_window, split_window

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)  # a Monday


@pytest.mark.parametrize(
    ("written", "start", "end"),
    [
        ("14:00-18:00", 2, 6),
        ("today 14:00 - 18:00", 2, 6),
        ("tomorrow 14:00–18:00", 26, 30),
        ("tomorrow 14:00 to 18:00", 26, 30),
        ("11:00-13:00", -1, 1),
        ("22:00-06:00", 10, 18),
        ("fri 22:00-06:00", 106, 114),
        ("monday 14:00-15:00", 2, 3),
        ("2026-03-03 09:00-10:30", 21, 22.5),
        ("2026-03-03 09:00 for 3h", 21, 24),
        ("2026-03-03T09:00 to 2026-03-05T09:00", 21, 69),
        ("2026-03-03 until 2026-03-04", 12, 36),
        ("tomorrow 9:00 for 1.5 hours", 21, 22.5),
        ("+90m for 30min", 1.5, 2),
        ("+90m to +2h", 1.5, 3.5),
        ("+90m to 18:00", 1.5, 6),
        ("now for 2d", 0, 48),
        ("on friday, from 14:00 to 18:00", 98, 102),
        ("tomorrow at 14:00, for 2h", 26, 28),
        ("for 3h", 0, 3),
    ],
)
def test_windows_as_people_write_them(written: str, start: float, end: float) -> None:
    found = parse_window(written, NOON)
    assert found == (NOON + timedelta(hours=start), NOON + timedelta(hours=end))


@pytest.mark.parametrize(
    "written",
    [
        "",
        "14:00",
        "tomorrow",
        "14:00-25:00",
        "soon-18:00",
        "for ever",
        "now for 0h",
        "2026-03-05 to 2026-03-04",
    ],
)
def test_what_is_no_window_is_an_error_with_examples(written: str) -> None:
    with pytest.raises(OperatorError, match="is not a start and an end") as raised:
        parse_window(written, NOON)
    assert "tomorrow 14:00-18:00" in raised.value.remedy


def test_a_window_that_is_over_is_said_to_be() -> None:
    with pytest.raises(OperatorError, match="“09:00-10:00” is over already"):
        parse_window("09:00-10:00", NOON)


@pytest.mark.parametrize("window", ["tomorrow 14:00-18:00", "2026-03-03 14:00 for 4h"])
@pytest.mark.parametrize("rest", ["Llama-70B 8xH100", "a/b, replicas: 2"])
def test_a_window_ends_a_text(rest: str, window: str) -> None:
    assert split_window(f"{rest} {window}", NOON) == (rest, window)


@pytest.mark.parametrize("written", ["a/b", "a/b tomorrow", "14:00-18:00", ""])
def test_a_text_without_a_window_is_an_error(written: str) -> None:
    with pytest.raises(OperatorError, match="does not end in a start and an end"):
        split_window(written, NOON)


def test_clocks_that_change_change_no_length() -> None:
    evening = datetime(2026, 3, 28, 20, 0, tzinfo=BERLIN)  # clocks are put forward that night
    start, end = parse_window("tomorrow 01:00-04:00", evening)
    assert (end.astimezone(UTC) - start.astimezone(UTC)) == timedelta(hours=2)
    start, end = parse_window("tomorrow 01:00 for 3h", evening)
    assert (end.astimezone(UTC) - start.astimezone(UTC)) == timedelta(hours=3)
    assert parse_moment("+12h", evening) == datetime(2026, 3, 29, 9, 0, tzinfo=BERLIN)


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.delenv("TZ")
    time.tzset()


@pytest.mark.usefixtures("in_berlin")
@pytest.mark.parametrize(
    ("now", "written", "start", "minutes"),
    [
        ("2027-10-31T00:50", "for 15m", "00:50", 15),
        ("2027-10-31T00:50", "now to 02:10", "00:50", 20),
        ("2027-10-31T00:50", "+5m to 02:10", "00:55", 15),
        ("2027-10-31T01:10", "02:20 for 10m", "01:20", 10),
        ("2027-10-31T01:10", "02:20-02:30", "01:20", 10),
        ("2027-10-30T12:00", "tomorrow 01:30-02:30", "23:30", 60),
        ("2027-10-30T12:00", "tomorrow 02:30-03:30", "00:30", 120),
        ("2027-10-30T12:00", "2027-10-31T02:30+01:00 to 03:00", "01:30", 30),
        ("2027-03-27T12:00", "tomorrow 01:30-03:30", "00:30", 60),
        ("2027-03-27T12:00", "tomorrow 03:10-02:30", "01:10", 23 * 60 + 20),
    ],
)
def test_windows_when_clocks_change(now: str, written: str, start: str, minutes: int) -> None:
    here = datetime.fromisoformat(f"{now}Z").astimezone(SystemZone())
    found = [instant.astimezone(UTC) for instant in parse_window(written, here)]
    assert f"{found[0]:%H:%M}" == start
    assert found[1] - found[0] == timedelta(minutes=minutes)


@pytest.mark.usefixtures("in_berlin")
def test_a_window_that_clocks_are_put_forward_over_is_none() -> None:
    here = datetime(2027, 3, 27, 12, 0, tzinfo=UTC).astimezone(SystemZone())
    with pytest.raises(OperatorError, match="is not a start and an end"):
        parse_window("tomorrow 02:45-03:15", here)


@pytest.mark.usefixtures("in_berlin")
def test_the_zone_of_this_machine_has_the_offset_of_each_day() -> None:
    here = SystemZone()
    for hour in range(0, 24 * 366, 1):
        instant = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour)
        local = instant.astimezone(here)
        assert local.replace(tzinfo=None) == instant.astimezone(BERLIN).replace(tzinfo=None)
        assert local.astimezone(UTC) == instant
    winter = datetime(2026, 3, 1, 12, tzinfo=UTC).astimezone(here)
    assert parse_moment("2026-07-01T14:00", winter) == datetime(2026, 7, 1, 12, tzinfo=UTC)
    assert winter.tzname() == "CET"
