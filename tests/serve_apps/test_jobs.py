"""Jobs of nnsight's clients: told, kept, waiting for their model, cancelled."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serve_apps.contract import GatewayConfig
from serve_apps.gateway.backend import BackendError, GoneError
from serve_apps.gateway.http import Gateway
from serve_apps.gateway.jobs import JOBS_FILE
from serve_apps.gateway.routing import AppState
from serve_apps.messages import Frame, FrameKind
from tests.serve_apps.fakes import FakeBackend
from tests.serve_apps.front import (
    INLINE,
    LATER,
    META,
    Clock,
    blocks,
    follow,
    gateway_on,
    left_behind,
    make_key,
    post_job,
    until_told,
)
from tests.tiny_model import model_key

GONE = GoneError(503, "model_unavailable", "The model has just gone away.", 5)


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend(states={"a": AppState.SERVING, "b": AppState.SERVING})


@pytest.fixture
def gateway(backend: FakeBackend, tmp_path: Path) -> Iterator[tuple[Gateway, TestClient]]:
    with gateway_on(backend, tmp_path) as made:
        yield made


@pytest.fixture
def client(gateway: tuple[Gateway, TestClient]) -> TestClient:
    return gateway[1]


class TestOverTheWebsocket:
    def test_a_job_is_told_from_its_place_in_line_to_its_result(
        self, client: TestClient, backend: FakeBackend, tmp_path: Path
    ) -> None:
        backend.frames = INLINE
        with client.websocket_connect("/subscribe") as socket:
            received = post_job(client, session_id=socket.receive_json()["session_id"], id="mine").json()
            assert received["status"] == "RECEIVED" and received["id"] != "mine"
            told = until_told(socket, "LOG")
            assert [one["status"] for one in told] == ["DISPATCHED", "RUNNING", "LOG"]
            assert {one["id"] for one in told} == {received["id"]}
            assert told[-1]["description"] == "printed"
            assert socket.receive_bytes() == b"binary"
        (request,) = blocks(backend)
        assert (request.payload, request.compress, request.inline_limit) == (b"payload", True, 16 * 1024**2)
        assert request.job_id == received["id"]
        assert left_behind(tmp_path) == []

    def test_an_error_is_told_before_anything_closes(self, client: TestClient, backend: FakeBackend) -> None:
        backend.frames = (META, Frame(FrameKind.ERROR, b"Traceback"))
        with client.websocket_connect("/subscribe") as socket:
            post_job(client, session_id=socket.receive_json()["session_id"])
            error = until_told(socket, "ERROR")[-1]
        assert (error["description"], error["meta"]) == ("Traceback", {"runtime": 1})

    def test_a_large_result_comes_as_a_link(self, client: TestClient, backend: FakeBackend) -> None:
        backend.frames = (META, Frame(FrameKind.RESULT, b"large"))
        with client.websocket_connect("/subscribe") as socket:
            post_job(client, session_id=socket.receive_json()["session_id"])
            done = until_told(socket, "COMPLETED")[-1]
        assert done["meta"] == {"runtime": 1}
        assert client.get(done["data"]).content == b"large"

    def test_a_client_that_leaves_ends_its_job(
        self, gateway: tuple[Gateway, TestClient], backend: FakeBackend
    ) -> None:
        client, backend.frames = gateway[1], ()
        with client.websocket_connect("/subscribe") as socket:
            post_job(client, session_id=socket.receive_json()["session_id"])
            assert client.portal is not None
            client.portal.call(backend.begun.wait)
        client.portal.call(backend.cancelled.wait)

    def test_a_model_that_ends_without_a_result_is_an_error(
        self, client: TestClient, backend: FakeBackend
    ) -> None:
        backend.frames = (Frame(FrameKind.RUNNING),)
        with client.websocket_connect("/subscribe") as socket:
            post_job(client, session_id=socket.receive_json()["session_id"])
            assert "without a result" in until_told(socket, "ERROR")[-1]["description"]

    def test_a_socket_that_sends_no_job_is_closed(
        self, client: TestClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("serve_apps.gateway.sessions.serve_session.__defaults__", (0.05,))
        with client.websocket_connect("/subscribe") as socket:
            socket.receive_json()
            assert socket.receive()["type"] == "websocket.close"


class TestPolled:
    def test_a_job_ends_in_a_link_that_is_signed_and_expires(self, client: TestClient) -> None:
        done = follow(client, post_job(client).json()["id"])
        assert done["status"] == "COMPLETED"
        assert done["data"].startswith("http://127.0.0.1:8267/results/")
        assert client.get(done["data"]).content == b"result"
        assert client.get(done["data"] + "x").status_code == 404
        assert client.get(done["data"].replace("expires=1", "expires=2")).status_code == 404

    def test_an_expired_link_gives_nothing(self, backend: FakeBackend) -> None:
        with gateway_on(backend, result_seconds=0.5) as (_, client):
            done = follow(client, post_job(client).json()["id"])
            # the link's clock has whole seconds: one that lasts half of one has ended or ends now
            assert client.get(done["data"].replace("signature=", "signature=0")).status_code == 404

    def test_an_unknown_job_is_a_404_which_the_client_takes_for_nothing_yet(self, client: TestClient) -> None:
        assert client.get("/response/unknown").status_code == 404

    @pytest.mark.parametrize("meta", [{}, {"runtime": 1.5}])
    def test_what_it_cost_is_told(
        self, client: TestClient, backend: FakeBackend, meta: dict[str, float]
    ) -> None:
        backend.frames = (Frame(FrameKind.META, json.dumps(meta).encode()), Frame(FrameKind.RESULT, b"x"))
        done = follow(client, post_job(client).json()["id"])
        assert (done["status"], done["meta"]) == ("COMPLETED", meta)

    def test_a_cost_that_cannot_be_read_is_an_error_of_that_job_alone(
        self, client: TestClient, backend: FakeBackend
    ) -> None:
        frames, backend.frames = backend.frames, (Frame(FrameKind.META, b"{"),)
        assert "its log says why" in follow(client, post_job(client).json()["id"])["description"]
        backend.frames = frames
        assert follow(client, post_job(client).json()["id"])["status"] == "COMPLETED"

    def test_the_models_own_error_is_the_jobs(self, client: TestClient, backend: FakeBackend) -> None:
        error = BackendError(503, "replica_died", "The model's replica died while answering.")
        backend.errors = {"a": error, "b": error}
        done = follow(client, post_job(client).json()["id"])
        assert (done["status"], done["description"]) == ("ERROR", error.message)

    def test_a_job_whose_application_was_gone_goes_to_another(
        self, client: TestClient, backend: FakeBackend
    ) -> None:
        backend.errors = {"a": GONE}
        for _ in range(2):
            assert follow(client, post_job(client).json()["id"])["status"] == "COMPLETED"
        assert len(blocks(backend)) >= 2

    def test_a_job_that_runs_too_long_is_ended(
        self, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("serve_apps.gateway.jobs.GRACE_SECONDS", 0.0)
        backend.frames = (Frame(FrameKind.RUNNING), Frame(FrameKind.META, b"{}"))
        backend.endless = True
        with gateway_on(backend, job_seconds=0.1) as (_, client):
            done = follow(client, post_job(client).json()["id"])
        assert done["status"] == "ERROR" and "longer than 0.1 s" in done["description"]
        assert backend.cancelled.is_set()

    def test_results_are_kept_within_a_bound_the_oldest_going_first(self, backend: FakeBackend) -> None:
        backend.frames = (Frame(FrameKind.RESULT, b"x" * 100),)
        with gateway_on(backend, results_bytes=250) as (_, client):
            done = [follow(client, post_job(client).json()["id"]) for _ in range(3)]
            assert client.get(done[0]["data"]).status_code == 404
            assert "made room" in follow(client, done[0]["id"])["description"]
            assert client.get(done[2]["data"]).content == b"x" * 100
            backend.frames = (Frame(FrameKind.RESULT, b"x" * 251),)
            assert "at most 250" in follow(client, post_job(client).json()["id"])["description"]


class TestOwners:
    def test_a_job_is_cancelled_by_its_owner_and_told_so(
        self, client: TestClient, backend: FakeBackend
    ) -> None:
        backend.frames = ()
        job_id = post_job(client).json()["id"]
        assert client.portal is not None
        client.portal.call(backend.begun.wait)
        assert client.delete(f"/jobs/{job_id}").status_code == 202
        done = follow(client, job_id)
        assert (done["status"], done["description"]) == ("ERROR", "Your job was cancelled.")
        client.portal.call(backend.cancelled.wait)
        assert client.delete(f"/jobs/{job_id}").status_code == 409

    def test_a_job_that_waits_is_cancelled_at_once(self, client: TestClient, backend: FakeBackend) -> None:
        backend.states = {"a": AppState.LOADING}
        job_id = post_job(client).json()["id"]
        assert client.delete(f"/jobs/{job_id}").status_code == 202
        assert follow(client, job_id)["description"] == "Your job was cancelled."

    def test_anothers_job_does_not_exist(self, backend: FakeBackend, tmp_path: Path) -> None:
        ada = {"ndif-api-key": make_key(tmp_path)}
        bob = {"ndif-api-key": make_key(tmp_path, "bob@example.org")}
        with gateway_on(backend, tmp_path, loopback_only=False) as (_, client):
            job_id = post_job(client, ada).json()["id"]
            assert follow(client, job_id, ada)["status"] == "COMPLETED"
            assert [job["id"] for job in client.get("/jobs", headers=ada).json()] == [job_id]
            assert client.get("/jobs", headers=bob).json() == []
            assert client.get(f"/response/{job_id}", headers=bob).status_code == 404
            assert client.delete(f"/jobs/{job_id}", headers=bob).status_code == 404

    def test_without_a_key_nobody_sees_a_list(self, client: TestClient) -> None:
        post_job(client)
        answer = client.get("/jobs")
        assert answer.status_code == 403 and "keep the ids" in answer.json()["detail"]

    def test_anothers_websocket_is_not_open(self, backend: FakeBackend, tmp_path: Path) -> None:
        ada = {"ndif-api-key": make_key(tmp_path)}
        bob = {"ndif-api-key": make_key(tmp_path, "bob@example.org")}
        with (
            gateway_on(backend, tmp_path, loopback_only=False) as (_, client),
            client.websocket_connect("/subscribe", headers=ada) as socket,
        ):
            session = socket.receive_json()["session_id"]
            answer = post_job(client, bob, session_id=session)
            assert answer.status_code == 400 and "subscribe first" in answer.json()["detail"]


class TestWaiting:
    @pytest.mark.parametrize(
        ("model", "states", "status", "why"),
        [
            ("org/later", {}, "QUEUED", "is booked from 2026-03-01 12:01 UTC"),
            ("org/begun", {}, "PROVISIONING", "its booking began at 2026-03-01 11:59 UTC"),
            ("org/m", {}, "PROVISIONING", "its replica is starting"),
            ("org/m", {"a": AppState.LOADING}, "DEPLOYING", "its replica is starting"),
        ],
    )
    def test_a_booked_model_that_is_not_up_has_the_job_wait_and_say_for_what(
        self, backend: FakeBackend, model: str, states: Any, status: str, why: str
    ) -> None:
        backend.states = states
        with (
            gateway_on(backend) as (_, client),
            client.websocket_connect("/subscribe") as socket,
        ):
            session = socket.receive_json()["session_id"]
            received = post_job(client, model_key=model_key(model), session_id=session).json()
            assert "it waits until" in received["description"]
            told = socket.receive_json()
        assert told["status"] == status
        assert why in told["description"] and "waits for it until" in told["description"]

    def test_it_runs_when_the_model_comes_up(self, backend: FakeBackend) -> None:
        states, backend.states, backend.frames = backend.states, {"a": AppState.LOADING}, INLINE
        with gateway_on(backend) as (_, client), client.websocket_connect("/subscribe") as socket:
            post_job(client, session_id=socket.receive_json()["session_id"])
            until_told(socket, "DEPLOYING")
            backend.states = states
            until_told(socket, "LOG")
            assert socket.receive_bytes() == b"binary"

    def test_a_booking_that_is_taken_back_ends_it(self, backend: FakeBackend) -> None:
        with gateway_on(backend) as (gateway, client):
            job_id = post_job(client, model_key=model_key("org/later")).json()["id"]
            gateway.reconfigure(GatewayConfig())
            done = follow(client, job_id)
        assert done["status"] == "ERROR" and "neither up nor booked" in done["description"]

    def test_it_waits_no_longer_than_it_may(self, backend: FakeBackend) -> None:
        backend.states = {"a": AppState.LOADING}
        with gateway_on(backend, max_wait_seconds=6) as (gateway, client):
            job_id = post_job(client).json()["id"]
            with closing(sqlite3.connect(gateway.desk.folder / JOBS_FILE)) as database:
                database.execute("UPDATE jobs SET wait_until = 0")
                database.commit()
            assert "as long as it may" in follow(client, job_id)["description"]

    def test_a_booking_that_is_too_far_off_is_refused_with_the_limit(self, client: TestClient) -> None:
        answer = post_job(client, model_key=model_key("org/far"))
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) == 86400
        assert "from 60 minutes before that" in answer.json()["detail"]

    def test_an_unbooked_model_is_refused_with_what_is_up_and_how_to_book(self, client: TestClient) -> None:
        answer = post_job(client, model_key=model_key("org/x"))
        assert answer.status_code == 404
        assert "org/m" in answer.json()["detail"] and "book it in the calendar" in answer.json()["detail"]

    def test_a_gateway_that_has_no_routing_table_yet_leaves_jobs_alone(
        self, backend: FakeBackend, tmp_path: Path
    ) -> None:
        backend.states = {"a": AppState.LOADING}
        with gateway_on(backend, tmp_path) as (_, client):
            job_id = post_job(client).json()["id"]
        with gateway_on(backend, tmp_path, config=None) as (gateway, client):
            assert client.portal is not None
            client.portal.call(gateway.dispatcher.round)
            assert client.get(f"/response/{job_id}").json()["status"] != "ERROR"

    def test_its_hour_comes(self, backend: FakeBackend) -> None:
        clock = Clock()
        with (
            gateway_on(backend, clock=clock) as (gateway, client),
            client.websocket_connect("/subscribe") as socket,
        ):
            session = socket.receive_json()["session_id"]
            post_job(client, model_key=model_key("org/later"), session_id=session)
            until_told(socket, "QUEUED")
            clock.now = LATER + timedelta(seconds=1)
            gateway.desk.wake()
            until_told(socket, "PROVISIONING")
