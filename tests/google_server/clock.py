"""The server's clocks: the real one, or one that stands still until it is told to move."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
"""Called without arguments; answers an aware datetime in UTC."""


def system_clock() -> datetime:
    """The real time."""
    return datetime.now(UTC)


class FakeClock:
    """A clock that stands still at ``start`` until ``advance`` or ``set`` moves it; thread-safe."""

    def __init__(self, start: datetime) -> None:
        if start.tzinfo is None:
            raise ValueError("a clock needs an aware datetime")
        self._lock = threading.Lock()
        self._now = start.astimezone(UTC)

    def __call__(self) -> datetime:
        with self._lock:
            return self._now

    def advance(self, **parts: float) -> datetime:
        """Moves on by ``timedelta(**parts)`` and answers the new time."""
        with self._lock:
            self._now += timedelta(**parts)
            return self._now

    def set(self, now: datetime) -> None:
        with self._lock:
            self._now = now.astimezone(UTC)
