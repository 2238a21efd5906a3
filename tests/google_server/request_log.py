"""Which requests came, when by the server's clock, and how they were answered."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime

from tests.google_server.clock import Clock
from tests.google_server.times import Json


@dataclass(frozen=True)
class Request:
    """One request as it was answered; ``status`` is 0 where no answer was sent."""

    at: datetime
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: str
    account: str | None
    status: int
    fault: str | None

    def as_json(self) -> Json:
        return asdict(self) | {"at": self.at.isoformat()}


class RequestLog:
    """All requests since the start, or since ``clear``; control requests are not among them."""

    def __init__(self, now: Clock) -> None:
        self.now = now
        self._changed = threading.Condition()
        self._requests: list[Request] = []

    def add(self, request: Request) -> None:
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()

    @property
    def requests(self) -> list[Request]:
        with self._changed:
            return list(self._requests)

    def clear(self) -> None:
        with self._changed:
            self._requests.clear()

    def matching(self, method: str | None = None, path: str = "") -> list[Request]:
        """Requests of that method whose path holds that text."""
        return [one for one in self.requests if method in (None, one.method) and path in one.path]

    def per_minute(self, path: str = "/calendar/") -> Counter[datetime]:
        """How many requests came in each minute of the server's clock; the API's by default."""
        return Counter(one.at.replace(second=0, microsecond=0) for one in self.requests if path in one.path)

    def wait_for(self, reached: Callable[[list[Request]], bool], timeout_seconds: float = 10) -> bool:
        """Waits until ``reached(requests)``; False when it did not come to that in time."""
        with self._changed:
            return self._changed.wait_for(lambda: reached(self._requests), timeout_seconds)
