"""What every kind of calendar offers the daemon."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from calendars.reservation import Reading


class CalendarUnavailable(Exception):
    """A calendar could not be read, so nothing is known about it. It is *not* an empty calendar.

    ``reason`` is one sentence naming the calendar and what went wrong; ``remedy`` says what to do.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason} {remedy}")
        self.reason = reason
        self.remedy = remedy


class CalendarSource(Protocol):
    """A calendar that can be read."""

    @property
    def name(self) -> str:
        """What a person calls this calendar: its path, URL or id, without secrets."""
        ...

    def read(self, start: datetime, end: datetime) -> Reading:
        """Read every occurrence that overlaps ``[start, end)``; both are aware instants.

        Raises:
            CalendarUnavailable: the calendar as a whole could not be read. A single event that
                cannot be understood never raises: it is in ``Reading.misunderstood``.
        """
        ...
