"""Times as people write them on a command line."""

from __future__ import annotations

import difflib
import re
from datetime import UTC, datetime, timedelta, tzinfo

from scheduler.errors import OperatorError

FURTHEST = timedelta(days=36_525)
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
WINDOW_EXAMPLES = "“tomorrow 14:00-18:00”, “friday 22:00-06:00”, “2026-12-24 09:00 for 3h” or “+90m to 18:00”"

DASH = re.compile("[–—]")
IDLE = re.compile(r"[,;]|\b(?:on|at|from)(?=\s)", re.IGNORECASE)
"""What may stand in a window and says nothing."""

DAYS = (
    *("today", "tomorrow", "yesterday", "tonight", "noon", "midnight", "morning", "afternoon", "evening"),
    *("days", "week", "weeks", "weekend", *WEEKDAYS),
    *("january", "february", "march", "april", "may", "june", "july", "august"),
    *("september", "october", "november", "december"),
)
DATE = re.compile(
    r"\d{1,2}\.\d{1,2}\.(?:\d{2,4})?|\d{1,4}/\d{1,2}(?:/\d{1,4})?|\d{4}-\d{2}.*|\d{1,2}:\d{2}.*"
    r"|\d{1,2}(?:st|nd|rd|th|am|pm|h)"
)
RESEMBLANCE = 0.85
"""difflib ratio from which a word is taken for one of `DAYS`: ``tommorow``, ``fridays``."""

_CLOCK = r"\d{1,2}:\d{2}(?::\d{2})?"


class SystemZone(tzinfo):
    """The zone of this machine's clock, with the offset that holds at each instant."""

    def utcoffset(self, dt: datetime | None) -> timedelta | None:
        return None if dt is None else dt.replace(tzinfo=None).astimezone().utcoffset()

    def dst(self, dt: datetime | None) -> timedelta | None:
        return None

    def tzname(self, dt: datetime | None) -> str | None:
        return None if dt is None else dt.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, dt: datetime) -> datetime:
        local = dt.replace(tzinfo=UTC).astimezone()
        first = local.replace(tzinfo=self, fold=0)
        # In the hour that comes twice when clocks are put back, the second one is told apart by its fold.
        return first if first.utcoffset() == local.utcoffset() else first.replace(fold=1)


def parse_moment(text: str, now: datetime) -> datetime:
    """Read ``now``, ``14:00`` (today), ``tomorrow 14:00``, ``friday 14:00``, ``+90m`` (from now) or ISO 8601.

    A time without a zone is in the zone of ``now``. A weekday is the next of its name, today included.

    Raises:
        OperatorError: it is none of these.
    """
    try:
        moment = _parse(text, now)
        if abs(moment - now) > FURTHEST:
            raise ValueError("further away than any calendar is read")
    except (ValueError, OverflowError) as error:
        raise OperatorError(
            f"“{text}” is not a time this can plan for.",
            "Write 14:00, “tomorrow 14:00”, “friday 14:00”, +90m or 2026-12-24T14:00.",
        ) from error
    return moment


def parse_window(text: str, now: datetime) -> tuple[datetime, datetime]:
    """Read a start and an end: ``tomorrow 14:00-18:00``, ``2026-12-24 09:00 for 3h``, ``+90m to 18:00``.

    An end that is a clock time only is on the day of the start, or on the next where it would not be
    after it; one like ``+2h`` counts from the start. Without a start, as in ``for 3h``, it is now.
    A clock time that comes twice, when clocks are put back, is the first of the two, for an end the first
    after the start; one that is skipped is as much later as clocks are put forward.

    Raises:
        OperatorError: it is none of these, it lasts no time, or it is over.
    """
    start, end = _read_window(text, now)
    if not is_after(end, now):
        raise OperatorError(f"“{text}” is over already.", f"Write {WINDOW_EXAMPLES}.")
    return start, end


def split_window(text: str, now: datetime) -> tuple[str, str]:
    """What stands before the window at the end of a text, and the window, the longest there is.

    Raises:
        OperatorError: the text does not end in a window.
    """
    words = text.split()
    for first in range(1, len(words)):
        window = " ".join(words[first:])
        try:
            _read_window(window, now)
        except OperatorError:
            continue
        return " ".join(words[:first]), window
    raise OperatorError(
        f"“{text}” does not end in a start and an end.", f"Write after the model {WINDOW_EXAMPLES}."
    )


