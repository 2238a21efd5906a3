"""Turns of completions."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any, ClassVar

import httpx
import pytest

from serve_apps.contract import GatewayArgs
from serve_apps.gateway.backend import BackendError
from serve_apps.gateway.fairness import FairGate
from serve_apps.gateway.http import Gateway, make_app
from serve_apps.gateway.routing import AppState
from tests.ray_cluster import wait_until
from tests.serve_apps.fakes import FakeBackend
from tests.serve_apps.front import CONFIG, Clock, served


class Scene:
    """Calls at one application with one place; each holds it until ``release``."""

    def __init__(self, per_key: int = 10, per_line: int = 20, slots: int = 1) -> None:
        self.gate = FairGate(per_key, per_line)
        self.slots = slots
        self.inside: list[str] = []
        self.order: list[str] = []
        self.released = asyncio.Semaphore(0)

    async def call(self, owner: str, seconds: float = 5) -> None:
        async with self.gate.turn("a", owner, self.slots, seconds):
            self.order.append(owner)
            await self.released.acquire()

    async def start(self, *owners: str, seconds: float = 5) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(self.call(owner, seconds)) for owner in owners]
        for _ in range(5):
            await asyncio.sleep(0)
        return tasks

    async def finish(self, tasks: list[asyncio.Task[None]]) -> None:
        for _ in tasks:
            self.released.release()
        await asyncio.gather(*tasks, return_exceptions=True)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 10))


def test_keys_that_wait_take_turns() -> None:
    async def main() -> None:
        scene = Scene()
        tasks = await scene.start("ada", "ada", "ada", "ada", "bob", "eve", "bob")
        await scene.finish(tasks)
        assert scene.order == ["ada", "ada", "bob", "eve", "ada", "bob", "ada"]
        assert scene.gate.load("a") == 0

    run(main())


def test_as_many_are_inside_as_there_are_places() -> None:
    async def main() -> None:
        scene = Scene(slots=2)
        tasks = await scene.start("ada", "ada", "bob")
        assert (scene.order, scene.gate.load("a")) == (["ada", "ada"], 3)
        # a second replica came up: told with the next request
        scene.slots = 4
        tasks += await scene.start("eve")
        assert sorted(scene.order) == ["ada", "ada", "bob", "eve"]
        await scene.finish(tasks)

    run(main())


@pytest.mark.parametrize(
    ("owners", "status", "code"),
    [(["ada"] * 4, 429, "too_many_requests"), (["ada", "b", "c", "d", "e"], 503, "queue_full")],
)
def test_a_full_line_is_refused_with_when_to_come_again(owners: list[str], status: int, code: str) -> None:
    async def main() -> None:
        scene = Scene(per_key=2, per_line=3)
        tasks = await scene.start(*owners)
        refused = tasks[-1].exception()
        assert isinstance(refused, BackendError)
        assert (refused.status, refused.code) == (status, code)
        assert refused.retry_after_seconds is not None and refused.retry_after_seconds >= 1
        await scene.finish(tasks[:-1])
        assert len(scene.order) == len(owners) - 1

    run(main())


def test_who_waits_too_long_is_told_and_leaves_no_trace() -> None:
    async def main() -> None:
        scene = Scene()
        first = await scene.start("ada")
        (late,) = await scene.start("bob", seconds=0.01)
        with pytest.raises(BackendError) as caught:
            await late
        assert caught.value.status == 504
        assert scene.gate.load("a") == 1
        await scene.finish(first)

    run(main())


def test_who_leaves_the_line_gives_his_place_to_the_next() -> None:
    async def main() -> None:
        scene = Scene()
        tasks = await scene.start("ada", "bob", "eve")
        tasks[1].cancel()
        await scene.finish([tasks[0], tasks[2]])
        assert scene.order == ["ada", "eve"]

    run(main())


def test_who_leaves_in_the_moment_of_his_turn_gives_it_on() -> None:
    async def main() -> None:
        scene = Scene()
        tasks = await scene.start("ada", "bob", "eve")
        scene.released.release()
        await tasks[0]
        # bob has been given the place, but has not run yet
        tasks[1].cancel()
        await scene.finish(tasks[1:])
        assert scene.order[-1] == "eve"
        assert scene.gate.load("a") == 0

    run(main())


def asking(address: str, body: dict[str, object], clients: ExitStack) -> None:
    """A client that has asked, and leaves with the others."""
    host, port = address.removeprefix("http://").split(":")
    text = json.dumps(body)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(text)}"
    line = clients.enter_context(socket.create_connection((host, int(port)), timeout=5))
    line.sendall(f"{head}\r\nContent-Type: application/json\r\n\r\n{text}".encode())


class TestOverHttp:
    """What OpenAI's clients are told, and that one that leaves frees its place."""

    BODY: ClassVar[dict[str, object]] = {"model": "m", "prompt": "x"}

    @pytest.fixture(autouse=True)
    def one_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("serve_apps.gateway.fairness.CALLS_PER_REPLICA", 1)

    def test_a_full_line_is_a_429_with_when_to_come_again(self) -> None:
        backend = FakeBackend(states={"a": AppState.SERVING}, endless=True)
        gateway = Gateway(GatewayArgs(queued_per_key=1), backend, now=Clock())
        gateway.reconfigure(CONFIG)
        body = self.BODY | {"stream": True}
        with served(make_app(gateway)) as address, ExitStack() as clients:
            for _ in range(2):
                asking(address, body, clients)
            wait_until(lambda: gateway.gate.load("a") == 2, 10, "one is inside, one waits", every=0.01)
            answer = httpx.post(f"{address}/v1/completions", json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_requests")
            assert int(answer.headers["retry-after"]) >= 1
            clients.close()
        gateway.close()

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_client_that_leaves_is_noticed_at_once(self, stream: bool) -> None:
        backend = FakeBackend(states={"a": AppState.SERVING}, endless=True)
        gateway = Gateway(GatewayArgs(), backend, now=Clock())
        gateway.reconfigure(CONFIG)
        with served(make_app(gateway)) as address:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{address}/v1/completions", json=self.BODY | {"stream": stream}, timeout=0.5)
            wait_until(backend.cancelled.is_set, 10, "the model is told", every=0.01)
            wait_until(lambda: gateway.gate.load("a") == 0, 10, "its place is free", every=0.01)
        gateway.close()
