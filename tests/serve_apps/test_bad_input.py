"""Whatever comes in: one clear error to its own client, and a gateway that works on."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import schemathesis
import websocket
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from serve_apps.contract import GatewayArgs
from serve_apps.gateway.http import Gateway, make_app
from serve_apps.gateway.limits import BodyLimit
from serve_apps.gateway.routing import AppState
from tests.examples import examples
from tests.serve_apps.fakes import FakeBackend
from tests.serve_apps.front import CONFIG, Clock, gateway_on, post_job, served
from tests.tiny_model import model_key

EXAMPLES = settings(
    max_examples=examples(20),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    backend = FakeBackend(states={"a": AppState.SERVING, "b": AppState.SERVING})
    with gateway_on(backend, queued_per_key=10**6, queued_per_model=10**6) as (_, client):
        yield client


def works_on(client: TestClient) -> bool:
    answer = client.post("/v1/completions", json={"model": "m", "prompt": "x"})
    return answer.status_code == 200 and post_job(client).status_code == 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
KEYS = [model_key("org/m"), "m", "os.system:{}", "x:" + "[" * 900, 'x:{"repo_id": {}}']
ENVELOPE = st.fixed_dictionaries(
    {},
    optional={
        "model_key": st.one_of(st.sampled_from(KEYS), JSON),
        "session_id": st.one_of(st.just(""), st.text(max_size=30), JSON),
        "compress": st.one_of(st.booleans(), JSON),
        "env": st.one_of(st.dictionaries(st.sampled_from(["attn_implementation", "peft", "x"]), JSON), JSON),
        "id": JSON,
    },
)


class TestEnvelopes:
    @given(envelope=st.one_of(ENVELOPE, JSON), payload=st.binary(max_size=200))
    @EXAMPLES
    def test_any_json_and_any_bytes_have_an_answer(
        self, client: TestClient, envelope: Any, payload: bytes
    ) -> None:
        answer = client.post("/request", data={"data": json.dumps(envelope)}, files={"blob": payload})
        assert answer.status_code < 500, answer.text
        body = answer.json()
        assert (
            (body["status"] == "RECEIVED") if answer.status_code == 200 else isinstance(body["detail"], str)
        )

    @given(text=st.text(max_size=200))
    @EXAMPLES
    def test_a_text_that_is_no_json_is_a_422(self, client: TestClient, text: str) -> None:
        answer = client.post("/request", data={"data": "{" + text}, files={"blob": b""})
        assert 400 <= answer.status_code < 500, answer.text

    @given(
        body=st.binary(max_size=300),
        kind=st.sampled_from(["multipart/form-data; boundary=x", "multipart/form-data", "text/plain", "x"]),
    )
    @EXAMPLES
    def test_a_body_that_is_no_form_is_a_client_error(
        self, client: TestClient, body: bytes, kind: str
    ) -> None:
        answer = client.post("/request", content=body, headers={"content-type": kind})
        assert 400 <= answer.status_code < 500, answer.text

    @given(name=st.text(max_size=60), key=st.text(max_size=30))
    @EXAMPLES
    def test_names_and_keys_may_be_anything(self, client: TestClient, name: str, key: str) -> None:
        headers = {"ndif-api-key": key.encode()}
        for path in (f"/response/{quote(name)}", f"/v1/models/{quote(name)}", f"/results/{quote(name)}"):
            answer = client.get(f"{path}?expires=5&signature={quote(name)}", headers=headers)
            assert answer.status_code < 500, answer.text
        assert client.delete(f"/jobs/{quote(name)}").status_code < 500

    def test_the_gateway_works_on(self, client: TestClient) -> None:
        assert works_on(client)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    backend = FakeBackend(states={"a": AppState.SERVING, "b": AppState.SERVING})
    gateway = Gateway(GatewayArgs(queued_per_key=10**6, queued_per_model=10**6), backend, now=Clock())
    gateway.reconfigure(CONFIG)
    with served(make_app(gateway)) as url:
        yield url
    gateway.close()


def test_nothing_that_the_openapi_allows_or_forbids_is_a_5xx(address: str) -> None:
    api = schemathesis.openapi.from_url(f"{address}/openapi.json")
    tried = set()
    for operation in (found.ok() for found in api.get_all_operations()):
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            if mode is schemathesis.GenerationMode.NEGATIVE and not (operation.query or operation.body):
                continue  # any text is a path's

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(EXAMPLES, max_examples=examples(5))
            def ask(case: Any) -> None:
                answer = case.call(timeout=20)
                assert answer.status_code < 500, f"{case.as_curl_command()}\n{answer.text}"
                tried.add(operation.label)  # noqa: B023 - called before the next one

            # some operations have nothing that could be wrong
            with suppress(Unsatisfiable):
                ask()
    assert {"POST /request", "POST /v1/completions", "GET /status", "DELETE /jobs/{job_id}"} <= tried
    assert httpx.get(f"{address}/healthz").status_code == 200


class TestClientsThatVanish:
    def test_in_the_middle_of_a_body(self, address: str) -> None:
        host, port = address.removeprefix("http://").split(":")
        for path in ("/request", "/v1/completions"):
            with socket.create_connection((host, int(port)), timeout=5) as line:
                head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 1000\r\n"
                line.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n--x".encode())
        assert httpx.get(f"{address}/healthz").status_code == 200

    def test_right_after_they_subscribed(self, address: str) -> None:
        for _ in range(5):
            line = websocket.create_connection(f"{address.replace('http', 'ws')}/subscribe", timeout=5)
            assert "session_id" in json.loads(line.recv())
            line.shutdown()
        with httpx.Client(base_url=address) as client:
            answer = client.post("/v1/completions", json={"model": "m", "prompt": "x"})
            assert answer.status_code == 200


class TestSizes:
    def test_a_body_that_stops_coming_is_refused(self) -> None:
        told: list[Any] = []

        async def main() -> None:
            async def app(scope: Any, receive: Any, send: Any) -> None:
                while True:
                    await receive()

            async def receive() -> Any:
                if not told_once:
                    told_once.append(True)
                    return {"type": "http.request", "body": b"x", "more_body": True}
                await asyncio.Event().wait()

            async def send(message: Any) -> None:
                told.append(message)

            told_once: list[bool] = []
            limited = BodyLimit(app, lambda path: 10, idle_seconds=0.01)
            async with asyncio.timeout(5):
                await limited({"type": "http", "path": "/request", "headers": []}, receive, send)

        asyncio.run(main())
        assert told[0]["status"] == 408

    def test_a_stop_list_of_a_million_is_a_client_error(self, client: TestClient) -> None:
        body = {"model": "m", "prompt": "x", "stop": ["x"] * 1_000_000}
        assert client.post("/v1/completions", json=body).status_code == 413

    def test_a_payload_over_the_limit_is_refused_while_it_comes_in(self) -> None:
        backend = FakeBackend(states={"a": AppState.SERVING})
        with gateway_on(backend, max_blob_bytes=10_000) as (gateway, client):
            answer = post_job(client, payload=b"x" * 10_001)
            assert answer.status_code == 413 and "10000 bytes" in answer.json()["detail"]
            assert list((gateway.desk.folder / "payloads").iterdir()) == []
            assert post_job(client).status_code == 200

    def test_a_form_of_many_fields_is_a_client_error(self, client: TestClient) -> None:
        fields = {f"field{number}": "x" for number in range(1000)}
        answer = client.post("/request", data=fields, files={"blob": b""})
        assert answer.status_code == 400

    def test_a_deeply_nested_envelope_is_a_client_error(self, client: TestClient) -> None:
        data = '{"model_key": "x", "env": ' + '{"a":' * 100_000 + "1" + "}" * 100_001
        answer = client.post("/request", data={"data": data}, files={"blob": b""})
        assert 400 <= answer.status_code < 500
        assert works_on(client)
