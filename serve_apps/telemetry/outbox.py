"""Ships small things to a server: in batches, in a thread of its own, with bounded memory."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0

Item = TypeVar("Item")


class LaterError(Exception):
    """The server cannot take anything now; ``seconds`` is when it said to come again, if it did."""

    def __init__(self, why: str, seconds: float | None = None) -> None:
        super().__init__(why)
        self.seconds = seconds


class RefusedError(Exception):
    """The server will never take this batch."""


class Outbox(Generic[Item]):
    """Takes items at once, and gives them to ``send`` some at a time.

    ``send`` raises ``LaterError`` to be given the same batch again after a pause that grows, and
    ``RefusedError`` to have it dropped. While nothing can be sent, the oldest items make room for new
    ones and are counted in ``dropped``.

    Args:
        size: bytes of an item, as it waits.
        every_seconds: how long items are gathered before they are sent.
        on_problem: called in the outbox's thread when sending ceases to work (with why) and when it
            works again (with "").
    """

    def __init__(
        self,
        name: str,
        send: Callable[[list[Item]], None],
        size: Callable[[Item], int],
        *,
        every_seconds: float = 2.0,
        most_at_once: int = 1000,
        most_bytes: int = 8 * 1024**2,
        on_problem: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._send = send
        self._size = size
        self._every_seconds = every_seconds
        self._most_at_once = most_at_once
        self._most_bytes = most_bytes
        self._on_problem = on_problem
        self._changed = threading.Condition()
        self._waiting: deque[Item] = deque()
        self._bytes = 0
        self._end_at: float | None = None
        self.problem = ""
        """Why nothing can be sent now."""
        self.sent = 0
        """Items that the server took."""
        self.dropped = 0
        """Items that nobody will ever see."""
        self._thread = threading.Thread(target=self._work, name=f"outbox {name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Items that are not sent yet."""
        return len(self._waiting)

    def put(self, item: Item) -> None:
        """Have an item sent soon. Returns at once."""
        with self._changed:
            if self._end_at is not None:
                self.dropped += 1
                return
            self._waiting.append(item)
            self._bytes += self._size(item)
            while self._bytes > self._most_bytes:
                self._bytes -= self._size(self._waiting.popleft())
                self.dropped += 1
            self._changed.notify_all()

    def close(self, seconds: float = 2.0) -> None:
        """Send what waits, as far as that goes within ``seconds``; the rest is dropped."""
        with self._changed:
            self._end_at = time.monotonic() + seconds
            self._changed.notify_all()
        self._thread.join(seconds)
        with self._changed:
            self.dropped += len(self._waiting)
            self._waiting.clear()

    def _work(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while batch := self._next_batch():
            try:
                self._send(batch)
            except LaterError as later:
                self._put_back(batch)
                self._tell(str(later))
                if not self._pause(pause if later.seconds is None else later.seconds):
                    return
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                continue
            except Exception as error:  # noqa: BLE001 - a batch that cannot be sent must not end the thread
                self._count(dropped=len(batch))
                self._tell(f"{type(error).__name__}: {error}")
            else:
                self._count(sent=len(batch))
                self._tell("")
            pause = FIRST_PAUSE_SECONDS

    def _next_batch(self) -> list[Item]:
        """What to send, once there is something and more had the time to join it; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting) or self._end_at is not None)
            self._changed.wait_for(
                lambda: len(self._waiting) >= self._most_at_once or self._end_at is not None,
                self._every_seconds,
            )
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._most_at_once))]
            self._bytes -= sum(map(self._size, batch))
            return batch

    def _put_back(self, batch: list[Item]) -> None:
        with self._changed:
            self._waiting.extendleft(reversed(batch))
            self._bytes += sum(map(self._size, batch))
            while self._bytes > self._most_bytes:
                self._bytes -= self._size(self._waiting.popleft())
                self.dropped += 1

    def _pause(self, seconds: float) -> bool:
        """Wait; False once there is no time left to try again."""
        with self._changed:
            self._changed.wait_for(lambda: self._end_at is not None, seconds)
            return self._end_at is None

    def _count(self, sent: int = 0, dropped: int = 0) -> None:
        with self._changed:
            self.sent += sent
            self.dropped += dropped

    def _tell(self, problem: str) -> None:
        before, self.problem = self.problem, problem
        if bool(before) != bool(problem):
            self._on_problem(problem)


def retry_after(header: str | None) -> float | None:
    """Seconds of a Retry-After header, where it names seconds; no more than a minute."""
    text = (header or "").strip()
    return min(float(text), LONGEST_PAUSE_SECONDS) if text.isdecimal() else None
