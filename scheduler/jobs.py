"""When the daemon's work comes due: at an interval, at instants, and at once after the clock was set."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from loguru import logger

BOUNDARY_GRACE = timedelta(milliseconds=50)
"""A boundary is looked at this long after its instant, so that it lies in the past for sure."""

MOST_BOUNDARIES = 64
CLOCK_JUMP_SECONDS = 2.0
"""A clock that gains or loses more than this between two looks was set."""


class Jobs(Protocol):
    """One thing is done at a time; what comes due twice meanwhile is done once."""

    def every(self, name: str, seconds: float, do: Callable[[], None]) -> None:
        """Do something now and at an interval, in place of what has that name."""
        ...

    def cancel(self, name: str) -> None:
        """Not any more; nothing happens where it is not known."""
        ...

    def has(self, name: str) -> bool:
        """Whether something of that name is to be done."""
        ...

    def at(self, instants: Iterable[datetime], do: Callable[[], None]) -> None:
        """Do something at each of these instants (the nearest `MOST_BOUNDARIES`), and at no others."""
        ...

    def soon(self, do: Callable[[], None]) -> None:
        """Do something as soon as what is being done has ended."""
        ...

    def start(self) -> None: ...

    def stop(self) -> None:
        """Begin nothing more; does not wait."""
        ...

    def look_at_clock(self) -> None:
        """Make up for a clock that was set since the last look; to be called every second or so."""
        ...


class ClockJobs:
    """Jobs by this machine's clock."""

    def __init__(self) -> None:
        # One worker: whatever comes due, one thing is done at a time.
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(1)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=UTC,
        )
        self._intervals: dict[str, tuple[float, Callable[[], None]]] = {}
        self._offset = _offset()

    def every(self, name: str, seconds: float, do: Callable[[], None]) -> None:
        self._intervals[name] = (seconds, do)
        self._scheduler.add_job(
            do,
            "interval",
            seconds=seconds,
            id=name,
            next_run_time=datetime.now(UTC),
            replace_existing=True,
        )

    def cancel(self, name: str) -> None:
        if self._intervals.pop(name, None):
            self._scheduler.remove_job(name)

    def has(self, name: str) -> bool:
        return name in self._intervals

    def at(self, instants: Iterable[datetime], do: Callable[[], None]) -> None:
        wanted = {
            f"at {one.isoformat()}": one + BOUNDARY_GRACE for one in sorted(set(instants))[:MOST_BOUNDARIES]
        }
        for job in self._scheduler.get_jobs():
            if job.id.startswith("at ") and job.id not in wanted:
                self._scheduler.remove_job(job.id)
        for name, when in wanted.items():
            self._scheduler.add_job(do, "date", run_date=when, id=name, replace_existing=True)

    def soon(self, do: Callable[[], None]) -> None:
        self._scheduler.add_job(do, "date", run_date=datetime.now(UTC), id="soon", replace_existing=True)

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        self._scheduler.shutdown(wait=False)

    def look_at_clock(self) -> None:
        """Set back, the clock would keep everything waiting until it is again what it was."""
        offset = _offset()
        jumped, self._offset = offset - self._offset, offset
        if abs(jumped) <= CLOCK_JUMP_SECONDS:
            return
        logger.warning("The clock was set {} by {:.0f} s.", "forward" if jumped > 0 else "back", abs(jumped))
        for name, (seconds, do) in list(self._intervals.items()):
            self.every(name, seconds, do)


def _offset() -> float:
    return time.time() - time.monotonic()
