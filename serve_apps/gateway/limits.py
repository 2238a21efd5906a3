"""Refuses bodies that are too large while they come in, before anything holds them whole."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_apps.gateway.openai import error_body


class BodyTooLargeError(Exception):
    """More bytes came than the route takes."""


class BodyLimit:
    """ASGI middleware: 413 once a body is longer than ``limit(path)`` bytes."""

    def __init__(self, app: ASGIApp, limit: Callable[[str], int]) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope["path"])
        if _announced(scope) > limit:
            await _refuse(limit)(scope, receive, send)
            return
        received, answering = 0, False

        async def counting() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise BodyTooLargeError
            return message

        async def noting(message: Message) -> None:
            nonlocal answering
            # FastAPI makes a 400 of whatever goes wrong while it reads a body
            if received <= limit:
                answering = True
                await send(message)

        with suppress(BodyTooLargeError):
            await self._app(scope, counting, noting)
        if received > limit and not answering:
            await _refuse(limit)(scope, receive, send)


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _refuse(limit: int) -> JSONResponse:
    text = f"The body is larger than {limit} bytes."
    body = {**error_body(text, "body_too_large", 413), "detail": text}
    return JSONResponse(body, 413, headers={"connection": "close"})
