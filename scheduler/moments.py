"""Times as people write them on a command line."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from scheduler.errors import OperatorError

FURTHEST = timedelta(days=36_525)
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_moment(text: str, now: datetime) -> datetime:
    """Read ``14:00`` (today), ``tomorrow 14:00``, ``+90m`` (from now) or ISO 8601.

    A time without a zone is in the zone of ``now``.

    Raises:
        OperatorError: it is none of these.
    """
    try:
        moment = _parse(text, now)
        if abs(moment - now) > FURTHEST:
            raise ValueError("further away than any calendar is read")
    except (ValueError, OverflowError) as error:
        raise OperatorError(
            f"“{text}” is not a time this can plan for.",
            "Write 14:00, “tomorrow 14:00”, +90m or 2026-12-24T14:00.",
        ) from error
    return moment


def _parse(text: str, now: datetime) -> datetime:
    written = text.strip().lower()
    if match := re.fullmatch(r"\+(\d{1,6})([smhd])", written):
        return now + timedelta(seconds=int(match[1]) * SECONDS[match[2]])
    day, _, clock = written.rpartition(" ")
    if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", clock) and day in ("", "today", "tomorrow"):
        time = datetime.strptime(clock, "%H:%M:%S" if clock.count(":") == 2 else "%H:%M").time()  # noqa: DTZ007
        date = now.date() + timedelta(days=day == "tomorrow")
        return datetime.combine(date, time, tzinfo=now.tzinfo)
    parsed = datetime.fromisoformat(text.strip())
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=now.tzinfo)
