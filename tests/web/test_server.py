"""The server in the daemon: it comes back after everything, and the daemon never notices."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from loguru import logger

from scheduler.board import Board
from scheduler.web import server as server_module
from scheduler.web.desk import Desk
from scheduler.web.server import PageServer, page_served
from tests.ray_cluster import free_port
from tests.simulation.harness import world
from tests.web.desk import Here, desk_for, seen, served, settings_for, week

WAIT_SECONDS = 20


@pytest.fixture
def said() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{level} {message}", level="DEBUG")
    yield lines
    logger.remove(sink)


@contextmanager
def running(desk: Desk) -> Iterator[PageServer]:
    server = PageServer(desk)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def desk_on(folder: Path, port: int) -> Desk:
    return desk_for(folder, seen(week()[:3]), port=port)


def get(port: int, path: str = "/api/v1/state") -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=WAIT_SECONDS)


def test_it_listens_where_the_settings_say_and_ends_when_asked(tmp_path: Path, said: list[str]) -> None:
    port = free_port()
    with running(desk_on(tmp_path, port)) as server:
        assert server.listening.wait(WAIT_SECONDS)
        assert get(port).status_code == 200
    assert f"INFO The page is at http://127.0.0.1:{port}.\n" in said
    with pytest.raises(httpx.ConnectError):
        get(port)


def test_a_port_that_is_taken_is_told_of_once_and_tried_again(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(server_module, "LONGEST_PAUSE_SECONDS", 0.05)
    tried = threading.Semaphore(0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = PageServer(desk_on(tmp_path, port))
        serve = server._serve

        def counted() -> None:
            tried.release()
            serve()

        monkeypatch.setattr(server, "_serve", counted)
        server.start()
        for _ in range(3):
            assert tried.acquire(timeout=WAIT_SECONDS)
    assert server.listening.wait(WAIT_SECONDS)
    assert get(port).status_code == 200
    server.stop()
    assert len([line for line in said if "cannot listen" in line]) == 1


@pytest.mark.parametrize("fault", [RuntimeError("boom"), SystemExit(1)], ids=["error", "exit"])
def test_it_is_started_again_after_whatever_happened(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    monkeypatch.setattr(server_module, "FIRST_PAUSE_SECONDS", 0.01)
    faults = [fault]
    make_app = server_module.make_app

    def make(*arguments: Any) -> Any:
        if faults:
            raise faults.pop()
        return make_app(*arguments)

    monkeypatch.setattr(server_module, "make_app", make)
    port = free_port()
    with running(desk_on(tmp_path, port)) as server:
        assert server.listening.wait(WAIT_SECONDS)
        assert get(port).status_code == 200
    assert any("The page has failed" in line for line in said)


def test_a_fault_in_an_answer_is_a_500_and_the_next_answer_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    desk = desk_on(tmp_path, port)
    with running(desk) as server:
        assert server.listening.wait(WAIT_SECONDS)
        with monkeypatch.context() as broken:
            broken.setattr(Desk, "shown", lambda *_: 1 / 0)
            assert get(port).status_code == 500
            assert get(port, "/").status_code == 500
        assert get(port).status_code == 200


def test_where_no_page_is_wanted_there_is_none(tmp_path: Path) -> None:
    with page_served(settings_for(tmp_path, enabled=False), Board()) as server:
        assert server is None


def test_events_tell_the_version_now_and_every_later_one(tmp_path: Path) -> None:
    desk = desk_for(tmp_path, seen([]))
    with served(desk) as url, httpx.stream("GET", f"{url}/api/v1/events", timeout=WAIT_SECONDS) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()

        def next_version() -> int:
            return int(json.loads(next(line for line in lines if line.startswith("data:"))[5:])["version"])

        assert next_version() == 1
        desk.board.publish(seen([]))
        assert next_version() == 2
        desk.board.publish(seen([]))
        assert next_version() == 3


def test_an_open_stream_of_events_does_not_hold_up_the_end(tmp_path: Path) -> None:
    port = free_port()
    server = PageServer(desk_on(tmp_path, port))
    server.start()
    assert server.listening.wait(WAIT_SECONDS)
    with httpx.stream("GET", f"http://127.0.0.1:{port}/api/v1/events", timeout=WAIT_SECONDS) as answer:
        next(answer.iter_lines())
        server.stop()
        assert not server._thread.is_alive()


def test_a_daemon_at_work_is_shown_as_it_works(tmp_path: Path) -> None:
    """The real daemon and the real page: what is booked is loading, then serves, and it says so."""
    with world(tmp_path, "2026-03-25T08:00") as lab:
        lab.calendar.add("phi", "2026-03-25T08:00", "2026-03-25T12:00")
        lab.calendar.add("giant", "2026-03-25T09:00", "2026-03-25T12:00")
        desk = Desk(lab.settings, lab.board, Here(lab.settings), clock=lab.clock)
        with served(desk) as url:
            assert httpx.get(f"{url}/api/v1/state").status_code == 503
            lab.run_for(seconds=10)
            (model,) = httpx.get(f"{url}/api/v1/models").json()
            assert (model["name"], model["status"]) == ("lab/phi", "loading")
            lab.run_for(minutes=2)
            states = {one["model"]: one for one in httpx.get(f"{url}/api/v1/verdicts").json()}
            assert states["lab/phi"]["state"] == "serving" and states["lab/giant"]["state"] == "refused"
            assert [one["outcome"] for one in httpx.get(f"{url}/api/v1/history").json()["plans"]] == [
                "applied"
            ]
            lab.poll_seconds = 1800  # the daemon acts on time between two polls
            lab.run_until("2026-03-25T13:00")
            assert [one["state"] for one in httpx.get(f"{url}/api/v1/promises").json()["promises"]] == [
                "kept"
            ]
            page = httpx.get(url).text
            assert "phi was on gpu" in page and "its booking was kept" in page
        assert lab.faults_of_the_loop() == []
