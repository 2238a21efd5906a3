"""Ends what runs in another thread, as far as Python allows."""

from __future__ import annotations

import ctypes
import threading
from types import TracebackType


class Interrupted(BaseException):
    """Raised inside a block that is to end. Not an ``Exception``, so that ``except Exception`` lets it by."""


class Interruptible:
    """A stretch of one thread that another thread may end.

    ``with interruptible:`` in the thread itself; ``interrupt()`` from any other. Outside the stretch
    ``interrupt`` does nothing, so what cleans up afterwards always runs to its end. It takes effect
    between two bytecodes: a single long call into C ends first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            self._thread = threading.get_ident()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._leave()
        except Interrupted:
            # it came while leaving; nobody interrupts twice within the same instant
            self._leave()

    def _leave(self) -> None:
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                # one that was sent and has not arrived yet would end the cleaning up
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)

    def interrupt(self) -> None:
        with self._lock:
            if self._thread is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._thread), ctypes.py_object(Interrupted)
                )
