"""All calendars together: read at once, remembered on disk, and answered in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeGuard

from loguru import logger

from calendars.google import GoogleCalendar
from calendars.ics import IcsCalendar
from calendars.reservation import Reading
from calendars.snapshot import SnapshotProblem, Snapshots
from calendars.source import CalendarSource, CalendarUnavailable
from calendars.write_back import AnswersBack, Notice, Report
from scheduler.errors import OperatorError
from scheduler.planning.rules import week_of
from scheduler.settings import Settings

ENDED_FOR = timedelta(hours=1)
"""How long after its end a booking is still read, to be told that it is over."""


SAVE_EVERY = timedelta(minutes=10)
"""How old the snapshot of a calendar that does not change may become."""

WRITES_PER_MINUTE = 400
"""Google allows 600 requests a minute; what is left is for reading, for trying again and for boundaries."""


@dataclass(frozen=True)
class Known:
    """The last good reading of a calendar, and when it was made."""

    reading: Reading
    read_at: datetime


class Bookings:
    """What the calendars say, or said when they could last be read.

    A calendar that cannot be read is not an empty one: its last good reading stands, over a restart
    too, for as long as ``calendar.max_stale_hours``. After that nothing is done at all until it can
    be read again; what serves keeps serving.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        keep: bool = False,
        calendars: Callable[[Settings], tuple[CalendarSource, ...]] | None = None,
    ) -> None:
        """``keep``: good readings are saved for the next start; for the one daemon of a state directory.
        ``calendars`` makes them from the settings, `calendar_sources` where it is None."""
        self._settings = settings
        self._keeps = keep
        self._snapshots = Snapshots(settings.in_state_dir("snapshots"))
        self._known: dict[str, Known] = {}
        self._saved: dict[str, Known] = {}
        self._told: dict[str, datetime] = {}
        """When each calendar that is answered in had last been told everything."""
        self._warned: dict[str, str] = {}
        self.recalled: dict[str, Known] = {}
        """What each calendar said when it was last read before this start."""
        self.sources = (calendars or calendar_sources)(settings)
        self.failing: dict[str, CalendarUnavailable] = {}

    @property
    def readings(self) -> tuple[Reading, ...]:
        """The last good reading of each calendar."""
        return tuple(known.reading for known in self._known.values())

    def known(self, name: str) -> Known | None:
        """What is known of a calendar, None if it has never been read."""
        return self._known.get(name)

    def refresh(self, now: datetime, around: datetime | None = None) -> None:
        """Read every calendar, all at the same time: what has just ended, what is on, and the horizon.

        Args:
            now: the present.
            around: the instant to plan for, if that is another one.
        """
        for source in self.sources:
            self._recall(source.name, now)
        for source, outcome in read_all(self.sources, *self._window(around or now)):
            if isinstance(outcome, Reading):
                if answers_back(source):
                    before = self._known.get(source.name)
                    self._told.setdefault(source.name, before.read_at if before else now)
                self._known[source.name] = Known(outcome, now)
                self.failing.pop(source.name, None)
                self._keep(source.name, outcome, now)
            else:
                self.failing[source.name] = outcome

    def require(self, at: datetime) -> None:
        """Make sure that enough is known to act on.

        Raises:
            OperatorError: a calendar has never been read, or not for too long.
        """
        longest = timedelta(hours=self._settings.calendar.max_stale_hours)
        for source in self.sources:
            name, known = source.name, self._known.get(source.name)
            problem = self.failing.get(name) or CalendarUnavailable(
                f"The calendar {name} is still being read.", "It is waited for."
            )
            if known is None:
                raise OperatorError(problem.reason, problem.remedy)
            if at - known.read_at > longest:
                hours = (at - known.read_at) / timedelta(hours=1)
                raise OperatorError(
                    f"The calendar {name} could last be read {hours:.0f} hours ago, which is too long ago "
                    f"to go by: {problem.reason}",
                    problem.remedy,
                )

    def write_back(self, reports: Mapping[str, Iterable[Report]]) -> list[Notice]:
        """Say in the calendars that can be answered in what became of their events; returns what to log."""
        notices: list[Notice] = []
        for source in self.sources:
            if answers_back(source) and source.name not in self.failing:
                answer = source.report(reports.get(source.name, ()))
                if source.name in self._known and not answer.problem and not answer.waiting:
                    self._told[source.name] = self._known[source.name].read_at
                notices += answer.notices
                notices += [answer.problem] if answer.problem else []
        return notices

    def close(self) -> None:
        """Give connections back."""
        for source in self.sources:
            if isinstance(source, GoogleCalendar):
                source.close()

    @property
    def read_at(self) -> dict[str, datetime]:
        """When each calendar was last read, by its name."""
        return {name: known.read_at for name, known in self._known.items()}

    def _window(self, at: datetime) -> tuple[datetime, datetime]:
        # What ended while a calendar could not be read or written to, or no daemon ran, is still to be told.
        longest = timedelta(hours=self._settings.calendar.max_stale_hours)
        last = min([at, *(known.read_at for known in self._known.values()), *self._told.values()])
        start = max(last, at - longest) - ENDED_FOR
        if self._settings.booking.gpu_hours_per_week is not None:
            start = min(start, week_of(at))
        return start, at + timedelta(days=self._settings.calendar.horizon_days)

    def _keep(self, name: str, reading: Reading, at: datetime) -> None:
        """Save a reading that says something new, and now and then one that does not, for its age."""
        saved = self._saved.get(name)
        if not self._keeps:
            return
        if saved and saved.reading == reading and at - saved.read_at < SAVE_EVERY:
            return
        self._warn(name, self._snapshots.save(name, reading, at))
        self._saved[name] = Known(reading, at)

    def _recall(self, name: str, now: datetime) -> None:
        if name in self._known:
            return
        found = self._snapshots.load(name)
        if isinstance(found, SnapshotProblem):
            self._warn(name, found)
        elif found is not None and found.read_at <= now:
            self._known[name] = self.recalled[name] = Known(found.reading, found.read_at)

    def _warn(self, name: str, problem: SnapshotProblem | None) -> None:
        """Log a problem with a snapshot once; it costs nothing but the memory of the next start."""
        if problem is not None and self._warned.get(name) != problem.reason:
            logger.warning("{} {}", problem.reason, problem.remedy)
        self._warned[name] = problem.reason if problem else ""


