"""Who is let in, with what, how often, and what happens to the others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from serve_apps.contract import Booking, GatewayArgs, GatewayConfig, Route
from serve_apps.gateway.doorkeeper import Departures, key_of
from serve_apps.gateway.http import Gateway, make_app
from serve_apps.gateway.keys import KEYS_FILE, KeyStore
from serve_apps.gateway.routing import AppState
from tests.serve_apps.fakes import FakeBackend
from tests.serve_apps.front import LATER, NOW, follow, gateway_on, make_key, post_job
from tests.tiny_model import model_key

COMPLETION = {"model": "m", "prompt": "x"}


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend(states={"a": AppState.SERVING, "b": AppState.SERVING})


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def nnsight(key: str) -> dict[str, str]:
    return {"ndif-api-key": key}


class TestKeys:
    def test_beyond_loopback_everybody_needs_one(self, backend: FakeBackend, tmp_path: Path) -> None:
        key = make_key(tmp_path)
        with gateway_on(backend, tmp_path, loopback_only=False) as (_, client):
            answer = client.post("/v1/completions", json=COMPLETION)
            assert answer.status_code == 401 and answer.json()["error"]["code"] == "missing_api_key"
            answer = client.post("/v1/completions", json=COMPLETION, headers=bearer("ndif-x-y"))
            assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
            assert client.post("/v1/completions", json=COMPLETION, headers=bearer(key)).status_code == 200
            assert client.get("/v1/models").status_code == 401
            assert post_job(client).status_code == 401
            answer = post_job(client, nnsight("ndif-x-y"))
            assert answer.status_code == 403 and "revoked" in answer.json()["detail"]
            assert post_job(client, nnsight(key)).status_code == 200

    @pytest.mark.parametrize("path", ["/healthz", "/ping", "/connected", "/whoami", "/env", "/status"])
    def test_what_nnsights_client_asks_without_its_key_is_answered(
        self, backend: FakeBackend, path: str
    ) -> None:
        with gateway_on(backend, loopback_only=False) as (_, client):
            assert client.get(path).status_code == 200

    def test_a_result_is_fetched_without_one(self, backend: FakeBackend, tmp_path: Path) -> None:
        headers = nnsight(make_key(tmp_path))
        with gateway_on(backend, tmp_path, loopback_only=False) as (_, client):
            done = follow(client, post_job(client, headers).json()["id"], headers)
            assert client.get(done["data"]).content == b"result"

    def test_whoami_tells_whose_key_it_is(self, backend: FakeBackend, tmp_path: Path) -> None:
        key = make_key(tmp_path)
        with gateway_on(backend, tmp_path) as (_, client):
            mine = client.get("/whoami", headers=nnsight(key)).json()
            assert mine == {"email": "ada@example.org", "tags": ["lab"]}
            assert client.get("/whoami", headers=nnsight("none")).json() == {"email": None, "tags": []}

    def test_on_loopback_a_key_of_another_service_does_no_harm(self, backend: FakeBackend) -> None:
        with gateway_on(backend) as (_, client):
            assert post_job(client, nnsight("of another service")).status_code == 200

    def test_on_loopback_they_may_be_required_too(self, backend: FakeBackend) -> None:
        with gateway_on(backend, require_keys=True) as (_, client):
            assert post_job(client).status_code == 401

    def test_a_revoked_key_is_refused_at_once(self, backend: FakeBackend, tmp_path: Path) -> None:
        key = make_key(tmp_path)
        with gateway_on(backend, tmp_path, loopback_only=False) as (_, client):
            assert client.get("/v1/models", headers=bearer(key)).status_code == 200
            store = KeyStore(tmp_path / KEYS_FILE)
            store.revoke(store.all()[0].id, NOW)
            store.close()
            assert client.get("/v1/models", headers=bearer(key)).status_code == 401

    def test_a_wrong_secret_for_a_known_id_is_wrong(self, tmp_path: Path) -> None:
        key = make_key(tmp_path)
        store = KeyStore(tmp_path / KEYS_FILE)
        assert store.recognise(key) is None
        assert store.identify(key) is not None
        for wrong in (key[:-1], key + "x", key[:-1] + "é", key.rpartition("-")[0] + "-", "", "ndif--"):
            assert store.recognise(wrong) is None
            assert store.identify(wrong) is None
        assert store.recognise(key) == store.identify(key)
        store.close()

    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            ([], None),
            ([(b"ndif-api-key", b" k ")], "k"),
            ([(b"authorization", b"Bearer k")], "k"),
            ([(b"authorization", b"bearer k")], "k"),
            ([(b"authorization", b"Basic k")], None),
            ([(b"authorization", b"Bearer")], None),
            ([(b"authorization", b"Bearer \xff")], "ÿ"),
        ],
    )
    def test_where_a_key_is_found(self, headers: Any, expected: str | None) -> None:
        assert key_of(headers) == expected


class TestTrust:
    def test_an_untrusted_key_may_complete_but_not_trace(self, backend: FakeBackend, tmp_path: Path) -> None:
        key = make_key(tmp_path, trusted=False)
        with gateway_on(backend, tmp_path, loopback_only=False) as (_, client):
            assert client.post("/v1/completions", json=COMPLETION, headers=bearer(key)).status_code == 200
            answer = post_job(client, nnsight(key))
            assert answer.status_code == 403 and "--trusted" in answer.json()["detail"]

    def test_nobodys_upload_is_read_before_he_is_known(self, backend: FakeBackend) -> None:
        async def never() -> Message:
            raise AssertionError("the body was read")

        async def ask(**args: Any) -> int:
            gateway = Gateway(GatewayArgs(**args), backend)
            told: list[Message] = []

            async def send(message: Message) -> None:
                told.append(message)

            # the doorkeeper stands before whatever reads the body
            async with gateway.at_work():
                scope = {
                    "type": "http",
                    "method": "POST",
                    "path": "/request",
                    "headers": [],
                    "query_string": b"",
                }
                app = make_app(gateway)
                await app(scope | {"http_version": "1.1", "scheme": "http"}, never, send)
            gateway.close()
            return int(told[0]["status"])

        assert asyncio.run(ask(loopback_only=False)) == 401

    def test_a_websocket_of_a_stranger_leads_to_a_refusal_that_can_be_read(
        self, backend: FakeBackend
    ) -> None:
        with (
            gateway_on(backend, loopback_only=False) as (_, client),
            client.websocket_connect("/subscribe") as socket,
        ):
            answer = post_job(client, session_id=socket.receive_json()["session_id"])
            assert answer.status_code == 401 and "“keys add”" in answer.json()["detail"]

    def test_strangers_hold_a_bounded_number_of_websockets(
        self, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("serve_apps.gateway.nnsight_jobs.MAX_STRANGERS", 1)
        with (
            gateway_on(backend, loopback_only=False) as (_, client),
            client.websocket_connect("/subscribe") as first,
            client.websocket_connect("/subscribe") as second,
        ):
            assert "session_id" in first.receive_json()
            assert second.receive()["code"] == 1013


class TestPrivateBookings:
    CONFIG = GatewayConfig(
        routes=(
            Route(
                model_key=model_key("org/secret"),
                names=("org/secret",),
                applications=("a",),
                until=LATER,
                private_to=("Ada@Example.org",),
            ),
        ),
        bookings=(
            Booking(names=("org/next",), start=LATER, end=LATER.replace(hour=20), private_to=("x@y.z",)),
        ),
    )

    def test_only_who_is_invited_may_use_and_see_it(self, backend: FakeBackend, tmp_path: Path) -> None:
        ada, bob = make_key(tmp_path), make_key(tmp_path, "bob@example.org")
        body = {"model": "org/secret", "prompt": "x"}
        with gateway_on(backend, tmp_path, self.CONFIG, loopback_only=False) as (_, client):
            assert client.post("/v1/completions", json=body, headers=bearer(ada)).status_code == 200
            answer = client.post("/v1/completions", json=body, headers=bearer(bob))
            assert answer.status_code == 403 and "organiser and attendees" in answer.json()["detail"]
            for key, seen in ((ada, ["org/secret"]), (bob, [])):
                listed = client.get("/v1/models", headers=bearer(key)).json()["data"]
                assert [model["id"] for model in listed] == seen
                status = client.get("/status", headers=nnsight(key)).json()["deployments"]
                assert [one["repo_id"] for one in status.values()] == seen
            job = {"model_key": model_key("org/secret")}
            assert post_job(client, nnsight(bob), **job).status_code == 403
            done = follow(client, post_job(client, nnsight(ada), **job).json()["id"], nnsight(ada))
            assert done["status"] == "COMPLETED"

    def test_a_private_booking_to_come_is_nobodys_business(
        self, backend: FakeBackend, tmp_path: Path
    ) -> None:
        key = make_key(tmp_path)
        with gateway_on(backend, tmp_path, self.CONFIG) as (_, client):
            answer = post_job(client, nnsight(key), model_key=model_key("org/next"))
            assert answer.status_code == 404 and "org/next from" not in answer.json()["detail"]


class TestRates:
    def test_a_keys_requests_are_counted_whatever_replica_takes_them(
        self, backend: FakeBackend, tmp_path: Path
    ) -> None:
        ada, bob = make_key(tmp_path), make_key(tmp_path, "bob@example.org")
        args = {"loopback_only": False, "requests_per_minute": 20}
        with (
            gateway_on(backend, tmp_path, **args) as (_, here),
            gateway_on(backend, tmp_path, **args) as (_, there),
        ):
            # a tenth of a minute's requests may come at once
            codes = [
                client.post("/v1/completions", json=COMPLETION, headers=bearer(ada)).status_code
                for client in (here, there, here)
            ]
            assert codes == [200, 200, 429]
            answer = there.post("/v1/completions", json=COMPLETION, headers=bearer(ada))
            assert 1 <= int(answer.headers["retry-after"]) <= 3
            assert answer.json()["error"]["code"] == "rate_limit_exceeded"
            assert here.get("/v1/models", headers=bearer(ada)).status_code == 200
            assert here.post("/v1/completions", json=COMPLETION, headers=bearer(bob)).status_code == 200

    def test_calls_under_way_are_counted_until_they_end(self, backend: FakeBackend, tmp_path: Path) -> None:
        headers = bearer(make_key(tmp_path))
        with gateway_on(backend, tmp_path, loopback_only=False, concurrent_per_key=1) as (gateway, client):
            for _ in range(3):
                answer = client.post("/v1/completions", json=COMPLETION | {"stream": True}, headers=headers)
                assert answer.status_code == 200
            gateway.desk.database._connection.execute("UPDATE calls SET number = 1")
            answer = client.post("/v1/completions", json=COMPLETION, headers=headers)
            assert answer.status_code == 429

    def test_on_loopback_without_keys_nothing_is_counted(self, backend: FakeBackend) -> None:
        with gateway_on(backend, requests_per_minute=1) as (_, client):
            codes = {client.post("/v1/completions", json=COMPLETION).status_code for _ in range(5)}
            assert codes == {200}


class TestWebPages:
    def ask(self, backend: FakeBackend, **args: Any) -> dict[str, str]:
        headers = {"origin": "https://lab.example.org", "access-control-request-method": "POST"}
        with gateway_on(backend, **args) as (_, client):
            return dict(client.options("/v1/completions", headers=headers).headers)

    def test_call_only_from_origins_that_are_set(self, backend: FakeBackend) -> None:
        allowed = "access-control-allow-origin"
        assert allowed not in self.ask(backend)
        assert allowed not in self.ask(backend, cors_origins=("https://other.example.org",))
        origin = "https://lab.example.org"
        assert self.ask(backend, cors_origins=(origin,))[allowed] == origin
        assert self.ask(backend, cors_origins=("*",))[allowed] == "*"


class TestDepartures:
    @staticmethod
    def run(app: Any, *, leaves: bool) -> list[Message]:
        """What ``app`` answers to a client that asks and, once the app is at work, ``leaves`` or not."""
        told: list[Message] = []

        async def main() -> None:
            at_work = asyncio.Event()
            asked = [{"type": "http.request", "body": b"asked"}]

            async def receive() -> Message:
                if asked:
                    return asked.pop()
                await (at_work if leaves else asyncio.Event()).wait()
                return {"type": "http.disconnect"}

            async def send(message: Message) -> None:
                told.append(message)

            async with asyncio.timeout(5):
                await Departures(app)({"type": "http", "at_work": at_work}, receive, send)

        asyncio.run(main())
        return told

    def test_a_client_that_leaves_ends_the_work(self) -> None:
        ended = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert (await receive())["body"] == b"asked"
            scope["at_work"].set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)

        assert self.run(app, leaves=True) == []
        assert ended == [True]

    def test_one_that_has_its_answer_ends_nothing(self) -> None:
        ended = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"done"})
            scope["at_work"].set()
            await receive()
            assert (await receive())["type"] == "http.disconnect"
            await asyncio.sleep(0)
            ended.append(True)

        told = self.run(app, leaves=True)
        assert told[-1]["body"] == b"done"
        assert ended == [True]

    def test_what_goes_wrong_goes_on_its_way(self) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            raise ValueError("wrong")

        with pytest.raises(ValueError, match="wrong"):
            self.run(app, leaves=False)
