"""The patience of Serve's proxy with websockets."""

from __future__ import annotations

from importlib import import_module

import pytest
import uvicorn

from scheduler.launch.options import PREFERRED
from serve_apps.gateway.proxy import PING_TIMEOUT_SECONDS


def test_the_proxys_servers_wait_long_for_an_answer_to_a_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    # put back afterwards
    monkeypatch.setattr(uvicorn.Config, "__init__", uvicorn.Config.__init__)
    module, _, name = PREFERRED["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"].partition(":")
    assert getattr(import_module(module), name)() == []
    assert uvicorn.Config(lambda: None, factory=True).ws_ping_timeout == PING_TIMEOUT_SECONDS
    assert uvicorn.Config(lambda: None, ws_ping_timeout=5).ws_ping_timeout == 5
