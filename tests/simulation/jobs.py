"""What a daemon wants done in time, by a clock moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from scheduler.jobs import BOUNDARY_GRACE, MOST_BOUNDARIES


@dataclass
class Due:
    """Something to be done."""

    name: str
    at: datetime
    do: Callable[[], None]
    seconds: float = 0.0


class SimulatedJobs:
    """Obeys `scheduler.jobs.Jobs`; does nothing by itself: ask for what is `due`."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self.intervals: dict[str, Due] = {}
        self.boundaries: list[Due] = []
        self._soon: Due | None = None

    def every(self, name: str, seconds: float, do: Callable[[], None]) -> None:
        self.intervals[name] = Due(name, self._clock(), do, seconds)

    def cancel(self, name: str) -> None:
        self.intervals.pop(name, None)

    def has(self, name: str) -> bool:
        return name in self.intervals

    def at(self, instants: Iterable[datetime], do: Callable[[], None]) -> None:
        wanted = sorted(set(instants))[:MOST_BOUNDARIES]
        self.boundaries = [Due("boundary", one + BOUNDARY_GRACE, do) for one in wanted]

    def soon(self, do: Callable[[], None]) -> None:
        self._soon = Due("soon", self._clock() + BOUNDARY_GRACE, do)

    def start(self) -> None:
        """Nothing runs by itself."""

    def stop(self) -> None:
        self.intervals, self.boundaries, self._soon = {}, [], None

    def look_at_clock(self) -> None:
        """It moves by hand; who sets it calls `clock_was_set`."""

    def clock_was_set(self) -> None:
        """What comes at an interval comes at once, as it does by this machine's clock."""
        self.at_least_every("tick", 0.0)
        self.at_least_every("watch", 0.0)

    def at_least_every(self, name: str, seconds: float) -> None:
        """What comes at an interval comes within so many seconds from now."""
        if name in self.intervals:
            soonest = self._clock() + timedelta(seconds=seconds)
            self.intervals[name].at = min(self.intervals[name].at, soonest)

    def due(self) -> Due | None:
        """What is to be done next."""
        coming = [*self.intervals.values(), *self.boundaries[:1], *([self._soon] if self._soon else [])]
        return min(coming, key=lambda one: one.at, default=None)

    def done(self, due: Due, paces: Mapping[str, float] | None = None) -> None:
        """It is being done: the next time comes later, or not at all.

        Args:
            paces: seconds to count with instead of those asked for, by name.
        """
        if due.name in self.intervals:
            due.at += timedelta(seconds=(paces or {}).get(due.name, due.seconds))
        elif due is self._soon:
            self._soon = None
        else:
            self.boundaries.remove(due)
