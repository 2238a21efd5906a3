"""Who is asking, under which name, and how much: what is checked before anything is answered."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scheduler.settings_web import LOOPBACK, WebSettings
from scheduler.web.veil import Sight

MOST_BODY_BYTES = 16 * 1024
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
"""Headers of proxies: with one of them nobody knows from where a request comes."""

SECURITY_HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True)
class Doorkeeper:
    """Knows the key, and the names this service goes by."""

    settings: WebSettings
    _digest: bytes | None = field(init=False)
    _names: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        key = self.settings.key
        object.__setattr__(self, "_digest", _digest(key.get_secret_value()) if key else None)
        public = (self.settings.public_url or "").partition("://")[2].partition("/")[0]
        own = (self.settings.host, socket.gethostname(), socket.getfqdn(), _host(public))
        names = {one.lower().rstrip(".") for one in (*own, *self.settings.hosts) if one}
        object.__setattr__(self, "_names", frozenset({*names, "localhost"}))

    @property
    def has_key(self) -> bool:
        """Whether there is a key at all."""
        return self._digest is not None

    def knows(self, host: str | None) -> bool:
        """Whether a ``Host`` header names this service.

        A page of somebody else's can have its own name lead here, and then read what it likes (DNS
        rebinding). It cannot do so with an address, nor with a name without dots, as machines and
        containers of one network have.
        """
        name = _host(host or "").lower().rstrip(".")
        if not name or any(one.isspace() for one in name):
            return False
        known = name in self._names or name.endswith(".localhost")
        return known or "." not in name.strip(".") or _is_address(name)

    def key_fits(self, given: str | None) -> bool:
        """Whether the right key was given; False where none was.

        Raises:
            HTTPException: a wrong one was, or one was given and there is none.
        """
        if given is None:
            return False
        # digests are compared, as they all are of one length
        if self._digest is None or not hmac.compare_digest(_digest(given), self._digest):
            raise HTTPException(
                401,
                {"detail": "This key is not the operator's.", "remedy": "It is web.key of the settings."},
                headers={"www-authenticate": "Bearer"},
            )
        return True

    def is_local(self, client: str | None, headers: Mapping[str, str]) -> bool:
        """Whether a request comes from this very machine, and not through a proxy on it."""
        host = _host(headers.get("host") or "").lower()
        at_home = host in LOOPBACK or host.endswith(".localhost")
        return client in LOOPBACK and at_home and not through_proxy(headers)


def through_proxy(headers: Mapping[str, str]) -> bool:
    """Whether a request came through a proxy that says so."""
    return any(one in headers for one in FORWARDED)


Bearer = Annotated[
    HTTPAuthorizationCredentials | None,
    Depends(
        HTTPBearer(
            auto_error=False,
            scheme_name="operator",
            description="The operator's key: `web.key` of the settings",
        )
    ),
]


def sight(request: Request, given: Bearer) -> Sight:
    """How much of everything whoever asks may see."""
    doorkeeper: Doorkeeper = request.app.state.doorkeeper
    operator = doorkeeper.key_fits(given.credentials if given else None)
    client = request.client.host if request.client else None
    return Sight(operator, operator or doorkeeper.is_local(client, request.headers))


Reader = Annotated[Sight, Depends(sight)]


class Door:
    """Turns away what is not meant for this service, or too large; adds the headers that browsers obey."""

    def __init__(self, app: ASGIApp, doorkeeper: Doorkeeper) -> None:
        self._app = app
        self._doorkeeper = doorkeeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    added.setdefault(name, value)
                added.setdefault("cache-control", "no-store")
            await send(message)

        if not self._doorkeeper.knows(headers.get("host")):
            answer = _problem(
                421,
                "This service does not go by that name.",
                "Use its address, or add the name to web.hosts of the settings.",
            )
            await answer(scope, receive, send_with_headers)
        elif _length(headers) > MOST_BODY_BYTES or "transfer-encoding" in headers:
            answer = _problem(
                413, f"At most {MOST_BODY_BYTES} bytes are read, and they must be announced.", "Send less."
            )
            await answer(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)


def _problem(status: int, detail: str, remedy: str) -> JSONResponse:
    return JSONResponse({"detail": detail, "remedy": remedy}, status_code=status)


def _length(headers: Headers) -> int:
    written = headers.get("content-length", "0")
    readable = written.isascii() and written.isdigit() and len(written) < 19
    return int(written) if readable else MOST_BODY_BYTES + 1


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _host(written: str) -> str:
    """The host of ``host:port``, without the brackets of an IPv6 address."""
    if written.startswith("["):
        return written[1:].partition("]")[0]
    return written.rpartition(":")[0] if written.count(":") == 1 else written


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
