"""Hands items from a thread to a coroutine."""

from __future__ import annotations

import asyncio
import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """``put`` from any thread, ``take`` in the event loop it was made in.

    What is put before it is taken is taken together: the loop is woken once for all of it.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._filled = asyncio.Event()
        self._lock = threading.Lock()
        self._items: list[T] = []

    def put(self, item: T) -> None:
        with self._lock:
            first = not self._items
            self._items.append(item)
        if first and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._filled.set)

    async def take(self) -> list[T]:
        """All that has come since the last time, at least one."""
        await self._filled.wait()
        with self._lock:
            self._filled.clear()
            items, self._items = self._items, []
        return items
