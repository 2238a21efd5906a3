"""Times as an iCalendar text gives them: readings of a clock in a zone, lengths, and zones by name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import icalendar
from icalendar.timezone.windows_to_olson import WINDOWS_TO_OLSON

# What the libraries below raise when fed with nonsense; found by feeding them with it.
LIBRARY_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    TypeError,
    ValueError,
)

EARLIEST_YEAR, LATEST_YEAR = 1970, 2199
"""Years an event may lie in: far from both ends of what datetime can reckon with."""


class NotUnderstood(Exception):
    """Something in an event cannot be understood: a reason in one sentence, and an example."""

    def __init__(self, reason: str, example: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.example = example


@dataclass(frozen=True)
class Moment:
    """A DATE or DATE-TIME: a reading of the clock (naive) in a zone; a DATE reads midnight."""

    wall: datetime
    zone: tzinfo
    all_day: bool = False

    def instant(self) -> datetime:
        """The UTC instant, by RFC 5545 section 3.3.5.

        A reading that occurs twice means the first; one that the clock skips is taken with the offset
        from before the skip. The latter is reckoned here because zones made of a VTIMEZONE do otherwise.
        """
        instant = self.wall.replace(tzinfo=self.zone, fold=0).astimezone(UTC)
        if instant.astimezone(self.zone).replace(tzinfo=None) != self.wall:
            before = (self.wall - timedelta(days=1)).replace(tzinfo=self.zone).utcoffset()
            return (self.wall - (before or timedelta(0))).replace(tzinfo=UTC)
        return instant

    def shifted(self, by: timedelta) -> Moment:
        return Moment(self.wall + by, self.zone, self.all_day)

    def key(self) -> str:
        """Basic format: ``20260302`` for a DATE, ``20260302T090000Z`` for an instant."""
        return f"{self.wall:%Y%m%d}" if self.all_day else f"{self.instant():%Y%m%dT%H%M%SZ}"


@dataclass(frozen=True)
class Length:
    """How long an event lasts: whole days by the calendar, then exact time (RFC 5545 section 3.3.6)."""

    days: timedelta
    exact: timedelta

    def end(self, start: Moment) -> datetime:
        return start.shifted(self.days).instant() + self.exact


class Zones:
    """Time zones by the names a calendar uses for them.

    ``default`` is the zone of floating and all-day times unless the calendar names its own.
    """

    def __init__(self, default: tzinfo) -> None:
        self.calendar_zone: tzinfo | None = default
        self.calendar_zone_name = ""
        self._own: dict[str, tzinfo | None] = {}

    def set_calendar_zone(self, name: str) -> None:
        self.calendar_zone_name = name
        self.calendar_zone = self.find(name)

    def add(self, lines: Iterable[str]) -> None:
        """Take in a VTIMEZONE; one that cannot be used makes its events a fault, not the calendar."""
        text = "\n".join(lines)
        # Zones change at most yearly; a rule of seconds would be walked from 1970 at every look-up.
        rules = re.findall(r"^RRULE[^:\n]*:(.*)$", text, re.MULTILINE | re.IGNORECASE)
        try:
            component = icalendar.Timezone.from_ical(text) if all(map(_yearly, rules)) else None
            if isinstance(component, icalendar.Timezone):
                zone = component.to_tz(lookup_tzid=False)
                zone.utcoffset(datetime(EARLIEST_YEAR, 1, 2))  # noqa: DTZ001
                self._own[str(component["TZID"])] = zone
        except LIBRARY_ERRORS:
            return

    def find(self, name: str) -> tzinfo | None:
        """The zone of that name: the tz database, Windows' names, then the calendar's own VTIMEZONEs.

        A name like ``/vendor/Europe/Berlin`` (RFC 5545 section 3.2.19) is tried by its tail as well.
        """
        name = name.strip()
        parts = name.strip("/").split("/")[-4:]
        tails = ["/".join(parts[skip:]) for skip in range(len(parts) if name.startswith("/") else 1)]
        for candidate in (*tails, WINDOWS_TO_OLSON.get(name)):
            try:
                if candidate:
                    return ZoneInfo(candidate)
            except LIBRARY_ERRORS:
                continue
        return self._own.get(name)

    def of(self, name: str | None, what: str) -> tzinfo:
        """The zone of a property: its TZID, or the calendar's where it has none."""
        zone = self.calendar_zone if name is None else self.find(name)
        if zone is not None:
            return zone
        whose = f"The time zone {name!r}" if name else f"The calendar's time zone {self.calendar_zone_name!r}"
        raise NotUnderstood(
            f"{whose} of {what} is not known, and the calendar does not define it.",
            "DTSTART;TZID=Europe/Berlin:20260302T090000",
        )


def _yearly(rule: str) -> bool:
    return "FREQ=YEARLY" in rule.upper()
