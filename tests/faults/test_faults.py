"""Everything of a running service is killed once: what stays up, what comes back, and within which time.

The times allowed are twice what was measured on two busy cores; what was measured is in docs/faults.md, and
printed with ``pytest -s``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest

from scheduler.store.history import FILE, reading
from tests.faults.bench import Bench, kill
from tests.ray_cluster import wait_until
from tests.tiny_model import model_key

pytestmark = [pytest.mark.ray, pytest.mark.faults]

LONG_AGO = datetime.fromtimestamp(0, UTC)
STEPS = ("reading the calendars", "observing", "planning", "applying", "after the PUT")
SERVICES = """
import json, sys, ray
ray.init(address=sys.argv[1], namespace="NDIF", log_to_driver=False, logging_level="ERROR")
controller = ray.get_actor("Controller", namespace="NDIF")
key = sys.argv[2]
print(json.dumps({
    "status": ray.get(controller.status.remote()),
    "deployment": ray.get(controller.get_deployment.remote(key)),
    "state": ray.get(controller.get_state.remote())["daemon"],
    "python": ray.get(controller.env.remote())["python_version"],
    "deploy": ray.get(controller.deploy.remote([key])),
}))
"""


@pytest.fixture(scope="module")
def serving(bench: Bench) -> Iterator[Bench]:
    """A daemon at work, and the model it serves."""
    bench.book()
    with bench.daemon("a"):
        bench.until_serves(120)
        yield bench


def test_a_daemon_killed_at_any_step_deploys_nothing_twice(bench: Bench) -> None:
    bench.book()
    for step in STEPS:
        assert bench.suicidal(step) == -9
    began = time.monotonic()
    with bench.daemon("a", NDIF_CONTROLLER__ENABLED="false"):
        bench.until_serves(120)
        bench.measure("daemon killed at each step: serving after the next start", began, 60)
        (replica,) = bench.replicas()
    for step in ("observing", "planning"):
        assert bench.suicidal(step) == -9
        assert [one["pid"] for one in bench.replicas()] == [replica["pid"]]
    with reading(bench.folder / "a" / FILE) as history:
        actions = [action for plan in history.plans(LONG_AGO) for action in plan.actions]
    assert len([one for one in actions if one.startswith("deploy")]) <= 1


def test_a_replica_that_is_killed_is_brought_back(serving: Bench) -> None:
    (replica,) = serving.replicas()
    since = kill(replica["pid"])
    wait_until(lambda: replica["pid"] not in [one["pid"] for one in serving.replicas()], 30, "it is missed")
    serving.until_serves()
    serving.measure("replica killed: answering again", since, 45)


def test_without_serves_controller_requests_go_on_after_some_seconds(serving: Bench) -> None:
    with serving.asking() as asking:
        before = [one["pid"] for one in serving.replicas()]
        since = kill(serving.actor("SERVE_CONTROLLER_ACTOR"))
        wait_until(lambda: [one["pid"] for one in _replicas(serving)] == before, 30, "Serve knows it again")
        serving.measure("Serve's controller killed: known again", since, 30)
        answered = asking.answered
        wait_until(lambda: asking.answered > answered + 2, 30, "requests are answered again")
    serving.measured["Serve's controller killed: longest time without an answer"] = asking.longest_gap
    assert asking.longest_gap < 30


def test_a_proxy_that_is_killed_comes_back(serving: Bench) -> None:
    since = kill(serving.actor("SERVE_PROXY_ACTOR"))
    wait_until(lambda: not serving.serves(), 10, "it is gone", every=0.05)
    serving.until_serves()
    serving.measure("Serve's proxy killed: answering again", since, 60)


def test_a_node_that_is_lost_is_done_without_and_may_come_back(serving: Bench) -> None:
    (app,) = serving.ours().values()
    node = app["deployed_app_config"]["args"]["node"]
    gpus = {"gpu-a": 8, "gpu-b": 2}[node]
    since = time.monotonic()
    serving.cluster.kill_node(node)
    wait_until(lambda: any(node not in name for name in serving.ours()), 60, "it is placed elsewhere")
    serving.until_serves(120)
    serving.measure("node lost: serving on another one", since, 90)
    moved = [one["pid"] for one in serving.replicas()]
    serving.cluster.start_node(node, num_gpus=gpus)
    wait_until(lambda: serving.beat("a") and not serving.beat("a").away, 30, "it is back")  # type: ignore[union-attr]
    assert [one["pid"] for one in serving.replicas()] == moved


def test_a_second_daemon_waits_says_for_whom_and_takes_over(serving: Bench) -> None:
    first = serving.beat("a")
    assert first is not None
    with serving.daemon("b"):
        wait_until(lambda: (beat := serving.beat("b")) and str(first.pid) in beat.waits_for, 60, "it waits")
        assert serving.beat("b").passes >= 1  # type: ignore[union-attr]
        before = [one["pid"] for one in serving.replicas()]
        since = kill(first.pid)
        wait_until(lambda: not serving.beat("b").waits_for, 30, "it takes over", every=0.05)  # type: ignore[union-attr]
        serving.measure("daemon killed: the second one has taken over", since, 15)
        assert [one["pid"] for one in serving.replicas()] == before
        assert "works on this cluster" in serving.log("b")
        _ask_the_controller(serving)


def _ask_the_controller(bench: Bench) -> None:
    """What other services ask through Ray is answered, and a model they ask for is pinned."""
    done = subprocess.run(
        [sys.executable, "-c", SERVICES, bench.cluster.address, model_key()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["deployment"]["application_state"] == "RUNNING"
    assert [one["model_key"] for one in said["status"]["deployments"].values()] == [
        said["deployment"]["model_key"]
    ]
    assert "process" in said["state"]
    wait_until(lambda: (bench.folder / "b" / "orders.json").exists(), 15, "it is pinned")


def _replicas(bench: Bench) -> list[dict[str, object]]:
    """What Serve says while its controller may be away."""
    try:
        return bench.replicas()
    except (KeyError, httpx.HTTPError):
        return []
