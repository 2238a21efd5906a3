"""One replica of a model: texts grow side by side, traced blocks and embeddings take turns with them."""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from serve_apps.contract import ModelArgs, ModelConfig
from serve_apps.messages import (
    BlockRequest,
    Chunk,
    EmbeddingRequest,
    Embeddings,
    Frame,
    FrameKind,
    GenerationRequest,
    Refusal,
)
from serve_apps.model.cost import Cost
from serve_apps.model.embedding import Embedder
from serve_apps.model.engine import Engine, memory_for_rows
from serve_apps.model.executor import Block, Executor, InProcessExecutor
from serve_apps.model.generation import Generator, may_generate
from serve_apps.model.isolation import ModelBaseline, freeze_memory
from serve_apps.model.loading import load_model, original_weights
from serve_apps.model.mailbox import Mailbox
from serve_apps.model.metrics import tell_metrics
from serve_apps.model.progress import LoadingProgress, tells_daemon
from serve_apps.model.results import completed_frame
from serve_apps.model.rows import choose_rows
from serve_apps.telemetry.logs import ship_logs

logger = logging.getLogger("ray.serve")

PROMPT_TOKENS_PER_STEP = {"cpu": 256, "cuda": 4096}
"""How much of the prompts is read between two tokens of the texts that grow."""


