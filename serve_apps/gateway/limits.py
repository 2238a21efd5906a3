"""Refuses bodies that are too large or too slow while they come in, before anything holds them whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_apps.gateway.openai import error_body

IDLE_SECONDS = 60.0
"""Longest pause in a body that is coming in."""


class BodyRefusedError(Exception):
    """More bytes came than the route takes, or none for too long."""


class BodyLimit:
    """ASGI middleware: 413 once a body is longer than ``limit(path)`` bytes, 408 once it stops coming."""

    def __init__(self, app: ASGIApp, limit: Callable[[str], int], idle_seconds: float = IDLE_SECONDS) -> None:
        self._app = app
        self._limit = limit
        self._idle_seconds = idle_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope["path"])
        if _announced(scope) > limit:
            await _too_large(limit)(scope, receive, send)
            return
        body = _Body(receive, send, limit, self._idle_seconds)
        with suppress(BodyRefusedError):
            await self._app(scope, body.receive, body.send)
        if body.refusal is not None and not body.answering:
            await body.refusal(scope, receive, send)


class _Body:
    """Counts a body while it comes in; ``refusal`` is the answer once there was enough of it."""

    def __init__(self, receive: Receive, send: Send, limit: int, idle_seconds: float) -> None:
        self._receive = receive
        self._send = send
        self._limit = limit
        self._idle_seconds = idle_seconds
        self._received = 0
        self._complete = False
        self.answering = False
        self.refusal: JSONResponse | None = None

    async def receive(self) -> Message:
        try:
            # after the body this waits for the client to leave, which may take any time
            async with asyncio.timeout(None if self._complete else self._idle_seconds):
                message = await self._receive()
        except TimeoutError:
            text = f"Nothing of the body came for {self._idle_seconds:g} s."
            self.refusal = _refuse(408, "body_too_slow", text)
            raise BodyRefusedError from None
        self._received += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._received > self._limit:
            self.refusal = _too_large(self._limit)
            raise BodyRefusedError
        return message

    async def send(self, message: Message) -> None:
        # FastAPI makes a 400 of whatever goes wrong while it reads a body
        if self.refusal is None:
            self.answering = True
            await self._send(message)


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _too_large(limit: int) -> JSONResponse:
    return _refuse(413, "body_too_large", f"The body is larger than {limit} bytes.")


def _refuse(status: int, code: str, text: str) -> JSONResponse:
    body = {**error_body(text, code, status), "detail": text}
    return JSONResponse(body, status, headers={"connection": "close"})
