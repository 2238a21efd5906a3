"""What every kind of calendar offers the daemon."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Protocol, Self

from pydantic import Field, model_validator

from calendars.reservation import Frozen, Reading, UtcDatetime


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


Scope = Literal["event", "instance", "series"]
"""What goes when a booking is cancelled: a single event, one instance of a series, or all of them."""


class NewEvent(Frozen):
    """An event to be made. ``event_id`` is 5 to 64 digits and letters from a to v, and new (Google's rule).

    ``made_at`` is when it was booked. Times are exact to the second.
    """

    event_id: Annotated[str, Field(pattern="^[a-v0-9]{5,64}$")]
    title: Annotated[str, Field(max_length=1000)]
    description: str
    start: UtcDatetime
    end: UtcDatetime
    made_at: UtcDatetime

    @model_validator(mode="after")
    def _end_follows_start(self) -> Self:
        if self.end.replace(microsecond=0) <= self.start.replace(microsecond=0):
            raise ValueError(f"end {self.end.isoformat()} is not after start {self.start.isoformat()}")
        return self


class Bookable(Protocol):
    """A calendar in which events can be made and cancelled."""

    @property
    def name(self) -> str:
        """What a person calls this calendar, the same as when it is read."""
        ...

    def insert(self, event: NewEvent) -> str:
        """Make an event, and answer the key that its reservation will have.

        Raises:
            CalendarUnavailable: it was not made, or nobody knows; the reason and the remedy say which.
        """
        ...

    def scope(self, key: str) -> Scope | None:
        """What cancelling this key would take away; None for a key that the last reading did not have.

        Each occurrence of a series has its key; the key of the series itself stands for all of it.
        """
        ...

    def cancel(self, key: str) -> None:
        """Take a booking of the last reading out of the calendar.

        Raises:
            CalendarUnavailable: it was not taken out, or nobody knows; the reason and the remedy say which.
        """
        ...
