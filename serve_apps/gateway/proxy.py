"""Makes Serve's HTTP proxy patient with websockets: ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH``.

nnsight's client answers pings only while it reads, which it does not while it uploads its block, nor
before its user awaits an asynchronous one. After 20 s without an answer uvicorn would close the socket,
and with it the job would end; Serve has no setting for that, but calls this where it makes its server.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

import uvicorn

PING_TIMEOUT_SECONDS = 900.0
"""A client that has gone without a word is noticed after this at the latest."""


def be_patient() -> list[Any]:
    """Has servers made from now on wait that long for an answer. Returns Serve's list of middlewares."""
    made = uvicorn.Config.__init__

    @wraps(made)
    def patient(self: uvicorn.Config, *args: Any, **settings: Any) -> None:
        settings.setdefault("ws_ping_timeout", PING_TIMEOUT_SECONDS)
        made(self, *args, **settings)

    uvicorn.Config.__init__ = patient  # type: ignore[method-assign]
    return []
