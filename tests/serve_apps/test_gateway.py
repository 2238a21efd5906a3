"""The gateway's HTTP application on a fake backend."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serve_apps.contract import Booking, GatewayArgs, GatewayConfig, Route
from serve_apps.gateway.backend import BackendError, GoneError
from serve_apps.gateway.http import MAX_JSON_BYTES, Gateway, make_app
from serve_apps.gateway.routing import AppState
from serve_apps.messages import Chunk, Frame, FrameKind, GenerationRequest, Refusal
from tests.serve_apps.fakes import FakeBackend
from tests.tiny_model import model_key

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GONE = GoneError(503, "model_unavailable", "The model has just gone away.", 5)


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend(states={"a": AppState.SERVING, "b": AppState.SERVING})


@pytest.fixture
def gateway(backend: FakeBackend) -> Gateway:
    gateway = Gateway(GatewayArgs(max_blob_bytes=2 * MAX_JSON_BYTES), backend, now=lambda: NOW)
    later = NOW + timedelta(minutes=1)
    gateway.reconfigure(
        GatewayConfig(
            routes=(Route(model_key=model_key("org/m"), names=("org/m", "m"), applications=("a", "b")),),
            bookings=(Booking(names=("org/later",), start=later, end=later + timedelta(hours=1)),),
        )
    )
    return gateway


@pytest.fixture
def client(gateway: Gateway) -> TestClient:
    return TestClient(make_app(gateway), base_url="http://127.0.0.1:8267")


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
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"logprobs": 5}, "logprobs"),
        ({"echo": True}, "echo"),
        ({"logit_bias": {"5": 100}}, "logit_bias"),
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


class TestNnsight:
    def post(self, client: TestClient, headers: Any = None, **changes: Any) -> Any:
        envelope = {"model_key": model_key("org/m"), "compress": True, "env": {"attn_implementation": "sdpa"}}
        data = {"data": json.dumps(envelope | changes)}
        return client.post("/request", data=data, files={"blob": b"payload"}, headers=headers)

    def test_a_job_over_the_websocket(self, client: TestClient, backend: FakeBackend) -> None:
        backend.frames = (
            Frame(FrameKind.RUNNING),
            Frame(FrameKind.LOG, b"printed"),
            Frame(FrameKind.META, b'{"runtime": 1}'),
            Frame(FrameKind.COMPLETED, b"binary frame"),
        )
        with client.websocket_connect("/subscribe") as socket:
            session_id = socket.receive_json()["session_id"]
            received = self.post(client, session_id=session_id, id="mine").json()
            assert received["status"] == "RECEIVED" and received["id"] != "mine"
            statuses = [socket.receive_json() for _ in range(3)]
            assert [status["status"] for status in statuses] == ["QUEUED", "RUNNING", "LOG"]
            assert {status["id"] for status in statuses} == {received["id"]}
            assert statuses[-1]["description"] == "printed"
            assert socket.receive_bytes() == b"binary frame"
        request = backend.asked[-1][1]
        assert (request.payload, request.compress, request.inline_limit) == (b"payload", True, 16 * 1024**2)

    def test_an_error_is_told_before_anything_closes(self, client: TestClient, backend: FakeBackend) -> None:
        backend.frames = (Frame(FrameKind.META, b'{"runtime": 1}'), Frame(FrameKind.ERROR, b"Traceback"))
        with client.websocket_connect("/subscribe") as socket:
            self.post(client, session_id=socket.receive_json()["session_id"])
            assert socket.receive_json()["status"] == "QUEUED"
            error = socket.receive_json()
        assert (error["status"], error["description"], error["meta"]) == (
            "ERROR",
            "Traceback",
            {"runtime": 1},
        )

    def test_a_client_that_leaves_ends_its_job(self, gateway: Gateway, backend: FakeBackend) -> None:
        backend.frames = ()
        with TestClient(make_app(gateway), base_url="http://127.0.0.1") as client:
            with client.websocket_connect("/subscribe") as socket:
                self.post(client, session_id=socket.receive_json()["session_id"])
                assert socket.receive_json()["status"] == "QUEUED"
            assert client.portal is not None
            client.portal.call(backend.cancelled.wait)

    def test_a_polled_job_ends_in_a_url(self, gateway: Gateway, backend: FakeBackend) -> None:
        with TestClient(make_app(gateway), base_url="http://127.0.0.1:8267") as client:
            job_id = self.post(client).json()["id"]
            assert client.get("/response/unknown").status_code == 404
            answer = client.get(f"/response/{job_id}").json()
            assert answer["status"] == "COMPLETED"
            assert answer["data"].startswith("http://127.0.0.1:8267/results/")
            assert client.get(answer["data"]).content == b"result"
            assert client.get(answer["data"] + "x").status_code == 404

    def test_results_are_held_within_a_bound(self, gateway: Gateway) -> None:
        from serve_apps.gateway.nnsight import Held

        held = Held(max_bytes=10)
        first, second, third = (held.put(b"1234") for _ in range(3))
        assert (held.get(first), held.get(second), held.get(third)) == (None, b"1234", b"1234")
        with pytest.raises(BackendError, match="at most 10"):
            held.put(b"x" * 11)

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"host": "127.0.0.1:8267"}, 200),
            ({"host": "localhost:8267"}, 200),
            ({"host": "[::1]:8267"}, 200),
            ({"host": "evil.example"}, 403),
            ({"origin": "http://evil.example"}, 403),
            ({"origin": "http://127.0.0.1:8267"}, 200),
            ({"origin": "null"}, 403),
        ],
    )
    def test_web_pages_may_not_run_code(
        self, client: TestClient, headers: dict[str, str], status: int
    ) -> None:
        assert self.post(client, headers).status_code == status

    def test_beyond_loopback_nobody_may(self, backend: FakeBackend) -> None:
        gateway = Gateway(GatewayArgs(loopback_only=False), backend)
        response = self.post(TestClient(make_app(gateway), base_url="http://127.0.0.1"))
        assert response.status_code == 403 and "loopback" in response.json()["detail"]
        assert backend.asked == []

    @pytest.mark.parametrize(
        ("changes", "status"),
        [
            ({"model_key": "org/m"}, 422),
            ({"model_key": model_key("org/x")}, 404),
            ({"model_key": 3}, 422),
            ({"env": {"attn_implementation": "someone/kernel"}}, 403),
            ({"env": {"peft": "someone/adapter"}}, 403),
            ({"session_id": "not open"}, 400),
        ],
    )
    def test_an_envelope_is_checked_before_anything_runs(
        self, client: TestClient, backend: FakeBackend, changes: dict[str, Any], status: int
    ) -> None:
        response = self.post(client, **changes)
        assert response.status_code == status
        assert isinstance(response.json()["detail"], str)
        assert backend.asked == []

    def test_the_small_endpoints(self, client: TestClient) -> None:
        assert client.get("/ping").json() == "pong"
        assert client.get("/connected").json() == {"status": "connected"}
        assert client.get("/whoami").json() == {"email": None, "tags": []}
        assert "pytest" in client.get("/env").json()["packages"]
        entry = client.get("/status").json()["deployments"]["a"]
        assert (entry["application_state"], entry["repo_id"], entry["revision"]) == (
            "RUNNING",
            "org/m",
            "main",
        )
