"""What the gateway tells of requests and jobs, and what it never tells."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serve_apps.gateway.backend import BackendError, GoneError
from serve_apps.gateway.http import Gateway
from serve_apps.gateway.lines import tell_once
from serve_apps.gateway.measuring import Measured
from serve_apps.gateway.metrics import (
    GATEWAY,
    GATEWAY_POINTS,
    GONE,
    JOBS,
    REQUESTS,
    RUNNING,
    TOKENS,
    WAITING,
    Exchange,
    JobNews,
    JobPhases,
    RayMeter,
    Unmetered,
    current_exchange,
)
from serve_apps.gateway.routing import AppState
from serve_apps.messages import Chunk, Frame, FrameKind, GenerationRequest, Refusal
from serve_apps.telemetry.metric import Measurement, Metric
from tests.serve_apps.fakes import LAST, FakeBackend
from tests.serve_apps.front import INLINE, gateway_on, make_key, post_job, until_told

WAIT_SECONDS = 30.0


@dataclass
class Told(Unmetered):
    """Keeps what it is told."""

    requests: list[Exchange] = field(default_factory=list)
    jobs: queue.SimpleQueue[JobNews] = field(default_factory=queue.SimpleQueue)
    waiting: dict[tuple[str, str], int] = field(default_factory=dict)
    running: dict[tuple[str, str], int] = field(default_factory=dict)
    told_people: list[tuple[int, int | None]] = field(default_factory=list)

    def request(self, exchange: Exchange) -> None:
        self.requests.append(replace(exchange))

    def job(self, news: JobNews) -> None:
        self.jobs.put(news)

    def lines(self, waiting: Mapping[tuple[str, str], int], running: Mapping[tuple[str, str], int]) -> None:
        self.waiting, self.running = dict(waiting), dict(running)

    def people(self, sessions: int, users: int | None) -> None:
        self.told_people.append((sessions, users))

    def next_job(self) -> JobNews:
        return self.jobs.get(timeout=WAIT_SECONDS)

    @property
    def last(self) -> Exchange:
        return self.requests[-1]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend(states={"a": AppState.SERVING, "b": AppState.SERVING})


@pytest.fixture
def gateway(backend: FakeBackend, told: Told, tmp_path: Path) -> Iterator[tuple[Gateway, TestClient]]:
    with gateway_on(backend, tmp_path, meter=told) as made:
        yield made


@pytest.fixture
def client(gateway: tuple[Gateway, TestClient]) -> TestClient:
    return gateway[1]


def complete(client: TestClient, **changes: Any) -> Any:
    return client.post("/v1/completions", json={"model": "m", "prompt": "Hello"} | changes)


class TestRequests:
    def test_an_answer_is_told_with_its_model_route_tokens_and_size(
        self, client: TestClient, told: Told
    ) -> None:
        answer = complete(client)
        one = told.last
        assert (one.model, one.route, one.code) == ("org/m", "/v1/completions", 200)
        assert (one.prompt_tokens, one.completion_tokens) == (3, 2)
        assert one.response_bytes == len(answer.content)
        assert one.turn_seconds is not None and one.first_seconds is None
        assert one.seconds >= one.turn_seconds

    def test_a_stream_is_told_once_it_is_over_with_when_its_first_piece_came(
        self, client: TestClient, told: Told
    ) -> None:
        answer = complete(client, stream=True)
        one = told.last
        assert one.first_seconds is not None and one.seconds >= one.first_seconds
        assert (one.prompt_tokens, one.completion_tokens, one.code) == (3, 2, 200)
        assert one.response_bytes == len(answer.content) > 100

    def test_embeddings_read_tokens_and_write_none(self, client: TestClient, told: Told) -> None:
        client.post("/v1/embeddings", json={"model": "m", "input": "x"})
        assert (told.last.prompt_tokens, told.last.completion_tokens) == (4, 0)

    def test_several_choices_count_each(self, told: Told) -> None:
        class Two(FakeBackend):
            async def complete(self, application: str, request: GenerationRequest) -> Chunk | Refusal:
                return LAST.model_copy(update={"others": (LAST.model_copy(update={"prompt_tokens": 0}),)})

        with gateway_on(Two(states={"a": AppState.SERVING, "b": AppState.SERVING}), meter=told) as (
            _,
            client,
        ):
            complete(client, n=2)
        assert (told.last.prompt_tokens, told.last.completion_tokens) == (3, 4)

    @pytest.mark.parametrize(
        ("asked", "label"), [("org/m", "org/m"), ("ORG/M", "org/m"), ("org/later", "org/later")]
    )
    def test_a_model_has_one_label_however_it_is_called(
        self, client: TestClient, told: Told, asked: str, label: str
    ) -> None:
        complete(client, model=asked)
        assert told.last.model == label

    def test_whatever_strangers_ask_for_has_one_label(self, client: TestClient, told: Told) -> None:
        for number in range(20):
            assert complete(client, model=f"no/such-{number}").status_code == 404
            client.get(f"/no/such/path/{number}")
            client.get(f"/results/{number}", params={"expires": 1, "signature": "x"})
        assert {(one.model, one.route, one.code) for one in told.requests} == {
            ("unknown", "/v1/completions", 404),
            ("none", "unknown", 404),
            ("none", "/results/{name}", 404),
        }

    def test_a_model_that_fails_is_told_with_its_code(
        self, client: TestClient, told: Told, backend: FakeBackend
    ) -> None:
        error = BackendError(500, "internal_error", "It failed.")
        backend.errors |= {"a": error, "b": error}
        assert complete(client).status_code == 500
        assert (told.last.model, told.last.code) == ("org/m", 500)

    def test_who_is_turned_away_at_the_door_is_told_too(
        self, backend: FakeBackend, told: Told, tmp_path: Path
    ) -> None:
        make_key(tmp_path)
        with gateway_on(backend, tmp_path, meter=told, require_keys=True) as (_, client):
            assert complete(client).status_code == 401
        assert (told.last.route, told.last.code, told.last.model) == ("unknown", 401, "none")

    def test_a_client_that_leaves_before_its_answer_is_told_as_gone(self, told: Told) -> None:
        async def left(scope: Any, receive: Any, send: Any) -> None:
            raise asyncio.CancelledError

        async def request() -> None:
            await Measured(left, told)({"type": "http"}, None, None)  # type: ignore[arg-type]

        with pytest.raises(asyncio.CancelledError):
            asyncio.run(request())
        assert told.last.code == GONE
        assert current_exchange.get() is None


class TestJobs:
    def test_a_job_is_told_with_its_phases_and_what_it_took(
        self, client: TestClient, told: Told, backend: FakeBackend
    ) -> None:
        meta = Frame(FrameKind.META, b'{"runtime": 1, "max_memory_usage": 4096}')
        backend.frames = (Frame(FrameKind.RUNNING), meta, Frame(FrameKind.COMPLETED, b"binary"))
        with client.websocket_connect("/subscribe") as socket:
            post_job(client, session_id=socket.receive_json()["session_id"])
            until_told(socket, "RUNNING")
            assert socket.receive_bytes() == b"binary"
            news = told.next_job()
        assert (news.model, news.end, news.memory_bytes) == ("org/m", "completed", 4096)
        assert (news.payload_bytes, news.result_bytes) == (len(b"payload"), len(b"binary"))
        assert list(news.phases.seconds) == ["waiting", "starting", "running", "finishing"]
        total = news.phases.ended - news.phases.created
        assert sum(news.phases.seconds.values()) == pytest.approx(total)

    def test_a_result_that_is_kept_is_told_with_its_size(
        self, client: TestClient, told: Told, backend: FakeBackend
    ) -> None:
        post_job(client)
        assert (news := told.next_job()).end == "completed" and news.result_bytes == len(b"result")

    @pytest.mark.parametrize(
        ("frames", "error", "end"),
        [
            ((Frame(FrameKind.RUNNING), Frame(FrameKind.ERROR, b"Traceback")), None, "failed"),
            ((Frame(FrameKind.RUNNING),), None, "lost"),
            ((), BackendError(504, "timeout", "The model did not answer in time."), "too long"),
            ((), BackendError(503, "replica_died", "The replica died."), "lost"),
        ],
    )
    def test_how_jobs_end(
        self,
        client: TestClient,
        told: Told,
        backend: FakeBackend,
        frames: tuple[Frame, ...],
        error: BackendError | None,
        end: str,
    ) -> None:
        if frames:
            backend.frames = frames
        if error:
            backend.errors |= {"a": error, "b": error}
        if end == "lost" and frames:
            backend.frames = (Frame(FrameKind.RUNNING), Frame(FrameKind.LOG, b"x"))
        post_job(client)
        assert told.next_job().end == end

    def test_a_job_that_is_cancelled_while_it_runs_or_waits(
        self, client: TestClient, told: Told, backend: FakeBackend, tmp_path: Path
    ) -> None:
        backend.frames = ()
        running = post_job(client).json()["id"]
        client.portal.call(backend.begun.wait)  # type: ignore[union-attr]
        assert client.delete(f"/jobs/{running}").status_code == 202
        assert told.next_job().end == "cancelled"
        backend.states = {}
        waiting = post_job(client).json()["id"]
        assert client.delete(f"/jobs/{waiting}").status_code == 202
        news = told.next_job()
        assert news.end == "cancelled" and list(news.phases.seconds) == ["waiting"]

    def test_a_job_whose_client_leaves_while_it_waits_is_cancelled(
        self, client: TestClient, told: Told, backend: FakeBackend
    ) -> None:
        backend.states = {}
        with client.websocket_connect("/subscribe") as socket:
            post_job(client, session_id=socket.receive_json()["session_id"])
        assert told.next_job().end == "cancelled"

    def test_a_job_that_begins_anew_is_told_once(
        self, client: TestClient, told: Told, backend: FakeBackend
    ) -> None:
        backend.errors["a"] = GoneError(503, "model_unavailable", "Gone.", 5)
        backend.frames = INLINE
        post_job(client)
        assert told.next_job().end == "completed"
        assert told.jobs.empty()


class TestLines:
    def test_what_waits_and_runs_is_told_by_model_and_kind(
        self, gateway: tuple[Gateway, TestClient], told: Told, backend: FakeBackend
    ) -> None:
        made, client = gateway
        backend.states = {}
        for _ in range(3):
            post_job(client)
        client.portal.call(tell_once, made)  # type: ignore[union-attr]
        assert told.waiting == {("org/m", "job"): 3}
        assert told.running == {}

    def test_completions_that_are_under_way_are_told(
        self, gateway: tuple[Gateway, TestClient], told: Told
    ) -> None:
        made, client = gateway

        async def inside() -> None:
            async with made.gate.turn("a", "ada", 1, 5):
                waits = asyncio.ensure_future(made.gate.turn("a", "bob", 1, 5).__aenter__())
                await asyncio.sleep(0)
                await tell_once(made)
                waits.cancel()
                await asyncio.gather(waits, return_exceptions=True)

        client.portal.call(inside)  # type: ignore[union-attr]
        assert told.waiting[("org/m", "completion")] == 1
        assert told.running[("org/m", "completion")] == 1

    def test_of_jobs_that_wait_for_any_gateway_only_one_tells(
        self, backend: FakeBackend, tmp_path: Path
    ) -> None:
        backend.states = {}
        one, other = Told(), Told()
        with (
            gateway_on(backend, tmp_path, meter=one) as (first, client),
            gateway_on(backend, tmp_path, meter=other) as (second, other_client),
        ):
            post_job(client)
            client.portal.call(tell_once, first)  # type: ignore[union-attr]
            other_client.portal.call(tell_once, second)  # type: ignore[union-attr]
            told = [meter.waiting.get(("org/m", "job"), 0) for meter in (one, other)]
            assert sorted(told) == [0, 1]
            assert sorted(meter.told_people[-1][1] is None for meter in (one, other)) == [False, True]

    def test_people_are_counted_by_their_keys(self, backend: FakeBackend, told: Told, tmp_path: Path) -> None:
        keys = [make_key(tmp_path, f"{name}@example.org") for name in ("ada", "bob")]
        with gateway_on(backend, tmp_path, meter=told, require_keys=True) as (made, client):
            for key in (*keys, keys[0]):
                client.headers["Authorization"] = f"Bearer {key}"
                assert complete(client).status_code == 200
            client.portal.call(tell_once, made)  # type: ignore[union-attr]
            assert told.told_people[-1] == (0, 2)


@dataclass
class Recorded:
    """Stands for Ray: what was recorded, by metric and labels."""

    values: dict[tuple[str, tuple[str, ...]], float] = field(default_factory=dict)

    def count(self, metric: Metric, by: float, *labels: str) -> None:
        assert len(labels) == len(metric.labels)
        self.values[metric.name, labels] = self.values.get((metric.name, labels), 0) + by

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        self.count(metric, 1, *labels)

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        assert len(labels) == len(metric.labels)
        self.values[metric.name, labels] = value


class Written:
    """Stands for InfluxDB: points as they were put."""

    def __init__(self) -> None:
        self.points: list[tuple[Measurement, dict[str, str], dict[str, Any]]] = []
        self.outbox = type("Outbox", (), {"dropped": 0})()

    def put(self, measurement: Measurement, tags: dict[str, str], fields: dict[str, Any], at: object) -> None:
        self.points.append((measurement, tags, fields))

    def close(self) -> None:
        pass


class TestRayMeter:
    def test_it_records_every_metric_of_the_table_and_writes_every_point(self) -> None:
        recorded, written = Recorded(), Written()
        meter = RayMeter(written, recorded)  # type: ignore[arg-type]
        meter.request(Exchange("org/m", "/v1/completions", 200, 1.0, 0.1, 0.2, 3, 2, 100))
        meter.request(Exchange("none", "/healthz", 200))
        meter.job(JobNews("org/m", "completed", JobPhases(1.0, 2.0, 3.0, 4.0, 5.0), 1, 2, 3))
        meter.lines({("org/m", "job"): 2}, {("org/m", "completion"): 1})
        written.outbox.dropped = 7
        meter.lines({}, {})
        meter.people(1, 2)
        assert {name for name, _ in recorded.values} == {one.name for one in GATEWAY}
        assert recorded.values[REQUESTS.name, ("org/m", "/v1/completions", "200")] == 1
        assert recorded.values[TOKENS.name, ("org/m", "completion")] == 2
        assert recorded.values[JOBS.name, ("org/m", "completed")] == 1
        assert recorded.values["ndif_gateway_telemetry_dropped_total", ("influx",)] == 7
        assert [point[0].name for point in written.points] == [one.name for one in GATEWAY_POINTS]
        for measurement, tags, fields in written.points:
            assert set(tags) == set(measurement.tags) and set(fields) == set(measurement.fields)

    def test_a_line_that_is_empty_again_is_told_as_empty(self) -> None:
        recorded = Recorded()
        meter = RayMeter(None, recorded)  # type: ignore[arg-type]
        meter.lines({("m", "job"): 2}, {("m", "job"): 1})
        meter.lines({}, {})
        assert recorded.values == {(WAITING.name, ("m", "job")): 0, (RUNNING.name, ("m", "job")): 0}

    def test_models_beyond_many_have_one_label(self) -> None:
        recorded = Recorded()
        meter = RayMeter(None, recorded)  # type: ignore[arg-type]
        for number in range(1000):
            meter.request(Exchange(f"org/m{number}", "/v1/completions", 200))
        models = {labels[0] for name, labels in recorded.values if name == REQUESTS.name}
        assert len(models) == 201 and "other" in models
