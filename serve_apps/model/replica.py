"""One replica of a model: requests wait their turn, run in a thread, and can be left."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from serve_apps.contract import ModelArgs, ModelConfig
from serve_apps.messages import BlockRequest, Chunk, Frame, FrameKind, GenerationRequest, Refusal
from serve_apps.model.cost import Cost
from serve_apps.model.executor import Block, Executor, InProcessExecutor
from serve_apps.model.generation import Generator
from serve_apps.model.isolation import ModelBaseline, freeze_memory
from serve_apps.model.loading import load_model, original_weights
from serve_apps.model.results import completed_frame

logger = logging.getLogger("ray.serve")

_END = object()


class ModelReplica:
    """Holds one model and serves it; a model runs one thing at a time, in order of arrival.

    ``complete`` answers at once, ``stream`` in pieces, ``run_block`` runs a traced block. A caller
    that goes away (its Serve request is cancelled) ends its generation after the current token, and its
    traced block at the next bytecode.
    """

    def __init__(self, args: dict[str, Any]) -> None:
        self._args = ModelArgs.model_validate(args)
        self._config = ModelConfig()
        self._model = load_model(self._args)
        self._generator = Generator(self._model)
        self._turn = asyncio.Lock()
        self._fatal: str | None = None
        self._warm_up()
        baseline = ModelBaseline(self._model, lambda: original_weights(self._args, self._model._module))
        self._executor: Executor = InProcessExecutor(self._model, baseline)
        freeze_memory()

    def _warm_up(self) -> None:
        """Computes one token, so that a replica that cannot never calls itself ready.

        Raises ``RuntimeError`` if the model refuses its first prompt.
        """
        started = time.monotonic()
        if self._generator.can_generate:
            prepared = self._generator.prepare(GenerationRequest(prompt="Hello", max_tokens=1))
            if isinstance(prepared, Refusal):
                raise RuntimeError(f"the model refused its first prompt: {prepared.message}")
            self._generator.run(prepared, lambda chunk: None, threading.Event())
        elif self._model.tokenizer is not None:
            self._model._call("Hello")
        logger.info("first token of %s after %.2f s", self._args.repo_id, time.monotonic() - started)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Takes a ``ModelConfig``. Never raises, since Serve kills a replica whose reconfigure does."""
        try:
            self._config = ModelConfig.model_validate(user_config)
        except ValueError:
            logger.exception("user_config of %s not understood, the last one stays", self._args.repo_id)

    def check_health(self) -> None:
        """Raises once the device is beyond recovery: Serve then replaces this replica."""
        fatal = self._fatal or self._executor.fatal()
        if fatal is not None:
            raise RuntimeError(fatal)

    async def complete(self, request: GenerationRequest) -> Chunk | Refusal:
        """The whole text at once, with finish reason and counts."""
        pieces: list[str] = []
        last: Chunk | Refusal | None = None
        async with aclosing(self.stream(request)) as parts:
            async for part in parts:
                if isinstance(part, Refusal):
                    return part
                pieces.append(part.text)
                last = part
        if not isinstance(last, Chunk):
            return Refusal(message="The generation ended without a result.", status=500)
        return last.model_copy(update={"text": "".join(pieces)})

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Chunk | Refusal, None]:
        """Pieces of text as they come; a ``Refusal`` is the only item, or the last one."""
        cancelled = threading.Event()
        async with self._turn:
            prepared = await asyncio.to_thread(self._generator.prepare, request)
            if isinstance(prepared, Refusal):
                yield prepared
                return

            def work(emit: Callable[[Any], None]) -> None:
                try:
                    self._generator.run(prepared, emit, cancelled)
                except Exception as error:  # noqa: BLE001 - becomes this client's error, not a crash
                    emit(self._failed(error))

            async with aclosing(_in_thread(work, cancelled)) as parts:
                async for part in parts:
                    yield part

    async def run_block(self, request: BlockRequest) -> AsyncGenerator[Frame, None]:
        """Runs a traced block; RUNNING when its turn comes, LOG lines, META, then the last frame."""
        cancelled = threading.Event()
        async with self._turn:
            yield Frame(FrameKind.RUNNING)
            cost = Cost()

            def work(emit: Callable[[Any], None]) -> None:
                block = Block(request.payload, request.compress, request.env, request.limit_seconds)
                for frame in self._executor.run(block, cancelled):
                    emit(frame)

            async with aclosing(_in_thread(work, cancelled)) as frames:
                async for frame in frames:
                    if frame.kind is FrameKind.LOG:
                        yield frame
                        continue
                    meta = cost.meta()
                    yield Frame(FrameKind.META, json.dumps(meta).encode())
                    yield _inline(request, frame, meta)

    def _failed(self, error: Exception) -> Refusal:
        logger.error("generation failed", exc_info=error)
        text = f"{type(error).__name__}: {error}"
        # after these CUDA answers nothing any more; running out of memory is not one of them
        if "CUDA error" in str(error) and "out of memory" not in str(error):
            self._fatal = text
        return Refusal(message=f"The model failed: {text}", status=500)


def _inline(request: BlockRequest, frame: Frame, meta: dict[str, Any]) -> Frame:
    if frame.kind is not FrameKind.RESULT or len(frame.data) > request.inline_limit:
        return frame
    return Frame(FrameKind.COMPLETED, completed_frame(request.job_id, frame.data, meta))


async def _in_thread(
    work: Callable[[Callable[[Any], None]], None], cancelled: threading.Event
) -> AsyncGenerator[Any, None]:
    """Runs ``work(emit)`` in a thread and yields what it emits.

    Leaving early sets ``cancelled`` and waits for the thread: the next turn must not begin while
    the model is still computing for this one.
    """
    loop = asyncio.get_running_loop()
    items: asyncio.Queue[Any] = asyncio.Queue()

    def emit(item: Any) -> None:
        loop.call_soon_threadsafe(items.put_nowait, item)

    def run() -> None:
        try:
            work(emit)
        finally:
            emit(_END)

    thread = asyncio.ensure_future(asyncio.to_thread(run))
    try:
        while (item := await items.get()) is not _END:
            yield item
        await thread
    finally:
        cancelled.set()
        await _finished(thread)


async def _finished(future: asyncio.Future[None]) -> None:
    """Waits for ``future`` even while this task is being cancelled, then lets the cancellation be."""
    interrupted: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted
