"""The websockets of nnsight's clients that wait for their jobs here."""

from __future__ import annotations

import asyncio
import json
import secrets

from starlette.websockets import WebSocket, WebSocketDisconnect

IDLE_SECONDS = 60.0
"""The client sends its job right after it has subscribed; a socket without one is closed after this."""


class Session:
    """An open websocket: what is to be sent there, and whether a job was ever sent for it."""

    def __init__(self, owner: str) -> None:
        self.id = secrets.token_urlsafe(24)
        self.owner = owner
        self.outgoing: asyncio.Queue[str | bytes] = asyncio.Queue()
        self.in_use = asyncio.Event()

    def send(self, item: str | bytes) -> None:
        self.in_use.set()
        self.outgoing.put_nowait(item)


async def serve_session(session: Session, socket: WebSocket, idle_seconds: float = IDLE_SECONDS) -> None:
    """Tells the client its session, then passes on what is said to it, until it leaves.

    Whoever sends no job is sent away.
    """

    async def send() -> None:
        await socket.send_text(json.dumps({"session_id": session.id}))
        while True:
            item = await session.outgoing.get()
            await (socket.send_bytes(item) if isinstance(item, bytes) else socket.send_text(item))

    async def listen() -> None:
        # the client sends nothing; reading is how its leaving is noticed
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass

    async def give_up() -> None:
        try:
            async with asyncio.timeout(idle_seconds):
                await session.in_use.wait()
        except TimeoutError:
            await socket.close(1000, f"no job was sent within {idle_seconds:g} s")
            return
        await asyncio.Event().wait()

    tasks = [asyncio.create_task(work()) for work in (send, listen, give_up)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if not isinstance(task.exception(), WebSocketDisconnect | RuntimeError | None):
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
