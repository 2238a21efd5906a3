"""Measures requests where they pass: around the whole application, and around the models."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_apps.gateway.backend import Backend
from serve_apps.gateway.metrics import Exchange, Unmetered, current_exchange
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
from serve_apps.telemetry.labels import UNKNOWN


class Measured:
    """ASGI middleware, around all others: tells a meter of each request when it is over."""

    def __init__(self, app: ASGIApp, meter: Unmetered) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange, began = Exchange(), time.monotonic()

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.code = message["status"]
            else:
                exchange.response_bytes += len(message.get("body", b""))
            await send(message)

        token = current_exchange.set(exchange)
        try:
            await self._app(scope, receive, watched)
        finally:
            current_exchange.reset(token)
            exchange.seconds = time.monotonic() - began
            exchange.route = _route(scope)
            self._meter.request(exchange)


def _route(scope: Scope) -> str:
    """The pattern that a path matched: there are few of them, and any number of paths."""
    return str(getattr(scope.get("route"), "path", UNKNOWN))


class MeasuredBackend:
    """A backend of which is noted when the first piece came, and how many tokens it was."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def statuses(self) -> Statuses:
        return await self._backend.statuses()

    async def complete(self, application: str, request: GenerationRequest) -> Chunk | Refusal:
        answer = await self._backend.complete(application, request)
        if isinstance(answer, Chunk):
            _count(answer, *answer.others)
        return answer

    async def embed(self, application: str, request: EmbeddingRequest) -> Embeddings | Refusal:
        answer = await self._backend.embed(application, request)
        exchange = current_exchange.get()
        if exchange is not None and isinstance(answer, Embeddings):
            exchange.prompt_tokens += answer.prompt_tokens
        return answer

    async def stream(
        self, application: str, request: GenerationRequest
    ) -> AsyncGenerator[Chunk | Refusal, None]:
        exchange, began = current_exchange.get(), time.monotonic()
        async with aclosing(self._backend.stream(application, request)) as pieces:
            async for piece in pieces:
                if exchange is not None and exchange.first_seconds is None:
                    exchange.first_seconds = time.monotonic() - began
                if isinstance(piece, Chunk):
                    _count(piece, exchange=exchange)
                yield piece

    def run_block(self, application: str, request: BlockRequest) -> AsyncGenerator[Frame, None]:
        return self._backend.run_block(application, request)


def _count(*chunks: Chunk, exchange: Exchange | None = None) -> None:
    exchange = exchange or current_exchange.get()
    if exchange is not None:
        exchange.prompt_tokens += sum(one.prompt_tokens for one in chunks)
        exchange.completion_tokens += sum(one.completion_tokens for one in chunks)
