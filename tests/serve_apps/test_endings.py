"""Before a model's last booking ends, its clients are told."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from serve_apps.contract import GatewayConfig, Route
from serve_apps.gateway.routing import AppState
from tests.serve_apps.fakes import FakeBackend
from tests.serve_apps.front import INLINE, NOW, Clock, gateway_on, post_job, until_told
from tests.tiny_model import model_key

END = NOW + timedelta(minutes=30)
ASKED = {
    "/v1/completions": {"model": "m", "prompt": "x"},
    "/v1/chat/completions": {"model": "org/m", "messages": [{"role": "user", "content": "x"}]},
    "/v1/embeddings": {"model": "m", "input": "x"},
}


def until(end: datetime | None) -> GatewayConfig:
    return GatewayConfig(
        routes=(Route(model_key=model_key("org/m"), names=("org/m", "m"), applications=("a",), until=end),)
    )


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend(states={"a": AppState.SERVING})


def headers(backend: FakeBackend, at: datetime, path: str, end: datetime | None = END, **args: Any) -> Any:
    clock = Clock()
    clock.now = at
    streamed = args.pop("stream", None)
    body = ASKED[path] | ({"stream": True} if streamed else {})
    with gateway_on(backend, config=until(end), clock=clock, **args) as (_, client):
        answer = client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.headers


@pytest.mark.parametrize("path", ASKED)
def test_answers_shortly_before_the_end_carry_it(backend: FakeBackend, path: str) -> None:
    found = headers(backend, END - timedelta(minutes=10), path)
    assert found["x-ndif-ends-at"] == "2026-03-01T12:30:00Z"
    assert found["sunset"] == "Sun, 01 Mar 2026 12:30:00 GMT"


def test_a_stream_carries_it_too(backend: FakeBackend) -> None:
    found = headers(backend, END - timedelta(minutes=1), "/v1/completions", stream=True)
    assert found["x-ndif-ends-at"] == "2026-03-01T12:30:00Z"


@pytest.mark.parametrize(
    ("at", "end", "args"),
    [
        (END - timedelta(minutes=10, seconds=1), END, {}),
        (END - timedelta(minutes=5), END, {"warn_seconds": 240}),
        (END - timedelta(seconds=1), END, {"warn_seconds": 0}),
        (NOW, None, {}),
    ],
)
def test_others_do_not(
    backend: FakeBackend, at: datetime, end: datetime | None, args: dict[str, Any]
) -> None:
    found = headers(backend, at, "/v1/completions", end, **args)
    assert not {"x-ndif-ends-at", "sunset"} & set(found)


def test_web_pages_may_read_it(backend: FakeBackend) -> None:
    clock = Clock()
    clock.now = END
    with gateway_on(backend, config=until(END), clock=clock, cors_origins=("https://lab.example",)) as (
        _,
        client,
    ):
        origin = {"Origin": "https://lab.example"}
        answer = client.post("/v1/completions", json=ASKED["/v1/completions"], headers=origin)
    assert "X-NDIF-Ends-At" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    ("minutes", "words"),
    [
        (10, "Your job is running. Its model is booked until 12:30 UTC; book it again to go on after."),
        (11, "Your job is running."),
    ],
)
def test_a_job_that_begins_to_run_is_told(backend: FakeBackend, minutes: int, words: str) -> None:
    backend.frames = INLINE
    clock = Clock()
    clock.now = END - timedelta(minutes=minutes)
    with (
        gateway_on(backend, config=until(END), clock=clock) as (_, client),
        client.websocket_connect("/subscribe") as socket,
    ):
        post_job(client, session_id=socket.receive_json()["session_id"])
        told = until_told(socket, "RUNNING")
    assert told[-1]["description"] == words
