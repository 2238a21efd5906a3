"""The instances of a series: RFC 5545 rules expanded in the zone the series names.

Sources: discovery document (``Event.recurrence``: RRULE, EXRULE, RDATE and EXDATE lines, no DTSTART;
``EventDateTime.timeZone``: "the time zone in which the recurrence is expanded"); Google's guide "Recurring
events" (an instance keeps its ``originalStartTime``; its id is the series' id and that start).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from dateutil.rrule import rrulestr

from tests.google_server.errors import bad_request
from tests.google_server.times import Json, Moment, as_instant, duration, moment, zone

HORIZON = timedelta(days=730)
"""How far a series is expanded when the request names no ``timeMax``; Google has a limit of its own."""

MOST_INSTANCES = 2500


def instance_id(series_id: str, original: Moment) -> str:
    """``base_20261122T090000Z``, or ``base_20261122`` when the series is all-day."""
    if isinstance(original, datetime):
        return f"{series_id}_{original.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    return f"{series_id}_{original:%Y%m%d}"


def split_instance_id(event_id: str) -> tuple[str, Moment] | None:
    """Series id and original start, or None where the id is no instance's."""
    base, _, suffix = event_id.rpartition("_")
    for form in ("%Y%m%dT%H%M%SZ", "%Y%m%d"):
        try:
            at = datetime.strptime(suffix, form).replace(tzinfo=UTC)
        except ValueError:
            continue
        if base:
            return base, at if "T" in form else at.date()
    return None


class Series:
    """A series' rule, ready to be asked for its original starts."""

    def __init__(self, data: Json, calendar_zone: str) -> None:
        self.calendar_zone = calendar_zone
        self.first = moment(data["start"], "start", calendar_zone)
        self.length = duration(self.first, moment(data["end"], "end", calendar_zone))
        self.all_day = not isinstance(self.first, datetime)
        self.zone = zone(calendar_zone if self.all_day else data["start"].get("timeZone", calendar_zone))
        lines = [self._line(line) for line in data["recurrence"]]
        try:
            self._rules = rrulestr("\n".join(lines), dtstart=self._wall(self.first), forceset=True)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise bad_request("Invalid recurrence rule.") from None
        if not any(line.upper().startswith("RRULE") for line in lines):
            self._rules.rdate(self._wall(self.first))

    def _wall(self, at: Moment) -> datetime:
        """The naive wall-clock time rules are counted in."""
        if isinstance(at, datetime):
            return at.astimezone(self.zone).replace(tzinfo=None)
        return datetime.combine(at, time.min)

    def _moment(self, wall: datetime) -> Moment:
        """A wall-clock time in a DST gap moves past it; in a fold the first of the two is meant."""
        return wall.date() if self.all_day else wall.replace(tzinfo=self.zone).astimezone(UTC)

    def _line(self, line: str) -> str:
        name, _, value = line.partition(":")
        kind, _, options = name.partition(";")
        if kind.upper() not in ("RRULE", "EXRULE", "RDATE", "EXDATE") or not value:
            raise bad_request("Invalid recurrence rule.")
        if kind.upper() in ("RRULE", "EXRULE"):
            parts = [part.split("=", 1) for part in value.split(";") if part]
            if any(len(part) != 2 for part in parts):
                raise bad_request("Invalid recurrence rule.")
            return f"{kind}:" + ";".join(
                f"{key}={self._naive(text, self.zone, last=True) if key.upper() == 'UNTIL' else text}"
                for key, text in parts
            )
        given = dict(part.split("=", 1) for part in options.upper().split(";") if "=" in part)
        names = dict(part.split("=", 1) for part in options.split(";") if "=" in part)
        source = zone(names.get("TZID", str(self.zone))) if "TZID" in given else self.zone
        return f"{kind}:" + ",".join(self._naive(text, source) for text in value.split(","))

    def _naive(self, text: str, source: ZoneInfo, last: bool = False) -> str:
        """A basic-format time as wall-clock time of the series; an UNTIL date means all that day."""
        try:
            if "T" not in text:
                bound = time.max if last else time.min
                return f"{datetime.combine(date.fromisoformat(text), bound):%Y%m%dT%H%M%S}"
            at = datetime.fromisoformat(text)
        except ValueError:
            raise bad_request("Invalid recurrence rule.") from None
        at = at if at.tzinfo else at.replace(tzinfo=source)
        return f"{at.astimezone(self.zone):%Y%m%dT%H%M%S}"

    def starts(self, low: datetime | None, high: datetime | None, now: datetime) -> Iterator[Moment]:
        """Original starts of the instances that end after ``low`` and start before ``high``."""
        high = high or max(now, as_instant(self.first, self.calendar_zone)) + HORIZON
        # a day of slack: wall-clock time and instants drift apart by at most an offset
        after = None
        if low is not None:
            after = low.astimezone(self.zone).replace(tzinfo=None) - self.length - timedelta(days=1)
        for count, wall in enumerate(self._rules.xafter(after, inc=True) if after else self._rules):
            at = self._moment(wall)
            begin = as_instant(at, self.calendar_zone)
            if begin >= high or count >= MOST_INSTANCES:
                return
            if low is None or self.end(at) > low:
                yield at

    def end(self, start: Moment) -> datetime:
        return as_instant(start + self.length, self.calendar_zone)

    def has(self, original: Moment) -> bool:
        """Whether the rule yields an instance that starts then."""
        begin = as_instant(original, self.calendar_zone)
        around = self.starts(begin - timedelta(seconds=1), begin + timedelta(seconds=1), begin)
        return any(at == original for at in around)
