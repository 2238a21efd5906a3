"""Booking in an .ics file, and cancelling, change the booking and not a byte beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from calendars.ics import IcsCalendar
from calendars.reservation import Reading
from calendars.source import CalendarUnavailable, NewEvent
from tests.calendars.texts import MODEL, at, calendar, event

WINDOW = (at("2026-02-20"), at("2026-05-01"))

BERLIN = """\
BEGIN:VTIMEZONE
TZID:Europe/Berlin
BEGIN:STANDARD
DTSTART:19701025T030000
RRULE:FREQ=YEARLY;BYMONTH=10;BYDAY=-1SU
TZOFFSETFROM:+0200
TZOFFSETTO:+0100
END:STANDARD
END:VTIMEZONE"""

ALL_SORTS = calendar(
    "X-WR-CALNAME:Größe  ",
    BERLIN,
    event("DTSTART:20260302T090000Z\nDTEND:20260302T100000Z", uid="utc"),
    event(
        "DTSTART;TZID=Europe/Berlin:20260302T090000\nDURATION:PT1H\nX-ODD;P='a b':1\nLOCATION:a\\,\n  b",
        uid="zone",
    ),
    event("DTSTART;VALUE=DATE:20260303\nDTEND;VALUE=DATE:20260305", uid="days"),
    event(
        "DTSTART;TZID=Europe/Berlin:20260323T090000\nDTEND;TZID=Europe/Berlin:20260323T100000\n"
        "RRULE:FREQ=DAILY;COUNT=10",
        uid="across/summer",
    ),
    event(
        "RECURRENCE-ID;TZID=Europe/Berlin:20260325T090000\nDTSTART;TZID=Europe/Berlin:20260406T120000\n"
        "DTEND;TZID=Europe/Berlin:20260406T130000",
        uid="across/summer",
    ),
    event(
        "DTSTART:20260302T200000Z\nDURATION:PT1H\nRRULE:FREQ=WEEKLY;COUNT=4\nEXDATE:20260309T200000Z",
        uid="weekly",
    ),
    event("DTSTART;VALUE=DATE:20260310\nRRULE:FREQ=DAILY;COUNT=3", uid="each-day"),
    event("DTSTART:20260302T060000\nDURATION:PT1H\nRRULE:FREQ=DAILY;COUNT=2", uid="floating"),
    event("DTSTART:20260302T070000Z\nDURATION:PT1H\nRDATE:20260305T070000Z", uid="extra"),
    event("DTSTART:20260302T090000Z\nDTEND:20260302T100000Z", uid="lunch", title="Lunch with everybody"),
    event("DTSTART:20260302T090000Z\nDTEND:20260302T100000Z", uid=""),
    event("DTSTART:20260302T110000Z\nDTEND:20260302T120000Z", uid="last"),
)


def made(**changes: object) -> NewEvent:
    """A booking of Monday morning."""
    content: dict[str, object] = {
        "event_id": "0123456789abcdef",
        "title": "Größe; und, mehr",
        "description": f"model: {MODEL}\nreplicas: 2",
        "start": at("2026-03-02 13:00"),
        "end": at("2026-03-02 14:00"),
        "made_at": at("2026-03-01 08:00"),
    }
    return NewEvent.model_validate(content | changes)


def source(folder: Path, text: str | bytes | None = None) -> IcsCalendar:
    path = folder / "calendar.ics"
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    return IcsCalendar(str(path))


def read(folder: Path) -> Reading:
    return source(folder).read(*WINDOW)


def content(folder: Path) -> bytes:
    return (folder / "calendar.ics").read_bytes()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_booking_is_added_and_everything_else_stays_as_it_is(end: str, tmp_path: Path) -> None:
    text = ALL_SORTS.replace("\n", end).encode()
    before = source(tmp_path, text).read(*WINDOW)
    key = source(tmp_path).insert(made())
    new = content(tmp_path)
    head, tail = text.split(b"END:VCALENDAR")
    assert new.startswith(head)
    assert new.endswith(b"END:VCALENDAR" + tail)
    assert new.replace(b"\r\n", b"").count(b"\n") == (0 if end == "\r\n" else new.count(b"\n"))
    after = read(tmp_path)
    (one,) = (one for one in after.reservations if one.key == key)
    assert (one.title, one.start, one.end, one.booked_at) == (
        "Größe; und, mehr",
        at("2026-03-02 13:00"),
        at("2026-03-02 14:00"),
        at("2026-03-01 08:00"),
    )
    assert (one.request.model, one.request.replicas) == (MODEL, 2)
    assert [rest for rest in after.reservations if rest.key != key] == list(before.reservations)
    assert after.misunderstood == before.misunderstood
    source(tmp_path).cancel(key)
    assert content(tmp_path) == text, "as if it had never been there"


def test_every_key_of_a_reading_can_be_cancelled_and_only_it_goes(tmp_path: Path) -> None:
    before = source(tmp_path, ALL_SORTS).read(*WINDOW)
    keys = [one.key for one in (*before.reservations, *before.misunderstood)]
    assert len(keys) == len(set(keys)) == 26
    for key in keys:
        calendar = source(tmp_path, ALL_SORTS)
        assert calendar.scope(key) in ("event", "instance")
        calendar.cancel(key)
        after = read(tmp_path)
        assert after.reservations == tuple(one for one in before.reservations if one.key != key), key
        assert len(after.misunderstood) == sum(one.key != key for one in before.misunderstood), key
        assert source(tmp_path).scope(key) is None, key


@pytest.mark.parametrize("uid", ["across/summer", "weekly", "each-day", "extra"])
def test_the_uid_of_a_series_cancels_all_of_it(uid: str, tmp_path: Path) -> None:
    before = source(tmp_path, ALL_SORTS).read(*WINDOW)
    assert source(tmp_path).scope(uid) == "series"
    source(tmp_path).cancel(uid)
    left = [one for one in before.reservations if not one.key.startswith(f"{uid}/")]
    assert list(read(tmp_path).reservations) == left
    assert uid.encode() not in content(tmp_path)


def test_an_instance_is_excluded_in_the_words_of_its_series(tmp_path: Path) -> None:
    source(tmp_path, ALL_SORTS).cancel("across/summer/20260330T070000Z")
    source(tmp_path).cancel("each-day/20260311")
    source(tmp_path).cancel("weekly/20260316T200000Z")
    text = content(tmp_path).decode()
    assert "EXDATE;TZID=Europe/Berlin:20260330T090000\n" in text
    assert "EXDATE;VALUE=DATE:20260311\n" in text
    assert "EXDATE:20260316T200000Z\n" in text


def test_a_missing_file_is_made(tmp_path: Path) -> None:
    calendar = IcsCalendar(str(tmp_path / "new" / "calendar.ics"))
    key = calendar.insert(made())
    assert [one.key for one in calendar.read(*WINDOW).reservations] == [key]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>",
        ALL_SORTS.removesuffix("END:VCALENDAR\n"),
        ALL_SORTS.replace("END:VEVENT\n", "", 1),
        ALL_SORTS.replace("\n", "\r"),
        b"BEGIN:VCALENDAR\n\xff\nEND:VCALENDAR\n",
    ],
    ids=["empty", "a page", "breaks off", "an event without an end", "old line ends", "not UTF-8"],
)
def test_a_file_that_is_not_whole_is_left_alone(text: str | bytes, tmp_path: Path) -> None:
    calendar = source(tmp_path, text)
    before = content(tmp_path)
    with pytest.raises(CalendarUnavailable) as caught:
        calendar.cancel("utc")
    assert caught.value.remedy
    assert content(tmp_path) == before


def test_what_cannot_be_cancelled_alone_is_refused(tmp_path: Path) -> None:
    series = event("DTSTART:20260302T090000Z\nDURATION:PT1H\nRRULE:FREQ=DAILY;COUNT=9", uid="s")
    later = event(
        "RECURRENCE-ID;RANGE=THISANDFUTURE:20260305T090000Z\nDTSTART:20260305T100000Z\nDURATION:PT1H", uid="s"
    )
    text = calendar(series, later)
    with pytest.raises(CalendarUnavailable, match="calendar program"):
        source(tmp_path, text).cancel("s/20260305T090000Z")
    assert content(tmp_path).decode() == text


def test_a_key_that_is_not_there_is_said(tmp_path: Path) -> None:
    for key in ("nobody", "weekly/20260309T200000Z", "weekly/20260317T200000Z", "weekly/soon", ""):
        with pytest.raises(CalendarUnavailable, match="has no booking"):
            source(tmp_path, ALL_SORTS).cancel(key)


def test_permissions_and_links_stay_and_nothing_is_left_over(tmp_path: Path) -> None:
    kept = tmp_path / "kept.ics"
    kept.write_text(ALL_SORTS)
    kept.chmod(0o640)
    (tmp_path / "calendar.ics").symlink_to(kept)
    source(tmp_path).insert(made())
    assert (tmp_path / "calendar.ics").is_symlink()
    assert kept.stat().st_mode & 0o777 == 0o640
    assert sorted(one.name for one in tmp_path.iterdir()) == ["calendar.ics", "kept.ics"]


def test_behind_a_url_nothing_can_be_written() -> None:
    calendar = IcsCalendar("http://127.0.0.1:9/calendar.ics", timeout_seconds=0.5)
    with pytest.raises(CalendarUnavailable, match="only be read"):
        calendar.insert(made())
    with pytest.raises(CalendarUnavailable, match="only be read"):
        calendar.cancel("any")


def test_a_new_event_ends_after_it_starts() -> None:
    with pytest.raises(ValueError, match="not after start"):
        made(end=at("2026-03-02 13:00"))
