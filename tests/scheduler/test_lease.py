"""Whose the cluster is: the desk's side of the lease, and the daemon's, without Ray."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scheduler.front import Lease
from scheduler.front_process import SILENT_SECONDS, FrontProcess, front_for
from scheduler.progress import Said, Step
from scheduler.settings import Settings
from scheduler.types import Model
from serve_apps.controller.desk import MAX_REQUESTS, Desk

KEY = Model(repo_id="org/a").key


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def asks(desk: Desk, who: str, held: bool = False) -> bool:
    return bool(desk.exchange(who, f"daemon {who}", held, None)["ours"])


# The desk


def test_the_first_daemon_has_the_lease_and_the_second_is_told_whose_it_is(clock: Clock) -> None:
    desk = Desk(10, clock=clock)
    assert asks(desk, "a")
    assert desk.exchange("b", "b", False, None)["holder"] == "daemon a"
    clock.now += 9
    assert asks(desk, "a")
    clock.now += 9
    assert not asks(desk, "b")


def test_a_lease_that_is_not_kept_or_given_back_is_free(clock: Clock) -> None:
    desk = Desk(10, clock=clock)
    asks(desk, "a")
    clock.now += 10.1
    assert asks(desk, "b")
    assert not asks(desk, "a", held=True)
    desk.release("a")
    assert not asks(desk, "a")
    desk.release("b")
    assert asks(desk, "a")


def test_a_desk_made_anew_waits_for_the_daemon_that_had_the_lease(clock: Clock) -> None:
    desk = Desk(10, anew=True, clock=clock)
    assert not asks(desk, "b")
    assert asks(desk, "a", held=True)
    again = Desk(10, anew=True, clock=clock)
    clock.now += 10.1
    assert asks(again, "b")


def test_only_the_holder_speaks_and_is_given_what_was_asked_for(clock: Clock) -> None:
    desk = Desk(10, clock=clock)
    asks(desk, "a")
    desk.deploy([KEY])
    desk.report("app", "loading", 0.5)
    other = desk.exchange("b", "b", False, {"deployments": "wrong"})
    assert (other["requests"], other["said"], desk.get_state()["daemon"]) == ([], {}, "daemon a")
    mine = desk.exchange("a", "daemon a", True, None)
    assert mine["requests"] == [{"verb": "deploy", "model_keys": [KEY]}]
    assert mine["said"] == {"app": ["loading", 0.5]}
    assert desk.exchange("a", "daemon a", True, None)["requests"] == []
    clock.now += 61
    assert desk.exchange("a", "daemon a", True, None)["said"] == {}


def test_requests_that_nobody_fetches_do_not_fill_the_memory(clock: Clock) -> None:
    desk = Desk(10, clock=clock)
    for _ in range(MAX_REQUESTS + 5):
        desk.evict([KEY])
    assert len(desk.exchange("a", "a", False, None)["requests"]) == MAX_REQUESTS


def test_what_other_services_see(clock: Clock) -> None:
    desk = Desk(10, clock=clock)
    model = {"repo_id": "org/a", "revision": None, "task": "text-generation", "trust_remote_code": False}
    one = {"application": "app", "node": "n", "model": model, "replicas": 2, "status": "serving"}
    state = {"deployments": [one], "model_keys": {"app": KEY}, "plan": {"cluster": {"nodes": []}}}
    desk.exchange("a", "a", False, state)
    assert sorted(desk.status()["deployments"]) == ["app#0", "app#1"]
    assert desk.status()["cluster"] == {"nodes": []}
    kind = KEY.partition(":")[0]
    written_otherwise = f'{kind}:{{"task": "text-generation", "repo_id": "org/a"}}'
    found = desk.get_deployment(written_otherwise)
    assert found is not None
    assert (found["application_state"], found["node"], found["model_key"]) == ("RUNNING", "n", KEY)
    assert desk.get_deployment("org/b") is None
    assert desk.env()["packages"]["pydantic"]


# The daemon's side

CHILD = """
import json, sys, time
for line in sys.stdin:
    asked = json.loads(line)
    {body}
