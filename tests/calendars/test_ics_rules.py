"""Each sentence in the docstring of `IcsCalendar`, tried. A sentence without a test fails the last one."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calendars.ics import IcsCalendar
from calendars.reservation import Misunderstood
from calendars.source import CalendarUnavailable
from tests.calendars.texts import GOOD, MODEL, at, calendar, event, read, times
from tests.examples import examples

Test = Callable[[Path], None]
TESTED: set[str] = set()

NINE = "DTSTART:20260302T090000Z\nDTEND:20260302T100000Z"
DAILY_NINE = f"{NINE}\nRRULE:FREQ=DAILY;COUNT=3"
BERLIN_WEEKLY = "DTSTART;TZID=Europe/Berlin:20260316T090000\nRRULE:FREQ=WEEKLY;COUNT=3"
SPRING_NIGHT = "DTSTART;TZID=Europe/Berlin:20260328T200000"
NIGHTLY = "RRULE:FREQ=DAILY;COUNT=2"


def rule(sentence: str) -> Callable[[Test], Test]:
    """Marks a test as the test of a sentence in the docstring of `IcsCalendar`."""
    TESTED.add(sentence)
    return lambda test: test


def keys(reading: object) -> list[str]:
    return [one.key for one in getattr(reading, "reservations", ())]


def only_verdict(folder: Path, *parts: str) -> Misunderstood:
    """The one verdict there is, with `GOOD` beside it and not hidden by it."""
    reading = read(folder, *parts, GOOD)
    assert [one.request.model for one in reading.reservations if one.key == "good"] == ["good/model"]
    (verdict,) = reading.misunderstood
    return verdict


# --- what counts -----------------------------------------------------------------------------------


@rule(
    "An event is shown when it overlaps the half-open window: one that ends as the window starts, or starts "
    "as it ends, is not in it."
)
def test_window(tmp_path: Path) -> None:
    for window, seen in {
        ("2026-03-02 08:00", "2026-03-02 09:00"): 0,
        ("2026-03-02 08:00", "2026-03-02 09:01"): 1,
        ("2026-03-02 09:20", "2026-03-02 09:40"): 1,
        ("2026-03-02 09:59", "2026-03-02 12:00"): 1,
        ("2026-03-02 10:00", "2026-03-02 12:00"): 0,
    }.items():
        assert len(read(tmp_path, event(NINE), window=window).reservations) == seen
        assert len(read(tmp_path, event(DAILY_NINE), window=window).reservations) == seen


@rule("A cancelled event (STATUS:CANCELLED) is ignored, and a cancelled instance is taken out of its series.")
def test_cancelled(tmp_path: Path) -> None:
    assert times(read(tmp_path, event(f"{NINE}\nSTATUS:CANCELLED"))) == []
    assert times(read(tmp_path, event(f"{DAILY_NINE}\nSTATUS:CANCELLED"))) == []
    assert times(read(tmp_path, event("STATUS:CANCELLED"))) == []
    gone = event(
        "RECURRENCE-ID:20260303T090000Z\nDTSTART:20260303T090000Z\nDTEND:20260303T100000Z\nSTATUS:CANCELLED"
    )
    assert times(read(tmp_path, event(DAILY_NINE), gone)) == [
        "2026-03-02 09:00 10:00",
        "2026-03-04 09:00 10:00",
    ]
    bare = event("RECURRENCE-ID:20260303T090000Z\nSTATUS:CANCELLED")
    assert times(read(tmp_path, event(DAILY_NINE), bare)) == [
        "2026-03-02 09:00 10:00",
        "2026-03-04 09:00 10:00",
    ]


@rule("A tentative event counts like a confirmed one.")
def test_tentative(tmp_path: Path) -> None:
    assert times(read(tmp_path, event(f"{NINE}\nSTATUS:TENTATIVE"))) == ["2026-03-02 09:00 10:00"]


@rule("TRANSP, CLASS, attendees and alarms change nothing: they speak of people's time, not of the model's.")
def test_what_speaks_of_people(tmp_path: Path) -> None:
    text = event(
        f"""{NINE}
