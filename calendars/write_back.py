"""What a calendar can be told about its bookings, as data, and the words and colours it is told in.

Nothing here speaks to a calendar: what is to be said comes in as `Report`, a calendar that can be
answered in offers `AnswersBack`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Literal, Protocol, runtime_checkable

from calendars.reservation import Frozen
from calendars.status_block import fenced, strip_block, with_block

__all__ = [
    "COLOURS",
    "Answer",
    "AnswersBack",
    "Notice",
    "Report",
    "State",
    "Style",
    "digest",
    "render_block",
    "strip_block",
    "with_report",
]

State = Literal["scheduled", "loading", "serving", "refused", "ended"]
"""What has become of a booking: accepted, on its way, up, impossible (or not understood), over."""

Style = Literal["off", "colour", "colour+text"]
"""How a calendar is answered: not at all, by the event's colour, by colour and a block of text."""

COLOURS: dict[State, str] = {
    "scheduled": "9",
    "loading": "5",
    "serving": "10",
    "refused": "11",
    "ended": "8",
}
"""Google's event colours: Blueberry (accepted), Banana (wait), Basil (go), Tomato (stop), Graphite (past).

They differ in lightness too, so that they can be told apart without seeing red and green.
"""

URGENCY: dict[State, int] = {"refused": 0, "serving": 1, "loading": 2, "scheduled": 3, "ended": 4}
"""Which answers go out first where not all can: those that a person acts on."""


class Report(Frozen):
    """What is to be said about one booking.

    ``key`` is that of the `Reservation` or `Misunderstood`. ``lines`` are for the person who booked, each
    one a sentence or less; a booking is written to whenever state or lines differ from what was last
    written, so they should say nothing that changes by itself, such as the minutes left. ``asides`` follow
    the lines in what is written, but are no reason to write: figures that change, or that a restart forgets.
    """

    key: str
    state: State
    lines: tuple[str, ...] = ()
    asides: tuple[str, ...] = ()


class Notice(Frozen):
    """Something an operator should know: what is the matter in one sentence, and what to do about it."""

    reason: str
    remedy: str


class Answer(Frozen):
    """What came of telling a calendar.

    ``written`` are the keys written to; ``waiting`` those that should be but were not, because the event
    has changed meanwhile or there was no time: they are tried again when reported again after the next
    reading. All other keys needed nothing, or cannot be written to. ``notices`` are things said once.
    ``problem`` is what cut the writing short; reading works on without.
    """

    written: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    notices: tuple[Notice, ...] = ()
    problem: Notice | None = None


@runtime_checkable
class AnswersBack(Protocol):
    """A calendar that can be told what became of its bookings."""

    @property
    def name(self) -> str:
        """What a person calls this calendar, the same as when it is read."""
        ...

    def report(self, reports: Iterable[Report]) -> Answer:
        """Say in the calendar what is not yet said there; never raises for anything outside.

        Takes the whole of what is to be said each time: what is said already costs nothing.
        """
        ...


def render_block(report: Report) -> str:
    """The fenced block of a report as plain text: the state, then its lines and asides."""
    return fenced((report.state, *report.lines, *report.asides))


def with_report(description: str, report: Report) -> str:
    """The description with the report's block at its end, in place of an earlier one."""
    return with_block(description, (report.state, *report.lines, *report.asides))


def digest(report: Report, style: Style) -> str:
    """Tells whether an event already says this, in 32 hexadecimal digits.

    The key is part of it, because a copied event brings along what was written to its original; asides are
    not.
    """
    said = json.dumps([report.key, report.state, report.lines if style == "colour+text" else [], style])
    return hashlib.sha256(said.encode()).hexdigest()[:32]
