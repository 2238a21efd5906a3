"""What the daemon last knew, for whoever shows it: the page, the metrics. They read it; the loop never waits.

The daemon publishes a `View` at the end of every pass, and whenever it looked at what is loading.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from calendars.reservation import Reading
from scheduler.bookings import Bookings
from scheduler.front import Lease
from scheduler.heartbeat import Heartbeat, OnItsWay
from scheduler.types import Observed, Plan

OURS = Lease(ours=True)


@dataclass(frozen=True)
class CalendarView:
    """How one calendar is. ``read_at`` is when it was last read well, None if it never was.

    ``reason`` and ``remedy`` tell why it cannot be read now; empty where it can.
    """

    name: str
    read_at: datetime | None
    reason: str = ""
    remedy: str = ""

    @property
    def failing(self) -> bool:
        """Whether it could not be read the last time."""
        return bool(self.reason)

    def age(self, at: datetime) -> timedelta | None:
        """How old its last good reading is at an instant."""
        return None if self.read_at is None else at - self.read_at


@dataclass(frozen=True)
class View:
    """All the daemon knew at one moment; ``beat`` is what it says of itself.

    ``plan``, ``observed`` and ``gateway`` (Serve's status and message) are None until there were any, and
    the last there were where a pass failed. ``readings`` are the last good ones.
    ``next_pass`` is when the loop runs again at the latest.
    """

    beat: Heartbeat
    plan: Plan | None = None
    observed: Observed | None = None
    gateway: tuple[str, str] | None = None
    readings: tuple[Reading, ...] = ()
    calendars: tuple[CalendarView, ...] = ()
    lease: Lease = OURS
    next_pass: datetime | None = None

    @property
    def at(self) -> datetime:
        """When it was published."""
        return self.beat.at

    @property
    def passes(self) -> int:
        """How many passes of the loop there were since the daemon's start."""
        return self.beat.passes

    @property
    def progress(self) -> Mapping[str, OnItsWay]:
        """How far what is loading is, by application."""
        return {one.application: one for one in self.beat.on_its_way}

    @property
    def failing(self) -> tuple[CalendarView, ...]:
        """The calendars that cannot be read."""
        return tuple(one for one in self.calendars if one.failing)


class Board:
    """Holds the last view; written by one thread, read by any number."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._version = 0
        self._view: View | None = None

    def publish(self, view: View) -> None:
        """Put this in the place of what was there, and wake whoever waits for it."""
        with self._changed:
            self._version += 1
            self._view = view
            self._changed.notify_all()

    @property
    def current(self) -> View | None:
        """The last view; None before the first."""
        return self._view

    @property
    def version(self) -> int:
        """How many views there were."""
        return self._version

    def wait_for(self, after_version: int, timeout_seconds: float) -> int:
        """Until there is a later view than that one, or the time is over; returns the version there is."""
        with self._changed:
            self._changed.wait_for(lambda: self._version > after_version, timeout_seconds)
            return self._version


def calendar_views(bookings: Bookings) -> tuple[CalendarView, ...]:
    """How the calendars are."""
    read_at = bookings.read_at
    found = []
    for source in bookings.sources:
        problem = bookings.failing.get(source.name)
        reason, remedy = (problem.reason, problem.remedy) if problem else ("", "")
        found.append(CalendarView(source.name, read_at.get(source.name), reason, remedy))
    return tuple(found)