"""


def front(tmp_path: Path, body: str, **options: object) -> FrontProcess:
    script = tmp_path / "child.py"
    script.write_text(CHILD.format(body=body.replace("\n", "\n    ")))
    settings = Settings(state_dir=tmp_path / "state")
    return FrontProcess(settings, command=[sys.executable, str(script)], **options)  # type: ignore[arg-type]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


GRANT = 'print(json.dumps({"ours": True, "holder": asked["name"], "requests": [], "said": {}}), flush=True)'
OTHER = 'print(json.dumps({"ours": False, "holder": "other", "requests": [], "said": {}}), flush=True)'
CANNOT = 'print(json.dumps({"problem": "no actor"}), flush=True)'


def test_a_granted_lease_holds_for_its_time_and_not_longer_without_an_answer(
    tmp_path: Path, clock: Clock
) -> None:
    one = front(tmp_path, f"{GRANT}\nsys.stdin.read()", clock=clock)
    one.start()
    until(lambda: one.lease().ours)
    clock.now += 9
    assert one.lease().ours
    clock.now += 2
    assert not one.lease().ours
    one.close()


def test_a_daemon_that_is_told_of_another_waits_also_when_it_cannot_ask_any_more(
    tmp_path: Path, clock: Clock
) -> None:
    body = f"n = globals().get('n', 0) + 1\nif n == 1: {OTHER}\nelse: {CANNOT}"
    one = front(tmp_path, body, clock=clock, assume=True)
    assert one.lease().ours
    one.start()
    until(lambda: one.lease().holder == "other" and bool(one.lease().problem))
    clock.now += 1000
    assert not one.lease().ours
    one.close()


def test_a_daemon_that_cannot_ask_never_acts_and_says_what_to_do(tmp_path: Path, clock: Clock) -> None:
    one = front(tmp_path, CANNOT, clock=clock)
    one.start()
    until(lambda: "no actor" in one.lease().problem)
    clock.now += 1000
    assert not one.lease().ours
    assert "NDIF_CONTROLLER__ENABLED=false" in one.lease().problem
    one.close()


def test_an_answer_that_does_not_come_is_told_and_not_taken_for_one(tmp_path: Path, clock: Clock) -> None:
    one = front(tmp_path, "time.sleep(60)", clock=clock)
    one.start()
    assert one.lease() == Lease(ours=False)
    clock.now += SILENT_SECONDS + 1
    assert not one.lease().ours
    assert "NDIF_CONTROLLER__ENABLED=false" in one.lease().problem
    one.close()


def test_without_the_actor_there_is_no_lease_to_wait_for(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, controller={"enabled": False})
    assert front_for(settings).lease() == Lease(ours=True)


def test_who_had_the_lease_keeps_it_while_its_child_comes_back(tmp_path: Path, clock: Clock) -> None:
    one = front(tmp_path, f"n = globals().get('n', 0) + 1\nif n > 1: sys.exit(1)\n{GRANT}", clock=clock)
    one.start()
    until(lambda: "ended" in one.lease().problem)
    clock.now += 1000
    assert one.lease().ours
    until(lambda: one.lease().problem == "")
    one.close()


def test_what_was_asked_and_said_arrives(tmp_path: Path) -> None:
    answer = {
        "ours": True,
        "holder": "me",
        "requests": [{"verb": "deploy", "model_keys": ["org/a"]}],
        "said": {"app": ["warming", None], "odd": ["dancing", 0.5]},
    }
    one = front(tmp_path, f"print({json.dumps(answer)!r}, flush=True)")
    one.start()
    until(lambda: bool(one.said()))
    (request, *_) = one.requests()
    assert (request.verb, request.model_keys) == ("deploy", ("org/a",))
    assert one.said() == {"app": Said(Step.WARMING, None)}
    one.close()


def test_closing_ends_the_child(tmp_path: Path) -> None:
    one = front(tmp_path, GRANT)
    one.start()
    until(lambda: one.lease().ours)
    child = one._child
    assert child is not None
    one.close()
    assert child.poll() is not None
