"""What signals ask of the daemon."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType


class Asked:
    """SIGINT and SIGTERM ask for the end, SIGHUP for the settings to be read anew.

    A terminal that is closed sends SIGHUP, too: then it asks for the end.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._reload = threading.Event()
        self._has_terminal = False

    def listen(self) -> None:
        """From now on; to be called in the main thread."""
        self._has_terminal = _has_terminal()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._to_stop)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN or not self._has_terminal:
            signal.signal(signal.SIGHUP, self._hung_up)

    def stop(self) -> None:
        """As if a signal had asked for the end."""
        self._stop.set()

    def to_stop(self, wait_seconds: float) -> bool:
        """Whether the end is asked for, within so many seconds."""
        return self._stop.wait(wait_seconds)

    def to_reload(self) -> bool:
        """Whether the settings are to be read; true once for each time."""
        asked = self._reload.is_set()
        self._reload.clear()
        return asked

    def _to_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop.set()

    def _hung_up(self, number: int, frame: FrameType | None) -> None:
        if self._has_terminal and not _has_terminal():
            self._stop.set()
        else:
            self._reload.set()


def _has_terminal() -> bool:
    """Whether this process has a terminal that is still open."""
    try:
        handle = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return False
    os.close(handle)
    return sys.platform != "win32"
