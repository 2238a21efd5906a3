"""Runs traced blocks of nnsight's client. The only place that opens what a client sent.

Opening a payload already runs the sender's code. Everything else hands payloads and results on as
bytes, so that a jailed executor can take this one's place without anything else changing.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any, NamedTuple, Protocol

from serve_apps.messages import Frame, FrameKind
from serve_apps.model import interruption
from serve_apps.model.interruption import Interruptible
from serve_apps.model.isolation import ModelBaseline, clean_process, tidy_memory
from serve_apps.model.printing import printed_lines
from serve_apps.model.results import describe, pack

GRACE_SECONDS = 20.0
"""Time a block that was interrupted has to end. One that does not holds the model for good."""
WATCH_SECONDS = 0.1
"""How often a running block's time and its client are looked at."""


class Block(NamedTuple):
    """A block to run. ``compress`` says that payload and result are zstd; ``env`` is the client's."""

    payload: bytes
    compress: bool
    env: dict[str, Any]
    limit_seconds: float = 600


class Executor(Protocol):
    """Runs one block at a time: payload bytes in, result bytes out.

    Where it runs is nobody else's business. What a block leaves behind never reaches the next.
    """

    def run(self, block: Block, cancelled: threading.Event) -> Iterator[Frame]:
        """Yields a LOG per printed line while the block runs, then exactly one RESULT or ERROR.

        Never raises for what the block does. Ends it once ``cancelled`` is set or its time is over.
        """
        ...

    def fatal(self) -> str | None:
        """Why no block, and nothing else, can run here any more; None while all is well."""
        ...


class InProcessExecutor:
    """Runs blocks in the model's own process: for callers who may run any code there."""

    def __init__(self, model: Any, baseline: ModelBaseline, grace_seconds: float = GRACE_SECONDS) -> None:
        self._model = model
        self._baseline = baseline
        self._grace_seconds = grace_seconds
        self._fatal: str | None = None

    def fatal(self) -> str | None:
        return self._fatal

    def run(self, block: Block, cancelled: threading.Event) -> Iterator[Frame]:
        frames: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        stretch = Interruptible()

        def work() -> None:
            try:
                last = self._run_cleanly(block, stretch, frames.put)
            except BaseException as error:  # noqa: BLE001 - the sender must hear of it, whatever it is
                self._fatal = f"cleaning up after a traced block failed: {type(error).__name__}: {error}"
                last = Frame(FrameKind.ERROR, self._fatal.encode())
            frames.put(last)

        # its own thread, since prints are to be passed on while the block still runs
        threading.Thread(target=work, name="traced-block", daemon=True).start()
        yield from self._watched(frames, block, stretch, cancelled)

    def _watched(
        self,
        frames: queue.SimpleQueue[Frame],
        block: Block,
        stretch: Interruptible,
        cancelled: threading.Event,
    ) -> Iterator[Frame]:
        ends_at, why = time.monotonic() + block.limit_seconds, ""
        next_try = float("inf")
        while True:
            try:
                frame = frames.get(timeout=WATCH_SECONDS)
            except queue.Empty:
                now = time.monotonic()
                if not why and (cancelled.is_set() or now >= ends_at):
                    why = "Its sender left." if cancelled.is_set() else _too_long(block.limit_seconds)
                    next_try, ends_at = now, now + self._grace_seconds
                if why and now >= ends_at:
                    self._fatal = f"a traced block could not be stopped: {why}"
                    yield Frame(
                        FrameKind.ERROR, f"{why} It could not be stopped: the model is restarted.".encode()
                    )
                    return
                if now >= next_try:
                    # once more each second, for blocks that catch everything
                    stretch.interrupt()
                    next_try = now + 1
                continue
            if frame.kind is FrameKind.ERROR and why:
                frame = Frame(FrameKind.ERROR, f"{why}\n{frame.data.decode()}".encode())
            yield frame
            if frame.kind is not FrameKind.LOG:
                return

    def _run_cleanly(self, block: Block, stretch: Interruptible, emit: Callable[[Frame], None]) -> Frame:
        with clean_process(), printed_lines(emit):
            try:
                last = self._run_block(block, stretch)
            finally:
                self._baseline.restore()
        tidy_memory()
        return last

    def _run_block(self, block: Block, stretch: Interruptible) -> Frame:
        try:
            with stretch:
                saved = self._execute(block)
                return Frame(FrameKind.RESULT, pack(saved, block.compress))
        except BaseException as error:  # noqa: BLE001 - a block may raise SystemExit; the replica stays
            return Frame(FrameKind.ERROR, describe(error, (__file__, interruption.__file__)).encode())

    def _execute(self, block: Block) -> dict[str, Any]:
        """The values the block saved, by name."""
        from nnsight.schema.request import RequestModel
        from nnsight.tracing.tracer import _saves, dec, inc

        self._model._remoteable_set_env(block.env)
        tracer = RequestModel.deserialize(
            block.payload, self._model._remoteable_persistent_objects(), compress=block.compress
        )
        inc()
        try:
            with self._gradients(tracer.info):
                tracer.execute(tracer.info.code)
            saves = _saves()
            return {name: value for name, value in tracer.info.frame.f_locals.items() if id(value) in saves}
        finally:
            dec()

    @contextmanager
    def _gradients(self, info: Any) -> Iterator[None]:
        """Has a graph recorded for blocks that go backward, and for no other: it holds every activation.

        The weights stay frozen; the graph begins at the embeddings.
        """
        helpers = [*info.frame.f_globals.values(), *info.frame.f_locals.values()]
        codes = [info.code, *(value.__code__ for value in helpers if isinstance(value, FunctionType))]
        backward = any(_goes_backward(code) for code in codes)
        embeddings = self._model._module.get_input_embeddings() if backward else None
        if embeddings is None:
            yield
            return
        hook = embeddings.register_forward_hook(lambda module, inputs, output: output.requires_grad_(True))
        try:
            yield
        finally:
            hook.remove()


def _goes_backward(code: Any) -> bool:
    """Whether a code object, or one inside it, names ``backward`` or ``grad``."""
    if {"backward", "grad", "autograd"} & {*code.co_names, *code.co_freevars}:
        return True
    return any(_goes_backward(inner) for inner in code.co_consts if hasattr(inner, "co_names"))


def _too_long(seconds: float) -> str:
    return f"The block ran longer than the {seconds:g} s a block may take, and was stopped."
