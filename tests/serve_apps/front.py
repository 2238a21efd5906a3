"""A gateway on a fake backend, with one model up and one that comes later."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn
from fastapi.testclient import TestClient

from serve_apps.contract import Booking, GatewayArgs, GatewayConfig, Route
from serve_apps.gateway.http import Gateway, make_app
from serve_apps.gateway.keys import KEYS_FILE, KeyStore
from serve_apps.gateway.metrics import Unmetered
from serve_apps.messages import BlockRequest, Frame, FrameKind
from tests.ray_cluster import wait_until
from tests.serve_apps.fakes import FakeBackend
from tests.tiny_model import model_key

META = Frame(FrameKind.META, b'{"runtime": 1}')
INLINE = (
    Frame(FrameKind.RUNNING),
    Frame(FrameKind.LOG, b"printed"),
    META,
    Frame(FrameKind.COMPLETED, b"binary"),
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
CONFIG = GatewayConfig(
    routes=(Route(model_key=model_key("org/m"), names=("org/m", "m"), applications=("a", "b")),),
    bookings=(
        Booking(names=("org/later",), start=LATER, end=LATER + timedelta(hours=1)),
        Booking(names=("org/far",), start=NOW + timedelta(days=1), end=NOW + timedelta(days=2)),
        Booking(names=("org/begun",), start=NOW - timedelta(minutes=1), end=LATER),
    ),
)


class Clock:
    """The gateway's idea of now, which a test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@contextmanager
def gateway_on(
    backend: FakeBackend,
    state_dir: Path | None = None,
    config: GatewayConfig | None = CONFIG,
    clock: Clock | None = None,
    meter: Unmetered | None = None,
    **args: Any,
) -> Iterator[tuple[Gateway, TestClient]]:
    """A gateway at work, and a client of its own."""
    made = GatewayArgs(state_dir=None if state_dir is None else str(state_dir), **args)
    gateway = Gateway(made, backend, now=clock or Clock(), meter=meter)
    if config is not None:
        gateway.reconfigure(config)
    try:
        with TestClient(make_app(gateway), base_url="http://127.0.0.1:8267") as client:
            yield gateway, client
    finally:
        gateway.close()


def make_key(state_dir: Path, mail: str = "ada@example.org", trusted: bool = True) -> str:
    """A key in the gateway's folder."""
    store = KeyStore(state_dir / KEYS_FILE)
    try:
        return store.add(mail, ("lab",), trusted, NOW)[1]
    finally:
        store.close()


def post_job(
    client: TestClient, headers: dict[str, str] | None = None, payload: bytes = b"payload", **changes: Any
) -> Any:
    """Sends a job as nnsight's client does; ``changes`` are to its envelope."""
    envelope = {"model_key": model_key("org/m"), "compress": True, "env": {"attn_implementation": "sdpa"}}
    data = {"data": json.dumps(envelope | changes)}
    return client.post("/request", data=data, files={"blob": payload}, headers=headers)


def follow(client: TestClient, job_id: str, headers: dict[str, str] | None = None) -> Any:
    """Polls until a job has ended, as nnsight's client does; returns its last status."""
    while True:
        answer = client.get(f"/response/{job_id}", headers=headers)
        assert answer.status_code == 200, answer.text
        if answer.json()["status"] in ("COMPLETED", "ERROR"):
            return answer.json()


def until_told(socket: Any, status: str) -> list[Any]:
    """What a websocket is told up to that status."""
    told = [socket.receive_json()]
    while told[-1]["status"] != status:
        told.append(socket.receive_json())
    return told


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The application on a server of its own, as a thread; its address."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, 20, "the server starts", every=0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


def blocks(backend: FakeBackend) -> list[BlockRequest]:
    return [request for _, request in backend.asked if isinstance(request, BlockRequest)]


def left_behind(folder: Path) -> list[str]:
    return [path.name for part in ("payloads", "frames") for path in (folder / part).iterdir()]
