"""Tells the server's event loop when there is something new on the board."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scheduler.board import Board

LOOK_SECONDS = 1.0
"""How often it is looked whether the server ends."""


class Pulse:
    """Between the daemon's thread, which publishes, and the server's, in which many wait.

    The daemon knows nothing of this: a thread of its own waits at the board.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._waiting: set[asyncio.Event] = set()
        self._ended = threading.Event()
        self.listeners = 0
        """How many are being told now."""

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Inside, whoever waits is woken."""
        self._ended.clear()
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=self._watch, args=(loop,), name="page-pulse", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self._ring()

    @property
    def over(self) -> bool:
        """Whether the server ends."""
        return self._ended.is_set()

    async def versions(self, after: int = -1) -> AsyncIterator[int]:
        """The version of the board now, and each time there is a later one, until the server ends."""
        self.listeners += 1
        rung = asyncio.Event()
        self._waiting.add(rung)
        try:
            while not self.over:
                rung.clear()
                if (version := self._board.version) > after:
                    after = version
                    yield version
                else:
                    await rung.wait()
        finally:
            self._waiting.discard(rung)
            self.listeners -= 1

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        version = self._board.version
        while not self._ended.is_set():
            later = self._board.wait_for(version, LOOK_SECONDS)
            if later > version:
                version = later
                try:
                    loop.call_soon_threadsafe(self._ring)
                except RuntimeError:
                    return  # the loop is closed: the server has ended

    def _ring(self) -> None:
        for one in self._waiting:
            one.set()