TRANSP:TRANSPARENT
CLASS:PRIVATE
ATTENDEE;PARTSTAT=DECLINED:mailto:bob@example.org
ATTENDEE;CN="Bob "the" Builder":mailto:bob@example.org
BEGIN:VALARM
ACTION:DISPLAY
TRIGGER:-PT15M
DURATION:P1D
REPEAT:2
DESCRIPTION:model: other/model
END:VALARM"""
    )
    assert times(read(tmp_path, text)) == ["2026-03-02 09:00 10:00"]


@rule("Tasks, journal entries and free/busy times are not events.")
def test_other_components(tmp_path: Path) -> None:
    others = [GOOD.replace("VEVENT", kind) for kind in ("VTODO", "VJOURNAL", "VFREEBUSY")]
    assert keys(read(tmp_path, *others, event(NINE))) == ["one"]


@rule("Several calendars in one text are read as one.")
def test_several_calendars(tmp_path: Path) -> None:
    path = tmp_path / "two.ics"
    floating = "DTSTART:20260302T120000\nDURATION:PT1H"
    path.write_text(
        calendar("X-WR-TIMEZONE:Europe/Berlin", event(floating, uid="berlin"))
        + calendar("X-WR-TIMEZONE:America/New_York", event(floating, uid="york"))
    )
    reading = IcsCalendar(str(path)).read(at("2026-03-01"), at("2026-04-01"))
    assert times(reading) == ["2026-03-02 11:00 12:00", "2026-03-02 17:00 18:00"]


# --- times --------------------------------------------------------------------------------------------

CUSTOM_ZONE = """BEGIN:VTIMEZONE
TZID:Our office
BEGIN:STANDARD
DTSTART:19701025T030000
RRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=10
TZOFFSETFROM:+0200
TZOFFSETTO:+0100
END:STANDARD
BEGIN:DAYLIGHT
DTSTART:19700329T020000
RRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=3
TZOFFSETFROM:+0100
TZOFFSETTO:+0200
END:DAYLIGHT
END:VTIMEZONE"""


@rule(
    "A time with TZID is in that zone of the tz database or of Windows, else in the calendar's VTIMEZONE of "
    "that name; a name that is neither makes the event misunderstood."
)
@pytest.mark.filterwarnings("ignore::icalendar.error.GloballyUniqueTZIDGuessed")
def test_zones(tmp_path: Path) -> None:
    for name in ("Europe/Berlin", "W. Europe Standard Time", "/example.org/Europe/Berlin", "Our office"):
        winter = event(f"DTSTART;TZID={name}:20260302T120000\nDURATION:PT1H")
        summer = event(f"DTSTART;TZID={name}:20260330T120000\nDURATION:PT1H", uid="two")
        # The definition may stand behind the event that uses it.
        assert times(read(tmp_path, winter, summer, CUSTOM_ZONE)) == [
            "2026-03-02 11:00 12:00",
            "2026-03-30 10:00 11:00",
        ]
    moved = CUSTOM_ZONE.replace("+0200", "+0600").replace("+0100", "+0500")
    noon = event("DTSTART;TZID=Our office:20260302T120000\nDURATION:PT1H")
    assert times(read(tmp_path, moved, noon)) == ["2026-03-02 07:00 08:00"]
    unknown = only_verdict(tmp_path, event("DTSTART;TZID=Mars/Olympus:20260302T120000\nDURATION:PT1H"))
    assert "'Mars/Olympus' of DTSTART is not known" in unknown.reason


@rule("A floating time is in the calendar's zone: X-WR-TIMEZONE, else ``default_timezone``.")
def test_floating(tmp_path: Path) -> None:
    noon = event("DTSTART:20260302T120000\nDTEND:20260302T130000")
    assert times(read(tmp_path, noon)) == ["2026-03-02 12:00 13:00"]
    assert times(read(tmp_path, noon, default_timezone="Asia/Tokyo")) == ["2026-03-02 03:00 04:00"]
    named = ("X-WR-TIMEZONE:Europe/Berlin", noon)
    assert times(read(tmp_path, *named, default_timezone="Asia/Tokyo")) == ["2026-03-02 11:00 12:00"]
    series = event("DTSTART:20260328T120000\nDURATION:PT1H\nRRULE:FREQ=DAILY;UNTIL=20260329T120000")
    assert times(read(tmp_path, series, default_timezone="Europe/Berlin")) == [
        "2026-03-28 11:00 12:00",
        "2026-03-29 10:00 11:00",
    ]
    lost = only_verdict(tmp_path, "X-WR-TIMEZONE:Mars/Olympus", noon)
    assert "calendar's time zone 'Mars/Olympus'" in lost.reason


@rule("An all-day event runs from midnight to midnight in the calendar's zone, its end date exclusive.")
def test_all_day(tmp_path: Path) -> None:
    days = event("DTSTART;VALUE=DATE:20260328\nDTEND;VALUE=DATE:20260330")
    assert times(read(tmp_path, days)) == ["2026-03-28 00:00 2026-03-30 00:00"]
    assert times(read(tmp_path, "X-WR-TIMEZONE:Europe/Berlin", days)) == ["2026-03-27 23:00 2026-03-29 22:00"]
    series = event("DTSTART;VALUE=DATE:20260328\nRRULE:FREQ=DAILY;UNTIL=20260330\nEXDATE;VALUE=DATE:20260329")
    reading = read(tmp_path, "X-WR-TIMEZONE:Europe/Berlin", series)
    assert times(reading) == ["2026-03-27 23:00 2026-03-28 23:00", "2026-03-29 22:00 2026-03-30 22:00"]
    assert keys(reading) == ["one/20260328", "one/20260330"]


@rule("A time that the clock skips is read with the offset from before the skip.")
def test_gap(tmp_path: Path) -> None:
    for name in ("Europe/Berlin", "Our office"):
        skipped = event(f"DTSTART;TZID={name}:20260329T023000\nDURATION:PT1H")
        assert times(read(tmp_path, CUSTOM_ZONE, skipped)) == ["2026-03-29 01:30 02:30"]
    nightly = event("DTSTART;TZID=Europe/Berlin:20260328T023000\nDURATION:PT1H\nRRULE:FREQ=DAILY;COUNT=3")
    assert times(read(tmp_path, nightly)) == [
        "2026-03-28 01:30 02:30",
        "2026-03-29 01:30 02:30",
        "2026-03-30 00:30 01:30",
    ]


@rule("A time that the clock shows twice means the first.")
def test_fold(tmp_path: Path) -> None:
    october = ("2026-10-20", "2026-10-30")
    twice = event("DTSTART;TZID=Europe/Berlin:20261025T023000\nDURATION:PT1H")
    assert times(read(tmp_path, twice, window=october)) == ["2026-10-25 00:30 01:30"]
    nightly = event("DTSTART;TZID=Europe/Berlin:20261024T023000\nDURATION:PT1H\nRRULE:FREQ=DAILY;COUNT=3")
    assert times(read(tmp_path, nightly, window=october)) == [
        "2026-10-24 00:30 01:30",
        "2026-10-25 00:30 01:30",
        "2026-10-26 01:30 02:30",
    ]


@rule("A DTSTART that is a date, without an end, lasts one day; one with a time needs DTEND or DURATION.")
def test_no_end(tmp_path: Path) -> None:
    assert times(read(tmp_path, event("DTSTART;VALUE=DATE:20260302"))) == [
        "2026-03-02 00:00 2026-03-03 00:00"
    ]
    assert "neither DTEND nor DURATION" in only_verdict(tmp_path, event("DTSTART:20260302T090000Z")).reason


@rule("DURATION counts days by the calendar and hours exactly: P1D keeps the clock time, PT24H does not.")
def test_duration(tmp_path: Path) -> None:
    for duration, end in {
        "P1D": "2026-03-29 18:00",
        "PT24H": "2026-03-29 19:00",
        "P1DT1H": "2026-03-29 19:00",
        "P1W": "2026-04-04 18:00",
        "PT30M": "19:30",
    }.items():
        text = event(f"{SPRING_NIGHT}\nDURATION:{duration}")
        assert times(read(tmp_path, text)) == [f"2026-03-28 19:00 {end}"]
    alarm = "BEGIN:VALARM\nTRIGGER:-PT5M\nREPEAT:1\nDURATION:P1D\nEND:VALARM"
    assert times(read(tmp_path, event(f"{SPRING_NIGHT}\n{alarm}\nDURATION:PT24H"))) == [
        "2026-03-28 19:00 2026-03-29 19:00"
    ]


@rule("An event lasts at most 366 days and lies in the years 1970 to 2199.")
def test_bounds(tmp_path: Path) -> None:
    year = event("DTSTART:20260302T000000Z\nDTEND:20270303T000000Z")
    assert times(read(tmp_path, year)) == ["2026-03-02 00:00 2027-03-03 00:00"]
    century = only_verdict(tmp_path, event("DTSTART:20260302T000000Z\nDTEND:21260302T000000Z"))
    assert "lasts 36524 days" in century.reason
    assert (century.start, century.end) == (at("2026-03-02"), at("2126-03-02"))
    for lines in ("DTSTART:99991231T230000Z\nDURATION:PT2H", "DTSTART:00010101T000000Z\nDURATION:P1D"):
        assert "lies in the year" in only_verdict(tmp_path, event(lines)).reason


# --- series -------------------------------------------------------------------------------------------


@rule("An instance keeps the clock time of its series across a change of offset.")
def test_clock_time(tmp_path: Path) -> None:
    assert times(read(tmp_path, event(f"{BERLIN_WEEKLY}\nDURATION:PT1H"))) == [
        "2026-03-16 08:00 09:00",
        "2026-03-23 08:00 09:00",
        "2026-03-30 07:00 08:00",
    ]


@rule("An instance lasts exactly as long as the first, where the first has DTEND (RFC 5545 section 3.8.5.3).")
def test_exact_length(tmp_path: Path) -> None:
    start = SPRING_NIGHT.replace("0328", "0327")
    nights = event(f"{start}\nDTEND;TZID=Europe/Berlin:20260328T080000\n{NIGHTLY}")
    assert times(read(tmp_path, nights)) == [
        "2026-03-27 19:00 2026-03-28 07:00",
        "2026-03-28 19:00 2026-03-29 07:00",
    ]
    by_days = event(f"{start}\nDURATION:P1D\n{NIGHTLY}")
    assert times(read(tmp_path, by_days)) == [
        "2026-03-27 19:00 2026-03-28 19:00",
        "2026-03-28 19:00 2026-03-29 18:00",
    ]


@rule("EXDATE takes an instance out; a date without a time takes out all instances of that day.")
def test_exdate(tmp_path: Path) -> None:
    left = ["2026-03-02 09:00 10:00", "2026-03-04 09:00 10:00"]
    for exdate in (
        "EXDATE:20260303T090000Z",
        "EXDATE;TZID=Europe/Berlin:20260303T100000",
        "EXDATE;VALUE=DATE:20260303",
        "EXDATE:20260303T090000Z,20260401T090000Z\nEXDATE:",
    ):
        assert times(read(tmp_path, event(f"{DAILY_NINE}\n{exdate}"))) == left
    twice = event(f"{NINE}\nRRULE:FREQ=DAILY;COUNT=4;BYHOUR=9,15\nEXDATE;VALUE=DATE:20260302")
    assert times(read(tmp_path, twice)) == ["2026-03-03 09:00 10:00", "2026-03-03 15:00 16:00"]


@rule("RDATE adds an instance, with a length of its own where it is a PERIOD.")
def test_rdate(tmp_path: Path) -> None:
    more = event(
        f"{NINE}\nRDATE:20260305T090000Z\n"
        "RDATE;VALUE=PERIOD:20260306T090000Z/PT3H,20260307T090000Z/20260307T110000Z"
    )
    reading = read(tmp_path, more)
    assert times(reading) == [
        "2026-03-02 09:00 10:00",
        "2026-03-05 09:00 10:00",
        "2026-03-06 09:00 12:00",
        "2026-03-07 09:00 11:00",
    ]
    assert keys(reading)[1] == "one/20260305T090000Z"


MOVED = "RECURRENCE-ID:20260303T090000Z\nDTSTART:20260310T120000Z\nDTEND:20260310T130000Z"


@rule("An event with RECURRENCE-ID stands in for that instance, even where it is misunderstood itself.")
def test_stand_in(tmp_path: Path) -> None:
    other = event(MOVED, title="other/model")
    for parts in ((event(DAILY_NINE), other), (other, event(DAILY_NINE))):
        reading = read(tmp_path, *parts)
        assert times(reading) == [
            "2026-03-02 09:00 10:00",
            "2026-03-04 09:00 10:00",
            "2026-03-10 12:00 13:00",
        ]
        assert [one.request.model for one in reading.reservations] == [MODEL, MODEL, "other/model"]
    alone = read(tmp_path, other)
    assert keys(alone) == ["one/20260303T090000Z"]
    for wrong in (
        event(MOVED, title="no model"),
        event(MOVED.replace("DTEND:20260310T13", "DTEND:20260310T11")),
    ):
        reading = read(tmp_path, event(DAILY_NINE), wrong)
        assert keys(reading) == ["one/20260302T090000Z", "one/20260304T090000Z"]
        assert [one.key for one in reading.misunderstood] == ["one/20260303T090000Z"]
    outside = read(tmp_path, event(DAILY_NINE), other, window=("2026-03-03", "2026-03-04"))
    assert times(outside) == []
    moved_single = read(tmp_path, event(NINE), event(MOVED.replace("0303T", "0302T")))
    assert times(moved_single) == ["2026-03-10 12:00 13:00"]


@rule("RANGE=THISANDFUTURE moves and renames the later instances too.")
def test_this_and_future(tmp_path: Path) -> None:
    later = event(
        "RECURRENCE-ID;RANGE=THISANDFUTURE:20260303T090000Z\nDTSTART:20260303T110000Z\nDURATION:PT2H",
        title="other/model",
    )
    reading = read(tmp_path, event(DAILY_NINE), later)
    assert times(reading) == ["2026-03-02 09:00 10:00", "2026-03-03 11:00 13:00", "2026-03-04 11:00 13:00"]
    assert [one.request.model for one in reading.reservations] == [MODEL, "other/model", "other/model"]
    assert keys(reading) == [f"one/2026030{day}T090000Z" for day in (2, 3, 4)]
    ended = later.replace("END:VEVENT", "STATUS:CANCELLED\nEND:VEVENT")
    assert times(read(tmp_path, event(DAILY_NINE), ended)) == ["2026-03-02 09:00 10:00"]


@rule("UNTIL includes the instance that starts then; an UNTIL without a time includes its whole day.")
def test_until(tmp_path: Path) -> None:
    days = {
        "UNTIL=20260303T090000Z": 2,
        "UNTIL=20260303T085959Z": 1,
        "UNTIL=20260303": 2,
        "UNTIL=99991231": 30,
    }
    for until, count in days.items():
        text = event(f"{NINE}\nRRULE:FREQ=DAILY;{until}")
        assert len(read(tmp_path, text).reservations) == count
    berlin = event(
        "DTSTART;TZID=Europe/Berlin:20260302T003000\nDURATION:PT1H\nRRULE:FREQ=DAILY;UNTIL=20260303"
    )
    assert len(read(tmp_path, berlin).reservations) == 2
    all_day = event("DTSTART;VALUE=DATE:20260302\nRRULE:FREQ=DAILY;UNTIL=20260302T230000Z")
    assert len(read(tmp_path, "X-WR-TIMEZONE:Europe/Berlin", all_day).reservations) == 2


ENDLESS = {
    "FREQ=SECONDLY": "FREQ",
    "FREQ=MINUTELY;COUNT=100000": "FREQ",
    "FREQ=HOURLY;BYMONTH=2;BYMONTHDAY=30": "FREQ",
    "FREQ=DAILY;INTERVAL=0": "INTERVAL",
    "FREQ=DAILY;COUNT=0": "COUNT",
    "FREQ=DAILY;COUNT=3;UNTIL=20270101": "both COUNT and UNTIL",
    "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30,31": "no month has",
    "FREQ=DAILY;BYSETPOS=2": "BYSETPOS",
    "FREQ=DAILY;BYHOUR=" + ",".join(map(str, range(24))) + ";BYMINUTE=0,20,40": "72 times a day",
    "FREQ=DAILY;BYHOUR=" + ",".join(map(str, range(24))) + ";BYMINUTE=0,30": "more than 1000 times",
    "FREQ=NEVER": "FREQ=NEVER",
    "FREQ=DAILY;BYSECOND=99": "cannot be followed",
    "BYDAY=MO": "FREQ",
    "FREQ=DAILY;NONSENSE=1": "",
}


@rule(
    "A series that repeats more than 1000 times in the window, more often than daily rules can say, or by a "
    "rule that never matches, is misunderstood."
)
@pytest.mark.timeout(10)
@pytest.mark.parametrize(("rrule", "named"), ENDLESS.items())
def test_endless(tmp_path: Path, rrule: str, named: str) -> None:
    verdict = only_verdict(tmp_path, event(f"DTSTART:19700101T000000Z\nDURATION:PT1H\nRRULE:{rrule}"))
    assert named in verdict.reason
    assert verdict.example.startswith("RRULE:")


# --- who and which ----------------------------------------------------------------------------------------


@rule(
    "The key of an event is its UID; of an instance, its UID and the start its series gave it, so it stays "
    "when the instance is moved."
)
def test_keys(tmp_path: Path) -> None:
    assert keys(read(tmp_path, event(NINE, uid="a@b"))) == ["a@b"]
    before = keys(read(tmp_path, event(DAILY_NINE)))
    assert before == [f"one/2026030{day}T090000Z" for day in (2, 3, 4)]
    assert sorted(keys(read(tmp_path, event(DAILY_NINE), event(MOVED)))) == before
    by_local_time = MOVED.replace("RECURRENCE-ID:20260303T09", "RECURRENCE-ID;TZID=Europe/Berlin:20260303T10")
    assert (
        sorted(keys(read(tmp_path, event(DAILY_NINE), event(by_local_time.replace("10Z", "100000")))))
        == before
    )


@rule(
    "Events with one UID and different SEQUENCE are revisions, and the highest counts; with the same "
    "SEQUENCE the first counts and the others are misunderstood."
)
def test_one_uid(tmp_path: Path) -> None:
    old, new = event(f"{NINE}\nSEQUENCE:1"), event(f"{NINE}\nSEQUENCE:2", title="new/model")
    for parts in ((old, new), (new, old)):
        reading = read(tmp_path, *parts)
        assert [one.request.model for one in reading.reservations] == ["new/model"]
        assert not reading.misunderstood
    copied = event("DTSTART:20260303T090000Z\nDURATION:PT1H", title="copied/model")
    reading = read(tmp_path, event(NINE), copied)
    assert times(read(tmp_path, event(NINE), event(NINE))) == ["2026-03-02 09:00 10:00"]
    assert [one.request.model for one in reading.reservations] == [MODEL]
    (verdict,) = reading.misunderstood
    assert (verdict.title, verdict.key) == ("copied/model", "one#2")
    assert "same UID" in verdict.reason
    assert verdict.example == "UID:one-2"


@rule("``booked_at`` is CREATED, else DTSTAMP, else the start; instances have that of their series.")
def test_booked_at(tmp_path: Path) -> None:
    created, stamped = "CREATED:20260101T000000Z", "DTSTAMP:20260201T000000Z"
    for lines, expected in {
        f"{stamped}\n{created}": "2026-01-01",
        f"{stamped}\nCREATED:soon": "2026-02-01",
        stamped: "2026-02-01",
        "SEQUENCE:0": "2026-03-02 09:00",
    }.items():
        (one,) = read(tmp_path, event(f"{NINE}\n{lines}")).reservations
        assert one.booked_at == at(expected)
    moved = event(f"{MOVED}\nCREATED:20260215T000000Z")
    reading = read(tmp_path, event(f"{DAILY_NINE}\n{created}"), moved)
    assert {one.booked_at for one in reading.reservations} == {at("2026-01-01")}


@rule("The owner is the organizer's mail address in lower case.")
def test_owner(tmp_path: Path) -> None:
    for line, owner in {
        "ORGANIZER;CN=Bob:MAILTO:Bob@Example.org": "bob@example.org",
        "ORGANIZER;EMAIL=Bob@Example.org:urn:uuid:1": "bob@example.org",
        "ORGANIZER:invalid:nomail": None,
        "SEQUENCE:0": None,
    }.items():
        (one,) = read(tmp_path, event(f"{NINE}\n{line}")).reservations
        assert one.owner == owner


@rule("The people of an event are the organizer and the attendees, but not those who declined, and rooms.")
def test_people(tmp_path: Path) -> None:
    lines = """ORGANIZER:mailto:Ada@Example.org
