"""A backend that answers from memory, obeying the gateway's ``Backend`` protocol."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from serve_apps.gateway.backend import BackendError
from serve_apps.gateway.routing import AppState, AppStatus, Statuses
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

Request = GenerationRequest | EmbeddingRequest | BlockRequest

LAST = Chunk(text="!", finish_reason="stop", prompt_tokens=3, completion_tokens=2)


@dataclass
class FakeBackend:
    """``answer`` is what every model says, ``frames`` what every block yields.

    ``errors`` maps applications to what asking them raises. ``asked`` notes who was asked for what.
    What is ``endless``, and a block whose frames are empty, runs until it is cancelled, which
    ``cancelled`` tells; ``begun`` tells that one began.
    """

    states: dict[str, AppState] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    answer: Sequence[Chunk | Refusal | BackendError] = (Chunk(text="Hello"), LAST)
    frames: Sequence[Frame] = (Frame(FrameKind.RUNNING), Frame(FrameKind.RESULT, b"result"))
    errors: dict[str, BackendError] = field(default_factory=dict)
    asked: list[tuple[str, Request]] = field(default_factory=list)
    endless: bool = False
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def statuses(self) -> Statuses:
        return {name: AppStatus(state, self.messages.get(name, "")) for name, state in self.states.items()}

    async def complete(self, application: str, request: GenerationRequest) -> Chunk | Refusal:
        text = ""
        async for part in self.stream(application, request):
            if isinstance(part, Refusal):
                return part
            text += part.text
        return LAST.model_copy(update={"text": text})

    async def embed(self, application: str, request: EmbeddingRequest) -> Embeddings | Refusal:
        self._ask(application, request)
        numbers = struct.pack("<2f", 0.6, 0.8) * len(request.inputs)
        return Embeddings(width=2, data=numbers, prompt_tokens=4)

    async def stream(
        self, application: str, request: GenerationRequest
    ) -> AsyncGenerator[Chunk | Refusal, None]:
        self._ask(application, request)
        for part in self.answer:
            if isinstance(part, BackendError):
                raise part
            yield part
        if self.endless:
            await self._until_cancelled()

    async def run_block(self, application: str, request: BlockRequest) -> AsyncGenerator[Frame, None]:
        self._ask(application, request)
        self.begun.set()
        for frame in self.frames:
            yield frame
        if self.endless or not self.frames:
            await self._until_cancelled()

    async def _until_cancelled(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    def _ask(self, application: str, request: Request) -> None:
        self.asked.append((application, request))
        if application in self.errors:
            raise self.errors[application]
