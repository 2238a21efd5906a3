"""Runs traced blocks of nnsight's client. The only place that opens what a client sent.

Opening a payload already runs the sender's code. Everything else hands payloads and results on as
bytes, so that a jailed executor can take this one's place without anything else changing.
"""

from __future__ import annotations

import io
import linecache
import pickle
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

from serve_apps.messages import Frame, FrameKind

MAX_LOG_BYTES = 1024 * 1024
"""Printed bytes passed on per block; the rest is dropped, with a last line that says so."""


class Executor(Protocol):
    """Runs one block at a time."""

    def run(self, payload: bytes, compress: bool, env: dict[str, Any]) -> Iterator[Frame]:
        """Yields a LOG per printed line while the block runs, then exactly one RESULT or ERROR.

        Never raises for what the block does. ``compress`` says that payload and result are zstd.
        """
        ...


class InProcessExecutor:
    """Runs blocks in the model's own process: for callers who may run any code there."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def run(self, payload: bytes, compress: bool, env: dict[str, Any]) -> Iterator[Frame]:
        frames: queue.SimpleQueue[Frame] = queue.SimpleQueue()

        def work() -> None:
            with _scratch_state(), _printed_lines(frames.put):
                last = self._run_block(payload, compress, env)
            frames.put(last)

        # its own thread, since prints are to be passed on while the block still runs
        thread = threading.Thread(target=work, name="traced-block", daemon=True)
        thread.start()
        while True:
            frame = frames.get()
            if frame.kind is not FrameKind.LOG:
                yield frame
                return
            yield frame

    def _run_block(self, payload: bytes, compress: bool, env: dict[str, Any]) -> Frame:
        try:
            saved = self._execute(payload, compress, env)
            return Frame(FrameKind.RESULT, _pack(saved, compress))
        except BaseException as error:  # noqa: BLE001 - a block may raise SystemExit; the replica stays
            return Frame(FrameKind.ERROR, _describe(error).encode())
        finally:
            self._model._module.zero_grad(set_to_none=True)

    def _execute(self, payload: bytes, compress: bool, env: dict[str, Any]) -> dict[str, Any]:
        """The values the block saved, by name."""
        from nnsight.schema.request import RequestModel
        from nnsight.tracing.tracer import _saves, dec, inc

        self._model._remoteable_set_env(env)
        tracer = RequestModel.deserialize(
            payload, self._model._remoteable_persistent_objects(), compress=compress
        )
        inc()
        try:
            tracer.execute(tracer.info.code)
            saves = _saves()
            return {name: value for name, value in tracer.info.frame.f_locals.items() if id(value) in saves}
        finally:
            dec()


def completed_frame(job_id: str, data: bytes, meta: dict[str, Any]) -> bytes:
    """nnsight's binary COMPLETED frame around a result.

    Pickle protocol 4, as its client does: protocol 2, torch's default, has no bytes and would write
    the result as text of half as much again.
    """
    import torch

    message = {"id": job_id, "status": "COMPLETED", "description": "", "data": data, "meta": meta}
    with io.BytesIO() as file:
        torch.save(message, file, pickle_protocol=4)
        return file.getvalue()


def _pack(saved: dict[str, Any], compress: bool) -> bytes:
    """The bytes the client loads: ``torch.save`` of the saved values, zstd if it asked for that."""
    import torch

    with io.BytesIO() as file:
        try:
            torch.save(saved, file)
        except (pickle.PicklingError, AttributeError):
            file.seek(0)
            file.truncate()
            torch.save(saved, file, pickle_module=_ByName, pickle_protocol=4)
        data = file.getvalue()
    if not compress:
        return data
    import zstandard

    return zstandard.ZstdCompressor(level=3).compress(data)


class _ByNamePickler(pickle._Pickler):
    """Writes classes that only the client can import as their name, without importing them here.

    A class the client defined arrives by value, so its instances would otherwise be refused.
    """

    def save_global(self, obj: Any, name: str | None = None) -> None:
        try:
            super().save_global(obj, name)  # type: ignore[misc]
        except pickle.PicklingError:
            self.save(obj.__module__)  # type: ignore[attr-defined]
            self.save(name or obj.__qualname__)  # type: ignore[attr-defined]
            self.write(pickle.STACK_GLOBAL)  # type: ignore[attr-defined]
            self.memoize(obj)  # type: ignore[attr-defined]


class _ByName:
    """What ``torch.save`` needs of a pickle module."""

    Pickler = _ByNamePickler


def _describe(error: BaseException) -> str:
    """A traceback that points at the sender's own lines, nnsight's plumbing left out."""
    from nnsight.tracing.util import clean_traceback

    raised_at = getattr(error, "__intervention_tb__", None) or error.__traceback__
    shown = clean_traceback(raised_at)
    lines = traceback.format_exception(type(error), error, shown, chain=False)
    return "".join(line for line in lines if f'"{__file__}"' not in line).strip()


@contextmanager
def _scratch_state() -> Iterator[None]:
    """Puts back, after a block, what it leaves in this process: sources, compiled blocks, chance."""
    import torch
    from nnsight.tracing import globals as tracing

    stores: list[dict[Any, Any]] = [linecache.cache, tracing.SOURCES, tracing.BLOCKS]
    before = [dict(store) for store in stores]
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=devices):
            torch.seed()
            yield
    finally:
        for store, content in zip(stores, before, strict=True):
            store.clear()
            store.update(content)


@contextmanager
def _printed_lines(emit: Callable[[Frame], None]) -> Iterator[None]:
    """Sends what this thread prints to ``emit``, line by line; other threads print as ever."""
    original = sys.stdout
    lines = _ThreadLines(original, emit)
    sys.stdout = lines
    try:
        yield
    finally:
        lines.end()
        if sys.stdout is lines:
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
