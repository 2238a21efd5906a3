"""What a traced block prints, line by line, to whoever sent it."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from serve_apps.messages import Frame, FrameKind

MAX_LOG_BYTES = 1024 * 1024
"""Printed bytes passed on per block; the rest is dropped, with a last line that says so."""


@contextmanager
def printed_lines(emit: Callable[[Frame], None]) -> Iterator[None]:
    """Passes what this thread prints on as LOG frames; other threads print as before."""
    original = sys.stdout
    lines = _ThreadLines(original, emit)
    sys.stdout = lines
    try:
        yield
    finally:
        lines.end()
        # whatever the block put there goes as well
        sys.stdout = original


class _ThreadLines(io.TextIOBase):
    def __init__(self, others: TextIO, emit: Callable[[Frame], None]) -> None:
        self._others = others
        self._emit = emit
        self._thread = threading.get_ident()
        self._line = ""
        self._left = MAX_LOG_BYTES

    def write(self, text: str) -> int:
        if threading.get_ident() != self._thread:
            return self._others.write(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._log(line)
        if len(self._line) > self._left:
            self._log(self._line)
            self._line = ""
        return len(text)

    def flush(self) -> None:
        if threading.get_ident() != self._thread:
            self._others.flush()

    def end(self) -> None:
        if self._line:
            self._log(self._line)
            self._line = ""

    def _log(self, line: str) -> None:
        if self._left <= 0:
            return
        data = line.encode(errors="replace")
        self._left -= len(data) + 1
        if self._left <= 0:
            data = f"(more than {MAX_LOG_BYTES} bytes were printed; the rest is dropped)".encode()
        self._emit(Frame(FrameKind.LOG, data))
