"""Who may come in, and how often: asked before a byte of the body is read."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_apps.gateway import replicas_table
from serve_apps.gateway.caller import current
from serve_apps.gateway.generation import error_response
from serve_apps.gateway.keys import ANONYMOUS, Caller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from serve_apps.gateway.http import Gateway

PUBLIC = frozenset({"/healthz", "/ping", "/connected", "/whoami", "/env", "/status", "/openapi.json"})
"""Paths that nnsight's client asks without its key, or that tell nothing."""
SIGNED = "/results/"
"""Links that authorise themselves."""


class Doorkeeper:
    """ASGI middleware: sets the caller, refuses strangers, keeps each key's rate and number of calls.

    A websocket of a stranger is let in: nnsight's client shows people only what is said to the
    request that follows, which is refused.
    """

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        key = key_of(scope["headers"])
        caller = await self._gateway.identify(key)
        scope.setdefault("state", {})["known"] = caller is not None
        token = current.set(caller or ANONYMOUS)
        try:
            if scope["type"] == "websocket" or is_public(scope["path"]):
                await self._app(scope, receive, send)
            elif caller is None:
                await _stranger(scope["path"], key)(scope, receive, send)
            else:
                await self._admit(caller, scope, receive, send)
        finally:
            current.reset(token)

    async def _admit(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        if not caller.owner or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        async with self._place(caller.owner, at_once=scope["path"].startswith("/v1/")) as wait_seconds:
            if wait_seconds is None:
                await self._app(scope, receive, send)
                return
            text = "This key makes more requests, or more at once, than it may."
            answer = error_response(429, text, "rate_limit_exceeded", retry_after=math.ceil(wait_seconds))
            await answer(scope, receive, send)

    @asynccontextmanager
    async def _place(self, owner: str, at_once: bool) -> AsyncIterator[float | None]:
        """One of a key's places while the block lasts, or the seconds after which to come again."""
        desk, args = self._gateway.desk, self._gateway.args
        most = args.concurrent_per_key if at_once else None
        wait_seconds = await desk.database.run(
            replicas_table.admit, desk.replica, owner, time.time(), args.requests_per_minute, most
        )
        try:
            yield wait_seconds
        finally:
            if wait_seconds is None and at_once:
                # given back even while this request is being cancelled
                await asyncio.shield(desk.database.run(replicas_table.leave, desk.replica, owner))


class Departures:
    """ASGI middleware: a request ends when its client leaves, also while nothing is being sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client = _Client(receive, send)
        working = asyncio.create_task(_call(self._app, scope, client.receive, client.send))
        try:
            await asyncio.wait([working, client.listening], return_when=asyncio.FIRST_COMPLETED)
            left = not working.done() and not client.answered
            if left:
                working.cancel()
            await asyncio.wait([working])
            if not (left and working.cancelled()):
                working.result()
        finally:
            for task in (working, client.listening):
                task.cancel()
            await asyncio.gather(working, client.listening, return_exceptions=True)


class _Client:
    """Reads on while the application works: ``listening`` ends when the client has left."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._messages: asyncio.Queue[Message] = asyncio.Queue(1)
        self.answered = False
        self.listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while (message := await self._receive())["type"] != "http.disconnect":
            await self._messages.put(message)

    async def receive(self) -> Message:
        take = asyncio.create_task(self._messages.get())
        try:
            await asyncio.wait([take, self.listening], return_when=asyncio.FIRST_COMPLETED)
            return take.result() if take.done() else {"type": "http.disconnect"}
        finally:
            take.cancel()

    async def send(self, message: Message) -> None:
        self.answered = message["type"] == "http.response.body" and not message.get("more_body")
        await self._send(message)


async def _call(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


def key_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The key of a request, in nnsight's header or OpenAI's; None without one."""
    found = {name: value.decode("latin-1") for name, value in headers}
    if key := found.get(b"ndif-api-key"):
        return key.strip()
    kind, _, key = found.get(b"authorization", "").partition(" ")
    return key.strip() or None if kind.casefold() == "bearer" else None


def is_public(path: str) -> bool:
    return path in PUBLIC or path.startswith(SIGNED)


def _stranger(path: str, key: str | None) -> ASGIApp:
    """401 or 403, as each kind of client expects it."""
    where = "Ask this service's operator for one (made with “keys add”)"
    if key is None:
        text = f"A key is needed here. {where}, and set NDIF_API_KEY, or api_key in OpenAI's client."
        return error_response(401, text, "missing_api_key", headers={"WWW-Authenticate": "Bearer"})
    status = 401 if path.startswith("/v1/") else 403
    return error_response(status, f"This key is unknown or was revoked. {where}.", "invalid_api_key")