ATTENDEE;PARTSTAT=ACCEPTED:MAILTO:Bob@Example.org
ATTENDEE;EMAIL=carol@e.org:urn:uuid:1
ATTENDEE;PARTSTAT=DECLINED:mailto:dan@e.org
ATTENDEE;CUTYPE=ROOM:mailto:room@e.org
ATTENDEE:invalid:nomail
ATTENDEE;CN="Eve "the" Mallory":mailto:eve@e.org"""
    (one,) = read(tmp_path, event(f"{NINE}\n{lines}\nDESCRIPTION:private: yes")).reservations
    assert one.request.private
    assert one.people == ("ada@example.org", "bob@example.org", "carol@e.org")
    assert [one.people for one in read(tmp_path, event(NINE)).reservations] == [()]


def test_an_answer_to_an_invitation_makes_no_other_event_of_it(tmp_path: Path) -> None:
    asked = f"{NINE}\nATTENDEE:mailto:bob@e.org"
    reading = read(tmp_path, event(asked), event(f"{NINE}\nATTENDEE;PARTSTAT=DECLINED:mailto:bob@e.org"))
    assert [one.people for one in reading.reservations] == [("bob@e.org",)]
    assert reading.misunderstood == ()


# --- what is wrong -----------------------------------------------------------------------------------------

WRONG = {
    "no DTSTART": ("DURATION:PT1H", "has no DTSTART"),
    "DTSTART in words": ("DTSTART:tomorrow\nDURATION:PT1H", "DTSTART is 'tomorrow'"),
    "a time of day": ("DTSTART;VALUE=TIME:090000\nDURATION:PT1H", "DTSTART"),
    "no colon": ("DTSTART 20260302T090000Z\nDURATION:PT1H", "'DTSTART 20260302T090000Z' is not iCalendar"),
    "two DTSTART": ("DTSTART:20260302T090000Z\nDTSTART:20260303T090000Z\nDURATION:PT1H", "DTSTART stands 2"),
    "ends before it starts": ("DTSTART:20260302T090000Z\nDTEND:20260302T080000Z", "ends before"),
    "ends when it starts": ("DTSTART:20260302T090000Z\nDTEND:20260302T090000Z", "ends before or when"),
    "a negative length": ("DTSTART:20260302T090000Z\nDURATION:-PT1H", "ends before"),
    "a length in words": ("DTSTART:20260302T090000Z\nDURATION:long", "DURATION is 'long'"),
    "a length beyond reckoning": ("DTSTART:20260302T090000Z\nDURATION:P99999999999D", ""),
    "two ends": (f"{NINE}\nDURATION:PT1H", "both DTEND and DURATION"),
    "a day that ends at a time": ("DTSTART;VALUE=DATE:20260302\nDTEND:20260303T090000Z", "whole day"),
    "rubbish RRULE": (f"{NINE}\nRRULE:FREQ=often", "RRULE is 'FREQ=often'"),
    "rubbish EXDATE": (f"{DAILY_NINE}\nEXDATE:never", "EXDATE is 'never'"),
    "rubbish RDATE": (f"{NINE}\nRDATE:often", "RDATE is 'often'"),
    "a description broken by hand": (
        f"{NINE}\nDESCRIPTION:model: a/b\nreplicas: 2",
        "stands outside the description",
    ),
    "a line of prose": (f"{NINE}\nplease be on time", "'please be on time' is not iCalendar"),
    "no model": (f"{NINE}\nDESCRIPTION:replicas: many", "replicas is 'many'"),
    "a series with no model": (f"{DAILY_NINE}\nDESCRIPTION:replicas: many", "replicas is 'many'"),
    "an alarm without an end": (f"{NINE}\nBEGIN:VALARM\nTRIGGER:-PT5M", ""),
}


@rule("One event that is not understood never hides another.")
@pytest.mark.parametrize(("lines", "named"), WRONG.values(), ids=WRONG)
def test_wrong_events_hide_nothing(tmp_path: Path, lines: str, named: str) -> None:
    verdict = only_verdict(tmp_path, event(lines))
    assert named in verdict.reason
    assert verdict.title == MODEL or named == ""
    assert verdict.example


def test_events_without_name_or_end_hide_nothing(tmp_path: Path) -> None:
    assert "no UID" in only_verdict(tmp_path, event(NINE, uid="")).reason
    assert "No model" in only_verdict(tmp_path, event(NINE, title="")).reason
    assert "END:VEVENT" in only_verdict(tmp_path, event(NINE).removesuffix("END:VEVENT")).reason
    two_nameless = read(tmp_path, event(NINE, uid=""), event(DAILY_NINE, uid=""), GOOD)
    assert [one.key for one in two_nameless.misunderstood] == ["event-1", "event-2"]
    assert keys(two_nameless) == ["good"]


LINES = st.sampled_from(
    [
        *NINE.splitlines(),
        *MOVED.splitlines(),
        *(
            "RRULE:FREQ=DAILY",
            "RRULE:FREQ=WEEKLY;BYDAY=MO,XX",
            "RRULE:FREQ=MONTHLY;BYMONTHDAY=-31;UNTIL=2026",
        ),
        *("RRULE:FREQ=YEARLY;BYDAY=99MO;INTERVAL=-1", "RRULE:;;=", "DTSTART;TZID=:20260302T090000"),
        *(
            "DTSTART;VALUE=DATE:20260302",
            "DTEND;VALUE=DATE:20260303",
            "DTSTART;VALUE=PERIOD:20260302T090000Z/P1D",
        ),
        *(
            "DURATION:P",
            "DURATION:PT1H",
            "EXDATE:20260302T090000Z",
            "EXDATE;VALUE=DATE:20260303",
            "RDATE:20260302",
        ),
        *("RDATE;VALUE=PERIOD:20260306T090000Z/PT0S", "RECURRENCE-ID;RANGE=THISANDFUTURE:20260303T090000Z"),
        *(
            "RECURRENCE-ID;VALUE=DATE:20260303",
            "DTSTART;TZID=Our office:20260329T023000",
            "SEQUENCE:x",
            "CREATED:x",
        ),
        *(
            "STATUS:CANCELLED",
            "ORGANIZER:",
            "BEGIN:VALARM",
            "END:VALARM",
            "BEGIN:VTIMEZONE",
            "END:VTIMEZONE",
            ":",
            ";",
        ),
        *("UID:one", "SUMMARY:a", "DESCRIPTION:x\\", "END:", "BEGIN:", "\x00", "BEGIN:VEVENT", "END:VEVENT"),
    ]
)


@given(st.lists(st.lists(LINES, max_size=8), min_size=1, max_size=3))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=examples(60)
)
def test_whatever_is_in_the_events_hides_nothing(tmp_path: Path, blocks: list[list[str]]) -> None:
    reading = read(tmp_path, CUSTOM_ZONE, *(event("\n".join(lines)) for lines in blocks), GOOD)
    assert "good" in keys(reading)
    every_key = keys(reading) + [one.key for one in reading.misunderstood]
    assert len(set(every_key)) == len(every_key)


@rule(
    "An event that is misunderstood is reported while it overlaps the window, and always where its time is "
    "not known or it repeats; where only its end is not known, until a day after its start."
)
def test_when_verdicts_are_given(tmp_path: Path) -> None:
    bad_text = event(NINE, title="no model")
    no_end = event("DTSTART:20260302T090000Z")
    no_start = event("DURATION:PT1H")
    bad_rule = event(f"{NINE}\nRRULE:FREQ=SECONDLY")
    for part, window, seen in (
        (bad_text, ("2026-03-02 09:30", "2026-03-03"), 1),
        (bad_text, ("2026-03-02 10:00", "2026-03-03"), 0),
        (bad_text, ("2026-03-01", "2026-03-02 09:00"), 0),
        (no_end, ("2026-03-03 08:59", "2026-03-04"), 1),
        (no_end, ("2026-03-03 09:00", "2026-03-04"), 0),
        (no_end, ("2026-03-01", "2026-03-02 09:00"), 0),
        (no_start, ("2027-01-01", "2027-01-02"), 1),
        (bad_rule, ("2027-01-01", "2027-01-02"), 1),
    ):
        assert len(read(tmp_path, part, window=window).misunderstood) == seen


@rule("A series whose text is misunderstood is reported once, not once for each instance.")
def test_one_verdict_for_a_series(tmp_path: Path) -> None:
    series = event(f"{NINE}\nRRULE:FREQ=DAILY", title="no model")
    for window in (("2026-03-01", "2026-04-01"), ("2026-03-10", "2026-04-01")):
        (verdict,) = read(tmp_path, series, window=window).misunderstood
        assert verdict.key == "one"
        assert verdict.start == max(at("2026-03-02 09:00"), at(window[0]).replace(hour=9))


@rule("A text that is not complete makes the calendar unavailable: it is not an empty calendar.")
def test_half_written(tmp_path: Path) -> None:
    path = tmp_path / "calendar.ics"
    whole = calendar(GOOD, event(NINE))
    source = IcsCalendar(str(path))
    for cut in range(0, whole.index("END:VCALENDAR") + len("END:VCALENDAR"), 7):
        path.write_text(whole[:cut])
        with pytest.raises(CalendarUnavailable):
            source.read(at("2026-03-01"), at("2026-04-01"))
    path.write_text(whole)
    assert len(source.read(at("2026-03-01"), at("2026-04-01")).reservations) == 2


# --- the docstring itself -----------------------------------------------------------------------------------


def test_every_sentence_of_the_docstring_is_tested() -> None:
    text = inspect.getdoc(IcsCalendar) or ""
    rules = [line for line in text.splitlines() if line.startswith("    ")]
    sentences = re.split(r"(?<=[.]) (?=[A-Z`])", " ".join(line.strip() for line in rules))
    assert set(sentences) == TESTED
