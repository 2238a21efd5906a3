"""The gateway's HTTP application on a fake backend."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serve_apps.contract import Booking, GatewayArgs, GatewayConfig, Route
from serve_apps.gateway.backend import BackendError, GoneError
from serve_apps.gateway.http import MAX_JSON_BYTES, Gateway, make_app
from serve_apps.gateway.routing import AppState
from serve_apps.messages import Chunk, GenerationRequest, Refusal
from tests.serve_apps.fakes import FakeBackend
from tests.tiny_model import model_key

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GONE = GoneError(503, "model_unavailable", "The model has just gone away.", 5)


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend(states={"a": AppState.SERVING, "b": AppState.SERVING})


@pytest.fixture
def gateway(backend: FakeBackend) -> Iterator[Gateway]:
    gateway = Gateway(GatewayArgs(max_blob_bytes=2 * MAX_JSON_BYTES), backend, now=lambda: NOW)
    later = NOW + timedelta(minutes=1)
    gateway.reconfigure(
        GatewayConfig(
            routes=(Route(model_key=model_key("org/m"), names=("org/m", "m"), applications=("a", "b")),),
            bookings=(Booking(names=("org/later",), start=later, end=later + timedelta(hours=1)),),
        )
    )
    yield gateway
    gateway.close()


@pytest.fixture
def client(gateway: Gateway) -> Iterator[TestClient]:
    with TestClient(make_app(gateway), base_url="http://127.0.0.1:8267") as client:
        yield client


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def asked(backend: FakeBackend) -> GenerationRequest:
    request = backend.asked[-1][1]
    assert isinstance(request, GenerationRequest)
    return request


def test_a_completion_in_openais_shape(client: TestClient, backend: FakeBackend) -> None:
    body = {"model": "M", "prompt": "Hi", "max_tokens": 7, "stop": "\n", "seed": 1, "user": "ignored"}
    answer = client.post("/v1/completions", json=body).json()
    assert answer["object"] == "text_completion"
    assert answer["model"] == "org/m"
    assert answer["choices"] == [{"index": 0, "finish_reason": "stop", "logprobs": None, "text": "Hello!"}]
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert asked(backend) == GenerationRequest(prompt="Hi", max_tokens=7, stop=("\n",), seed=1)


def test_a_chat_in_openais_shape(client: TestClient, backend: FakeBackend) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = {"model": "m", "messages": [{"role": "user", "content": parts}], "max_completion_tokens": 3}
    answer = client.post("/v1/chat/completions", json=body).json()
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Hello!"}
    assert asked(backend).messages == ({"role": "user", "content": "ab"},)
    assert asked(backend).max_tokens == 3


@pytest.mark.parametrize("prompt", [[1, 2, 3], ["Hi"]])
def test_other_forms_of_a_prompt(client: TestClient, backend: FakeBackend, prompt: list[Any]) -> None:
    assert client.post("/v1/completions", json={"model": "m", "prompt": prompt}).status_code == 200
    assert asked(backend).token_ids == ((1, 2, 3) if prompt != ["Hi"] else None)


def test_applications_take_turns(client: TestClient, backend: FakeBackend) -> None:
    for _ in range(4):
        client.post("/v1/completions", json={"model": "m", "prompt": "x"})
    assert [application for application, _ in backend.asked] in (["a", "b", "a", "b"], ["b", "a", "b", "a"])


@pytest.mark.parametrize("stream", [False, True])
def test_an_application_that_just_went_is_stepped_over(
    client: TestClient, backend: FakeBackend, stream: bool
) -> None:
    backend.errors["a"] = GONE
    for _ in range(2):
        body = {"model": "m", "prompt": "x", "stream": stream}
        assert client.post("/v1/completions", json=body).status_code == 200
    backend.errors["b"] = GONE
    response = client.post("/v1/completions", json=body)
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")


def test_a_stream_of_completions(client: TestClient) -> None:
    body = {"model": "m", "prompt": "x", "stream": True, "stream_options": {"include_usage": True}}
    response = client.post("/v1/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    *pieces, counts, done = events(response.text)
    assert [piece["choices"][0]["text"] for piece in pieces] == ["Hello", "!"]
    assert pieces[-1]["choices"][0]["finish_reason"] == "stop"
    assert counts["usage"]["total_tokens"] == 5 and counts["choices"] == []
    assert done == "[DONE]"


def test_a_stream_of_chat_opens_with_the_role(client: TestClient) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
    first, second, *_ = events(client.post("/v1/chat/completions", json=body).text)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert second["choices"][0]["delta"] == {"content": "Hello"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_an_error_status_even_for_a_stream(
    client: TestClient, backend: FakeBackend, stream: bool
) -> None:
    backend.answer = (Refusal(message="too long", code="context_length_exceeded", param="prompt"),)
    response = client.post("/v1/completions", json={"model": "m", "prompt": "x", "stream": stream})
    assert response.status_code == 400
    expected = {
        "message": "too long",
        "type": "invalid_request_error",
        "param": "prompt",
        "code": "context_length_exceeded",
    }
    assert response.json()["error"] == expected


def test_a_model_that_dies_in_mid_stream_ends_it_with_an_error(
    client: TestClient, backend: FakeBackend
) -> None:
    backend.answer = (Chunk(text="He"), BackendError(503, "replica_died", "The replica died."))
    text = client.post("/v1/completions", json={"model": "m", "prompt": "x", "stream": True}).text
    piece, error = events(text)
    assert piece["choices"][0]["text"] == "He"
    assert error["error"]["code"] == "replica_died"


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"prompt": 7}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a"] * 129}, "prompt"),
        ({"prompt": [["a"]]}, "prompt"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 129}, "n"),
        ({"logprobs": 21}, "logprobs"),
        ({"echo": True}, "echo"),
        ({"logit_bias": {"x": 100}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"stop": ["x"] * 100_000}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"seed": 2**70}, "seed"),
        ({"model": ""}, "model"),
    ],
)
def test_what_is_not_understood_is_a_400_that_names_it(
    client: TestClient, changes: dict[str, Any], where: str
) -> None:
    response = client.post("/v1/completions", json={"model": "m", "prompt": "x", **changes})
    assert response.status_code == 400
    assert where in response.json()["error"]["message"]


def test_a_body_that_is_not_json_is_a_400(client: TestClient) -> None:
    response = client.post("/v1/completions", content=b"{", headers={"content-type": "application/json"})
    assert response.status_code == 400 and "error" in response.json()


def test_a_body_over_the_limit_is_a_413_announced_or_not(client: TestClient) -> None:
    big = b"x" * (MAX_JSON_BYTES + 1)
    for content in (big, iter([big])):
        response = client.post("/v1/completions", content=content)
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "body_too_large"


def test_errors_of_the_table_reach_the_client(client: TestClient) -> None:
    response = client.post("/v1/completions", json={"model": "nope", "prompt": "x"})
    assert response.status_code == 404
    assert "org/m" in response.json()["error"]["message"]
    response = client.post("/v1/completions", json={"model": "org/later", "prompt": "x"})
    assert (response.status_code, response.headers["retry-after"]) == (503, "60")
    assert client.get("/nowhere").json()["error"]["message"] == "Not Found"


def test_models_one_and_all(client: TestClient) -> None:
    listed = client.get("/v1/models").json()
    assert [(item["id"], item["state"]) for item in listed["data"]] == [
        ("org/m", "serving"),
        ("org/later", "booked"),
    ]
    assert client.get("/v1/models/ORG/m").json()["id"] == "org/m"
    assert client.get("/v1/models/org/x").status_code == 404


def test_a_broken_routing_table_keeps_the_last() -> None:
    from serve_apps.gateway.app import GatewayReplica

    replica = GatewayReplica({})
    good = GatewayConfig(routes=(Route(model_key=model_key("org/m"), names=("org/m",)),))
    replica.reconfigure(good.model_dump(mode="json"))
    replica.reconfigure({"routes": "nonsense"})
    assert replica._gateway.table.routes == good.routes
