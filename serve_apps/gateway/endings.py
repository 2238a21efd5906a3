"""Before the last booking of a model ends, whoever asks it is told when. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from email.utils import format_datetime

ENDS_AT = "X-NDIF-Ends-At"
"""Header of answers: when the model goes, as ISO 8601 in UTC."""
SUNSET = "Sunset"
"""The same as RFC 8594 has it, an HTTP date, for clients that know nothing of us."""


def ends_soon(until: datetime | None, now: datetime, warn_seconds: float) -> datetime | None:
    """The end, where it is so near that clients are told; nobody is told where ``warn_seconds`` is 0."""
    if until is None or not warn_seconds or until - now > timedelta(seconds=warn_seconds):
        return None
    return until


def ending_headers(end: datetime | None) -> dict[str, str]:
    """What an answer carries."""
    if end is None:
        return {}
    whole = end.replace(microsecond=0)
    return {ENDS_AT: whole.isoformat().replace("+00:00", "Z"), SUNSET: format_datetime(whole, usegmt=True)}


def ending_words(end: datetime | None) -> str:
    """What follows in the text of a job that runs."""
    return "" if end is None else f" Its model is booked until {end:%H:%M} UTC; book it again to go on after."
