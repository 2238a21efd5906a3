"""What is found when the way to a calendar is looked over step by step."""

from __future__ import annotations

from typing import Literal

from calendars.called import command
from calendars.reservation import Frozen, Reading
from calendars.source import CalendarUnavailable

Outcome = Literal["ok", "note", "problem", "unknown"]
"""Fine; fine, but worth knowing; to be put right; not to be told before something else is put right."""


class Finding(Frozen):
    """One step: what was looked at, what came of it in one sentence, and what to do about it."""

    step: str
    outcome: Outcome
    found: str
    remedy: str = ""


def failed(step: str, error: CalendarUnavailable) -> Finding:
    """A failure as a finding, without the calendar's name, which stands above."""
    found = error.reason.partition(" cannot be reached: ")[2] or error.reason
    return Finding(step=step, outcome="problem", found=found, remedy=error.remedy)


def unknown(step: str, until: str) -> Finding:
    """For a step that could not be made."""
    return Finding(
        step=step, outcome="unknown", found=f"not to be told while there is a problem with {until}"
    )


def booked(reading: Reading) -> Finding:
    """What a calendar that could be read holds."""
    count, wrong = len(reading.reservations), len(reading.misunderstood)
    found = f"{count} booking{'' if count == 1 else 's'}"
    if wrong:
        return Finding(
            step="bookings",
            outcome="note",
            found=f"{found}, and {wrong} event{' is' if wrong == 1 else 's are'} not understood",
            remedy=f"“{command('calendar check')}” says why.",
        )
    return Finding(step="bookings", outcome="ok", found=found)