def answers_back(source: object) -> TypeGuard[AnswersBack]:
    """Whether a calendar can be told what became of its bookings."""
    return isinstance(source, AnswersBack)


def read_all(
    sources: Sequence[CalendarSource], start: datetime, end: datetime
) -> list[tuple[CalendarSource, Reading | CalendarUnavailable]]:
    """Read calendars at the same time; one that cannot be read is told in its place and hides no other."""
    if len(sources) == 1:
        return [(sources[0], _read(sources[0], start, end))]
    with ThreadPoolExecutor(len(sources), thread_name_prefix="calendar") as pool:
        return list(zip(sources, pool.map(lambda one: _read(one, start, end), sources), strict=True))


def _read(source: CalendarSource, start: datetime, end: datetime) -> Reading | CalendarUnavailable:
    try:
        return source.read(start, end)
    except CalendarUnavailable as problem:
        return problem
    except Exception as error:  # noqa: BLE001  a fault in one calendar must not hide the others
        logger.exception("Reading the calendar {} failed.", source.name)
        return CalendarUnavailable(
            f"Reading the calendar {source.name} failed ({type(error).__name__}: {error}).",
            "This is a fault of the service; its log has the whole of it.",
        )


def calendar_sources(
    settings: Settings, google: type[GoogleCalendar] = GoogleCalendar
) -> tuple[CalendarSource, ...]:
    """The calendars the settings name; ``google`` is what Google calendars are read with."""
    calendar = settings.calendar
    polls_per_minute = 60 / calendar.check_interval_seconds
    writes = WRITES_PER_MINUTE / polls_per_minute / max(1, len(settings.google_calendar_ids))
    writes = max(1, min(100, int(writes)))
    sources: list[CalendarSource] = [
        google(
            calendar_id,
            key_file=settings.path(calendar.google_creds_path) if calendar.google_creds_path else None,
            endpoint=calendar.google_endpoint,
            deadline_seconds=calendar.timeout_seconds,
            style=calendar.write_back,
            writes_per_report=writes,
        )
        for calendar_id in settings.google_calendar_ids
    ]
    if (location := settings.ics_location) is not None:
        sources.append(
            IcsCalendar(
                location,
                timeout_seconds=calendar.timeout_seconds,
                default_timezone=calendar.default_timezone,
            )
        )
    return tuple(sources)