class ModelReplica:
    """Holds one model and serves it.

    ``complete`` answers at once, ``stream`` in pieces, ``embed`` with vectors, ``run_block`` runs a
    traced block. Texts of several requests grow together; blocks and embeddings have the model alone
    between two steps. A caller that goes away (its Serve request is cancelled) ends its text after the
    current step, and its traced block at the next bytecode.
    """

    def __init__(self, args: dict[str, Any]) -> None:
        self._args = ModelArgs.model_validate(args)
        ship_logs("model")
        self._config = ModelConfig()
        with LoadingProgress(tells_daemon()) as progress:
            self._load(progress)
        freeze_memory()

    def _load(self, progress: LoadingProgress) -> None:
        self._model = load_model(self._args, progress)
        progress.warming()
        module = self._model._module
        rows = choose_rows(module) if may_generate(self._model) else None
        self._generator = Generator(self._model, can_generate=rows is not None)
        self._embedder = Embedder(self._model, self._args)
        self._engine = Engine(
            rows,
            PROMPT_TOKENS_PER_STEP.get(module.device.type, 256),
            memory_for_rows(module),
        )
        baseline = ModelBaseline(self._model, lambda: original_weights(self._args, module))
        self._executor: Executor = InProcessExecutor(self._model, baseline)
        self._warm_up()
        tell_metrics(self._args.repo_id, self._engine)

    def _warm_up(self) -> None:
        """Computes one token, so that a replica that cannot never calls itself ready.

        Raises ``RuntimeError`` if the model refuses its first prompt.
        """
        started = time.monotonic()
        if self._generator.can_generate:
            choices = self._generator.prepare(GenerationRequest(prompt="Hello", max_tokens=1))
            answer: Chunk | Refusal
            if isinstance(choices, Refusal):
                answer = choices
            else:
                # not by stream(): Serve makes replicas inside an event loop, which stands still meanwhile
                told: queue.SimpleQueue[Chunk | Refusal] = queue.SimpleQueue()
                self._engine.submit(self._generator.texts(choices, told.put, threading.Event()))
                answer = told.get()
            if isinstance(answer, Refusal):
                raise RuntimeError(f"the model refused its first prompt: {answer.message}")
        elif self._model.tokenizer is not None and self._model._module.config.is_encoder_decoder:
            self._model.generate("Hello", max_new_tokens=1)
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
        fatal = self._engine.fatal or self._executor.fatal()
        if fatal is not None:
            raise RuntimeError(fatal)

    async def complete(self, request: GenerationRequest) -> Chunk | Refusal:
        """The whole text at once, with finish reason and counts; further choices in ``others``."""
        choices: dict[int, list[Chunk]] = {}
        async with aclosing(self.stream(request)) as parts:
            async for part in parts:
                if isinstance(part, Refusal):
                    return part
                choices.setdefault(part.index, []).append(part)
        whole = [_joined(choices[index]) for index in sorted(choices)]
        if not whole or any(chunk.finish_reason is None for chunk in whole):
            return Refusal(message="The generation ended without a result.", status=500)
        return whole[0].model_copy(update={"others": tuple(whole[1:])})

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Chunk | Refusal, None]:
        """Pieces of text as they come; a ``Refusal`` is the only item, or the last one."""
        choices = await asyncio.to_thread(self._generator.prepare, request)
        if isinstance(choices, Refusal):
            yield choices
            return
        cancelled = threading.Event()
        mailbox: Mailbox[Chunk | Refusal] = Mailbox()
        self._engine.submit(self._generator.texts(choices, mailbox.put, cancelled))
        unfinished = len(choices)
        try:
            while unfinished:
                for part in _merged(await mailbox.take()):
                    yield part
                    if isinstance(part, Refusal):
                        return
                    unfinished -= part.finish_reason is not None
        finally:
            cancelled.set()

    async def embed(self, request: EmbeddingRequest) -> Embeddings | Refusal:
        """A vector for each input."""
        mailbox: Mailbox[Embeddings | Refusal] = Mailbox()

        def work() -> None:
            mailbox.put(self._embedder.embed(request))

        self._engine.alone(work)
        try:
            return (await mailbox.take())[0]
        finally:
            self._engine.withdraw(work)

    async def run_block(self, request: BlockRequest) -> AsyncGenerator[Frame, None]:
        """Runs a traced block; RUNNING when its turn comes, LOG lines, META, then the last frame."""
        cancelled = threading.Event()
        mailbox: Mailbox[Frame] = Mailbox()

        def work() -> None:
            mailbox.put(Frame(FrameKind.RUNNING))
            try:
                self._execute(request, mailbox, cancelled)
            except Exception as error:
                # its sender waits for a last frame
                logger.error("running a block failed", exc_info=error)
                mailbox.put(Frame(FrameKind.ERROR, f"{type(error).__name__}: {error}".encode()))

        self._engine.alone(work)
        try:
            last = False
            while not last:
                for frame in await mailbox.take():
                    yield frame
                    last = frame.kind in (FrameKind.RESULT, FrameKind.COMPLETED, FrameKind.ERROR)
        finally:
            cancelled.set()
            self._engine.withdraw(work)

    def _execute(self, request: BlockRequest, mailbox: Mailbox[Frame], cancelled: threading.Event) -> None:
        cost = Cost()
        block = Block(request.payload, request.compress, request.env, request.limit_seconds)
        for frame in self._executor.run(block, cancelled):
            if frame.kind is FrameKind.LOG:
                mailbox.put(frame)
                continue
            meta = cost.meta()
            mailbox.put(Frame(FrameKind.META, json.dumps(meta).encode()))
            mailbox.put(_inline(request, frame, meta))


def _joined(parts: list[Chunk]) -> Chunk:
    """One choice's pieces as one; the last one's counts are the choice's."""
    logprobs = tuple(told for part in parts for told in part.logprobs)
    return parts[-1].model_copy(update={"text": "".join(part.text for part in parts), "logprobs": logprobs})


def _merged(parts: list[Chunk | Refusal]) -> list[Chunk | Refusal]:
    """What came while the last was on its way, one piece for each choice: each costs a message."""
    refusal = next((part for part in parts if isinstance(part, Refusal)), None)
    if refusal is not None:
        return [refusal]
    choices: dict[int, list[Chunk]] = {}
    for part in parts:
        if isinstance(part, Chunk):
            choices.setdefault(part.index, []).append(part)
    return [_joined(pieces) for pieces in choices.values()]


def _inline(request: BlockRequest, frame: Frame, meta: dict[str, Any]) -> Frame:
    if frame.kind is not FrameKind.RESULT or len(frame.data) > request.inline_limit:
        return frame
    return Frame(FrameKind.COMPLETED, completed_frame(request.job_id, frame.data, meta))