def ends_like_a_time(text: str) -> bool:
    """Whether the last word, before any numbers, is one that people tell a day or an hour with."""
    word = re.sub(r"(?:\s+\d+)+$", "", text.lower().strip(" .")).rpartition(" ")[2]
    is_short = len(word) >= 3 and any(day.startswith(word) for day in DAYS)
    near = difflib.get_close_matches(word, DAYS, n=1, cutoff=RESEMBLANCE)
    return is_short or bool(near) or DATE.fullmatch(word) is not None


def is_after(one: datetime, other: datetime) -> bool:
    """Whether an instant is after another, whatever clocks show: in one zone ``>`` goes by these."""
    return one.astimezone(UTC) > other.astimezone(UTC)


def _read_window(text: str, now: datetime) -> tuple[datetime, datetime]:
    """A window, which may be over."""
    try:
        start, end = _window(" ".join(IDLE.sub(" ", DASH.sub("-", text)).split()), now)
        if not is_after(end, start):
            raise ValueError("it does not last")
    except (ValueError, OverflowError, OperatorError) as error:
        raise OperatorError(
            f"“{text}” is not a start and an end this can plan for.", f"Write {WINDOW_EXAMPLES}."
        ) from error
    return start, end


def _parse(text: str, now: datetime) -> datetime:
    written = text.strip().lower()
    if written == "now":
        return now
    if match := re.fullmatch(r"\+(\d{1,6})([smhd])", written):
        return _later(now, int(match[1]) * SECONDS[match[2]])
    day, _, clock = written.rpartition(" ")
    if re.fullmatch(_CLOCK, clock) and (days := _days_ahead(day, now)) is not None:
        time = datetime.strptime(clock, "%H:%M:%S" if clock.count(":") == 2 else "%H:%M").time()  # noqa: DTZ007
        # In the second of an hour that comes twice, what its clock shows today is in that one.
        time = time.replace(fold=0 if days else now.fold)
        return datetime.combine(now.date() + timedelta(days=days), time, tzinfo=now.tzinfo)
    parsed = datetime.fromisoformat(text.strip())
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=now.tzinfo)


def _days_ahead(day: str, now: datetime) -> int | None:
    if day in ("", "today", "tomorrow"):
        return int(day == "tomorrow")
    found = [number for number, name in enumerate(WEEKDAYS) if len(day) >= 3 and name.startswith(day)]
    return (found[0] - now.weekday()) % 7 if found else None


def _later(moment: datetime, seconds: float) -> datetime:
    """So many seconds later, also where clocks are changed in between."""
    return (moment.astimezone(UTC) + timedelta(seconds=seconds)).astimezone(moment.tzinfo)


def _window(text: str, now: datetime) -> tuple[datetime, datetime]:
    if match := re.fullmatch(r"(?:(.+) )?for (\d{1,6}(?:\.\d{1,6})?) ?(s|m|min|h|hours?|d|days?)", text):
        start = parse_moment(match[1] or "now", now)
        return start, _later(start, float(match[2]) * SECONDS[match[3][0]])
    if match := re.fullmatch(rf"(?:(.+) )?({_CLOCK}) ?- ?({_CLOCK})", text):
        return _until(parse_moment(f"{match[1] or ''} {match[2]}", now), match[3], now)
    if match := re.fullmatch(r"(.+) (?:to|until|-) (.+)", text):
        return _until(parse_moment(match[1], now), match[2], now)
    raise ValueError("it has no end")


def _until(start: datetime, end: str, now: datetime) -> tuple[datetime, datetime]:
    if end.startswith("+"):
        return start, parse_moment(end, start)
    if not re.fullmatch(_CLOCK, end):
        return start, parse_moment(end, now)
    same_day = parse_moment(end, start)
    again = same_day.replace(fold=1)
    ends = (same_day, again) if same_day > start else (again, parse_moment(f"tomorrow {end}", start))
    return start, next((instant for instant in ends if is_after(instant, start)), same_day)
