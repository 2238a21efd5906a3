"""Turns of completions: each application takes so many at once, and keys that wait take turns."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from serve_apps.gateway.backend import Backend, BackendError
from serve_apps.gateway.caller import current
from serve_apps.gateway.metrics import current_exchange
from serve_apps.gateway.routing import Statuses
from serve_apps.messages import (
    BlockRequest,
    Chunk,
    EmbeddingRequest,
    Embeddings,
    Frame,
    GenerationRequest,
    Refusal,
)

CALLS_PER_REPLICA = 32
"""Completions sent to one replica of a model at once: it batches them, and more would wait there unfairly."""
FIRST_GUESS_SECONDS = 2.0
MAX_RETRY_SECONDS = 60


class _Line:
    """Who is at an application and who waits for it."""

    def __init__(self) -> None:
        self.slots = CALLS_PER_REPLICA
        self.inside = 0
        self.waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self.turn_seconds = FIRST_GUESS_SECONDS

    @property
    def length(self) -> int:
        return sum(map(len, self.waiting.values()))

    def let_in(self) -> None:
        """Gives free places to those who wait: one of each key, then the next key."""
        while self.inside < self.slots and self.waiting:
            owner, futures = next(iter(self.waiting.items()))
            future = futures.popleft()
            if futures:
                self.waiting.move_to_end(owner)
            else:
                del self.waiting[owner]
            if not future.done():
                self.inside += 1
                future.set_result(None)

    def retry_seconds(self) -> int:
        """When a place may be free for one more, from how long turns took lately."""
        expected = self.turn_seconds * (self.length + 1) / max(1, self.slots)
        return max(1, min(MAX_RETRY_SECONDS, math.ceil(expected)))


class FairGate:
    """The lines in front of all applications, in this process's memory."""

    def __init__(self, per_key: int, per_line: int) -> None:
        self._per_key = per_key
        self._per_line = per_line
        self._lines: dict[str, _Line] = {}

    def load(self, application: str) -> int:
        """Requests there and on their way there."""
        line = self._lines.get(application)
        return 0 if line is None else line.inside + line.length

    @property
    def lines(self) -> dict[str, tuple[int, int]]:
        """How many wait for each application that anybody asks, and how many are there."""
        return {name: (line.length, line.inside) for name, line in self._lines.items()}

    @asynccontextmanager
    async def turn(self, application: str, owner: str, slots: int, seconds: float) -> AsyncIterator[None]:
        """A place at an application while the block lasts.

        Raises ``BackendError``: 429 if this key has too many waiting, 503 if all have, 504 if no
        place was free in ``seconds``.
        """
        line = self._lines.setdefault(application, _Line())
        line.slots = slots
        line.let_in()
        if line.inside >= line.slots or line.waiting:
            await self._wait(line, owner, seconds)
        else:
            line.inside += 1
        began = time.monotonic()
        try:
            yield
        finally:
            line.turn_seconds += 0.2 * (time.monotonic() - began - line.turn_seconds)
            self._leave(application, line)

    def _leave(self, application: str, line: _Line) -> None:
        line.inside -= 1
        line.let_in()
        if not line.inside and not line.waiting and self._lines.get(application) is line:
            del self._lines[application]

    async def _wait(self, line: _Line, owner: str, seconds: float) -> None:
        mine = line.waiting.get(owner, ())
        if len(mine) >= self._per_key:
            text = f"{len(mine)} of your requests wait for this model already; {self._per_key} may."
            raise BackendError(429, "too_many_requests", text, line.retry_seconds())
        if line.length >= self._per_line:
            text = f"{line.length} requests wait for this model already; no more are taken for now."
            raise BackendError(503, "queue_full", text, line.retry_seconds())
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.waiting.setdefault(owner, deque()).append(place)
        try:
            async with asyncio.timeout(seconds):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                # it was given in the moment of leaving: the next one's
                line.inside -= 1
                line.let_in()
            elif owner in line.waiting and place in line.waiting[owner]:
                line.waiting[owner].remove(place)
                if not line.waiting[owner]:
                    del line.waiting[owner]
            if isinstance(error, TimeoutError):
                text = f"No turn at this model was free within {seconds:g} s."
                raise BackendError(504, "timeout", text, line.retry_seconds()) from None
            raise


class FairBackend:
    """A backend whose completions take turns. Jobs of nnsight's clients have a queue of their own."""

    def __init__(self, backend: Backend, gate: FairGate, deadline_seconds: float) -> None:
        self._backend = backend
        self._gate = gate
        self._deadline_seconds = deadline_seconds

    async def statuses(self) -> Statuses:
        return await self._backend.statuses()

    @asynccontextmanager
    async def _turn(self, application: str) -> AsyncIterator[None]:
        statuses = await self._backend.statuses()
        replicas = statuses[application].replicas if application in statuses else 1
        slots = CALLS_PER_REPLICA * max(1, replicas)
        exchange, began = current_exchange.get(), time.monotonic()
        async with self._gate.turn(application, current.get().owner, slots, self._deadline_seconds):
            if exchange is not None:
                exchange.turn_seconds = (exchange.turn_seconds or 0.0) + time.monotonic() - began
            yield

    async def complete(self, application: str, request: GenerationRequest) -> Chunk | Refusal:
        async with self._turn(application):
            return await self._backend.complete(application, request)

    async def embed(self, application: str, request: EmbeddingRequest) -> Embeddings | Refusal:
        async with self._turn(application):
            return await self._backend.embed(application, request)

    async def stream(
        self, application: str, request: GenerationRequest
    ) -> AsyncGenerator[Chunk | Refusal, None]:
        async with self._turn(application), aclosing(self._backend.stream(application, request)) as pieces:
            async for piece in pieces:
                yield piece

    def run_block(self, application: str, request: BlockRequest) -> AsyncGenerator[Frame, None]:
        return self._backend.run_block(application, request)
