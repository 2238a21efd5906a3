"""Jobs of nnsight's clients between replicas, keys and restarts; what an envelope may hold."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serve_apps.gateway import dispatch
from serve_apps.gateway.backend import GoneError
from serve_apps.gateway.http import Gateway
from serve_apps.gateway.jobs import JOBS_FILE
from serve_apps.gateway.routing import AppState
from tests.serve_apps.fakes import FakeBackend
from tests.serve_apps.front import (
    INLINE,
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


class TestReplicas:
    def test_a_websocket_here_and_its_job_there(self, backend: FakeBackend, tmp_path: Path) -> None:
        backend.frames = INLINE
        with (
            gateway_on(backend, tmp_path) as (_, here),
            gateway_on(backend, tmp_path) as (_, there),
            here.websocket_connect("/subscribe") as socket,
        ):
            post_job(there, session_id=socket.receive_json()["session_id"])
            until_told(socket, "LOG")
            assert socket.receive_bytes() == b"binary"
        assert len(blocks(backend)) == 1

    def test_a_job_is_seen_cancelled_and_fetched_anywhere(self, backend: FakeBackend, tmp_path: Path) -> None:
        with (
            gateway_on(backend, tmp_path) as (_, here),
            gateway_on(backend, tmp_path) as (_, there),
        ):
            done = follow(there, post_job(here).json()["id"])
            assert there.get(done["data"]).content == b"result"
            backend.frames = ()
            job_id = post_job(here).json()["id"]
            while there.get(f"/response/{job_id}").json()["status"] != "DISPATCHED":
                pass
            assert there.delete(f"/jobs/{job_id}").status_code == 202
            assert follow(here, job_id)["description"] == "Your job was cancelled."

    def test_leaving_here_ends_the_job_there(self, backend: FakeBackend, tmp_path: Path) -> None:
        backend.frames = ()
        with gateway_on(backend, tmp_path) as (_, there), gateway_on(backend, tmp_path) as (_, here):
            with here.websocket_connect("/subscribe") as socket:
                job_id = post_job(there, session_id=socket.receive_json()["session_id"]).json()["id"]
                until_told(socket, "DISPATCHED")
            assert follow(there, job_id)["description"] == "Your job was cancelled."

    def test_places_in_line_are_the_same_everywhere(self, backend: FakeBackend, tmp_path: Path) -> None:
        backend.frames = ()
        with gateway_on(backend, tmp_path) as (_, here), gateway_on(backend, tmp_path) as (_, there):
            ids = [post_job((here, there)[n % 2]).json()["id"] for n in range(7)]

            def place(client: TestClient) -> str:
                return str(client.get(f"/response/{ids[-1]}").json()["description"])

            # two applications, two jobs each; three wait
            while place(here) != "Jobs before yours: 2.":
                pass
            assert place(there) == "Jobs before yours: 2."
            assert here.delete(f"/jobs/{ids[-2]}").status_code == 202
            while place(there) != "Jobs before yours: 1.":
                pass


class TestRestarts:
    def test_jobs_and_results_survive_one(self, backend: FakeBackend, tmp_path: Path) -> None:
        with gateway_on(backend, tmp_path) as (_, client):
            finished = post_job(client).json()["id"]
            follow(client, finished)
            states, backend.states = backend.states, {"a": AppState.LOADING}
            waiting = post_job(client).json()["id"]
        backend.states = states
        with gateway_on(backend, tmp_path) as (_, client):
            assert client.get(follow(client, finished)["data"]).content == b"result"
            assert client.get(follow(client, waiting)["data"]).content == b"result"

    def test_what_ran_when_it_stopped_runs_again(self, backend: FakeBackend, tmp_path: Path) -> None:
        frames, backend.frames = backend.frames, ()
        with gateway_on(backend, tmp_path) as (_, client):
            job_id = post_job(client).json()["id"]
            assert client.portal is not None
            client.portal.call(backend.begun.wait)
        backend.frames = frames
        with gateway_on(backend, tmp_path) as (_, client):
            assert follow(client, job_id)["status"] == "COMPLETED"

    def test_a_websockets_job_is_told_before_the_gateway_goes(
        self, backend: FakeBackend, tmp_path: Path
    ) -> None:
        backend.frames = ()
        with gateway_on(backend, tmp_path) as (gateway, client):
            with client.websocket_connect("/subscribe") as socket:
                post_job(client, session_id=socket.receive_json()["session_id"])
                until_told(socket, "DISPATCHED")
                assert client.portal is not None
                client.portal.call(gateway.desk.leave)
                assert "restarted" in until_told(socket, "ERROR")[-1]["description"]
            client.portal.call(gateway.desk.enter)

    @pytest.mark.parametrize(("attempts", "status"), [(1, "COMPLETED"), (2, "ERROR")])
    def test_a_killed_replicas_job_is_taken_over_once(
        self, backend: FakeBackend, tmp_path: Path, attempts: int, status: str
    ) -> None:
        states, backend.states = backend.states, {"a": AppState.LOADING}
        with gateway_on(backend, tmp_path) as (_, client):
            job_id = post_job(client).json()["id"]
        with closing(sqlite3.connect(tmp_path / JOBS_FILE)) as database:
            # a process that began at no time that any process began
            database.execute("INSERT INTO replicas VALUES ('killed', 1, 1.0, 9)")
            database.execute(
                "UPDATE jobs SET replica = 'killed', application = 'a', attempts = ?", (attempts,)
            )
            database.commit()
        backend.states = states
        with gateway_on(backend, tmp_path) as (_, client):
            assert follow(client, job_id)["status"] == status
        assert left_behind(tmp_path) == []

    def test_what_is_old_and_what_a_killed_process_left_is_tidied_away(
        self, backend: FakeBackend, tmp_path: Path
    ) -> None:
        with gateway_on(backend, tmp_path) as (_, client):
            old = follow(client, post_job(client).json()["id"])
            backend.states = {"a": AppState.LOADING}
            waiting = post_job(client).json()["id"]
        for part in ("payloads", "frames", "results"):
            (tmp_path / part / "left").write_bytes(b"x")
            (tmp_path / part / "fresh").write_bytes(b"x")
            os.utime(tmp_path / part / "left", (0, 0))
        os.utime(tmp_path / "payloads" / waiting, (0, 0))
        with closing(sqlite3.connect(tmp_path / JOBS_FILE)) as database:
            database.execute("UPDATE jobs SET ended = 5 WHERE ended IS NOT NULL")
            database.commit()
        with gateway_on(backend, tmp_path) as (gateway, client):
            assert client.portal is not None
            client.portal.call(gateway.dispatcher._clean)
            assert client.get(f"/response/{old['id']}").status_code == 404
            assert client.get(old["data"]).status_code == 404
        assert sorted(left_behind(tmp_path)) == sorted(["fresh", "fresh", waiting])
        assert [path.name for path in (tmp_path / "results").iterdir()] == ["fresh"]


class TestFairness:
    def test_keys_take_turns_at_a_model(
        self, backend: FakeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dispatch, "JOBS_PER_REPLICA", 1)  # those that run side by side have no order
        ada = {"ndif-api-key": make_key(tmp_path)}
        bob = {"ndif-api-key": make_key(tmp_path, "bob@example.org")}
        states, backend.states = backend.states, {"a": AppState.LOADING}
        with gateway_on(backend, tmp_path, loopback_only=False) as (_, client):
            first = [post_job(client, ada, b"ada").json()["id"] for _ in range(5)]
            second = [post_job(client, bob, b"bob").json()["id"] for _ in range(2)]
            assert client.get(f"/response/{second[-1]}", headers=bob).status_code == 200
            backend.states = {"a": states["a"]}
            for job_id in first:
                follow(client, job_id, ada)
        payloads = [block.payload.decode() for block in blocks(backend)]
        assert payloads == ["ada", "bob", "ada", "bob", "ada", "ada", "ada"]

    def test_lines_are_bounded_for_each_key_and_for_all(self, backend: FakeBackend, tmp_path: Path) -> None:
        ada = {"ndif-api-key": make_key(tmp_path)}
        bob = {"ndif-api-key": make_key(tmp_path, "bob@example.org")}
        backend.states = {"a": AppState.LOADING}
        with gateway_on(backend, tmp_path, loopback_only=False, queued_per_key=2, queued_per_model=3) as (
            _,
            client,
        ):
            codes = [post_job(client, ada).status_code for _ in range(3)]
            codes += [post_job(client, bob).status_code for _ in range(2)]
            assert codes == [200, 200, 429, 200, 503]
            answer = post_job(client, bob)
            assert (
                int(answer.headers["retry-after"]) >= 1 and "wait for this model" in answer.json()["detail"]
            )
        assert len(left_behind(tmp_path)) == 3


class TestEnvelopes:
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
        assert post_job(client, headers).status_code == status

    @pytest.mark.parametrize(
        ("changes", "status"),
        [
            ({"model_key": "org/m"}, 422),
            ({"model_key": 3}, 422),
            ({"model_key": "os.path:" + "[" * 1500}, 422),
            ({"model_key": model_key("org/m").replace('"repo_id"', '"device_map": "x", "repo_id"')}, 422),
            ({"model_key": model_key("org/m").replace("nnsight.modeling", "os")}, 403),
            ({"model_key": model_key("org/x")}, 404),
            ({"env": {"attn_implementation": "someone/kernel"}}, 403),
            ({"env": {"attn_implementation": ["sdpa"]}}, 403),
            ({"env": {"peft": "someone/adapter"}}, 403),
            ({"env": {"device_map": "cpu"}}, 403),
            ({"env": "sdpa"}, 422),
            ({"session_id": "not open"}, 400),
        ],
    )
    def test_is_checked_before_anything_runs(
        self, client: TestClient, backend: FakeBackend, tmp_path: Path, changes: dict[str, Any], status: int
    ) -> None:
        response = post_job(client, **changes)
        assert response.status_code == status, response.text
        assert isinstance(response.json()["detail"], str)
        assert backend.asked == [] and left_behind(tmp_path) == []

    def test_an_adapter_may_be_allowed(self, backend: FakeBackend) -> None:
        with gateway_on(backend, allowed_adapters=("org/adapter",)) as (_, client):
            assert post_job(client, env={"peft": "org/adapter"}).status_code == 200

    @pytest.mark.parametrize("form", [{}, {"data": {"data": "{}"}}, {"files": {"blob": b"x"}}])
    def test_a_form_without_its_parts_is_a_422(self, client: TestClient, form: Any) -> None:
        assert client.post("/request", **form).status_code == 422

    def test_a_remote_code_key_does_not_find_the_plain_model(self, client: TestClient) -> None:
        key = model_key("org/m").replace('"repo_id"', '"trust_remote_code": true, "repo_id"')
        assert post_job(client, model_key=key).status_code == 404
