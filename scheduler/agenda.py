"""What the ``calendar`` commands found, as values to be shown."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from calendars.finding import Finding
from calendars.reservation import Misunderstood, Reading, Reservation
from calendars.source import CalendarUnavailable
from scheduler.errors import OperatorError
from scheduler.types import Verdict, VerdictState

Event = Reservation | Misunderstood


@dataclass(frozen=True)
class Agenda:
    """What the calendars say about ``[start, end)``, and those that could not be read."""

    start: datetime
    end: datetime
    readings: tuple[Reading, ...]
    failing: dict[str, CalendarUnavailable]

    @property
    def reservations(self) -> list[Reservation]:
        """By start, of all calendars."""
        found = [one for reading in self.readings for one in reading.reservations]
        return sorted(found, key=lambda one: (one.start, one.calendar, one.key))

    @property
    def misunderstood(self) -> list[Misunderstood]:
        """Of all calendars."""
        return [one for reading in self.readings for one in reading.misunderstood]

    @property
    def events(self) -> list[Event]:
        """What was understood, then what was not."""
        return [*self.reservations, *self.misunderstood]


@dataclass(frozen=True)
class Judged:
    """An agenda with what planning says to each of its events.

    ``verdicts`` are by calendar and key; ``unjudged`` says why there are none.
    """

    agenda: Agenda
    verdicts: dict[tuple[str, str], Verdict]
    unjudged: OperatorError | None = None

    def verdict(self, event: Event) -> Verdict | None:
        """What planning says to an event, None where it says nothing."""
        return self.verdicts.get((event.calendar, event.key))

    @property
    def cannot_be_met(self) -> bool:
        """Whether some event is not understood, or gets not all it asks for."""
        refused = (VerdictState.REFUSED, VerdictState.MISUNDERSTOOD)
        return bool(self.agenda.misunderstood) or any(
            verdict is not None and verdict.state in refused
            for verdict in map(self.verdict, self.agenda.reservations)
        )


@dataclass(frozen=True)
class Checked:
    """The findings of ``doctor`` about one thing: an account, or a calendar."""

    about: str
    findings: tuple[Finding, ...]

    @property
    def fine(self) -> bool:
        """Whether nothing has to be put right."""
        return all(one.outcome in ("ok", "note") for one in self.findings)
