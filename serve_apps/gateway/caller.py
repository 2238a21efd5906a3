"""The caller of the request that is being served, for whoever needs it on the way."""

from __future__ import annotations

from contextvars import ContextVar

from serve_apps.gateway.keys import ANONYMOUS, Caller

current: ContextVar[Caller] = ContextVar("caller", default=ANONYMOUS)
"""Set by the doorkeeper before anything else sees a request."""
