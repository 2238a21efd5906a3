"""Wakes the other replicas of the gateway, which run on the same machine, without any delay.

A ring says nothing but "look into the database": a lost one costs the time until the next look, one
from a stranger costs a look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LOOPBACK = "127.0.0.1"


class Doorbell(asyncio.DatagramProtocol):
    """A UDP port on loopback; ``rung`` is called for each ring."""

    def __init__(self, rung: Callable[[], None]) -> None:
        self._rung = rung
        self._transport: asyncio.DatagramTransport | None = None

    async def open(self) -> int:
        """Listens; returns the port."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(LOOPBACK, 0))
        port: int = self._transport.get_extra_info("sockname")[1]
        return port

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def ring(self, port: int) -> None:
        """Rings at another's port; whether anybody is there does not matter."""
        if self._transport is not None:
            self._transport.sendto(b"", (LOOPBACK, port))

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        self._rung()

    def error_received(self, exc: Exception) -> None:
        """The one rung at has gone: its row in the database goes with the next look."""
