"""start.sh as the containers of compose/dev run it: a head and a worker, two processes, one cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from scheduler.settings import ROOT
from tests.launch.test_ray_node import own_address
from tests.ray_cluster import free_port, wait_until
from tests.test_compose import TEXTS, Loader, example_values, interpolated
from tests.tiny_model import TINY_REPO_ID, write_tiny_model

pytestmark = pytest.mark.ray

STOP_SECONDS = 30
"""What compose gives a container before it kills it."""


def container_environment(service: str, values: dict[str, str]) -> dict[str, str]:
    """What compose sets for a service, on the network of its machine."""
    found: dict[str, Any] = {}
    for name in ("docker-compose.yml", "hosts.yml"):
        content = yaml.load(interpolated(TEXTS[name], values), Loader)
        found |= content["services"][service]["environment"]
    return {name: "" if value is None else str(value) for name, value in found.items()}


class Container:
    """One service's start.sh, with folders of its own where the volumes would be."""

    def __init__(self, service: str, verb: str, folder: Path, values: dict[str, str]) -> None:
        self.environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self.environment |= container_environment(service, values) | {
            "NDIF_NO_VENV": "1",
            "NDIF_PYTHON": sys.executable,
            "NDIF_CONFIG": str(folder / "settings.yml"),
            "NDIF_STATE_DIR": str(folder / f"{verb}-state"),
            "NDIF_RAY__TOKEN_PATH": str(folder / "token" / "ray_token"),
            "HF_HOME": str(folder / "hf"),
            "HF_ENDPOINT": "http://127.0.0.1:9",
        }
        self.state = folder / f"{verb}-state"
        self.log = folder / f"{verb}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(ROOT / "start.sh"), verb], env=self.environment, cwd="/", stdout=log, stderr=log
            )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(arguments, env=self.environment, cwd=ROOT, capture_output=True, text=True)

    def is_healthy(self) -> bool:
        return self.run(sys.executable, "-m", "scheduler.launch.health").returncode == 0

    def raylets(self) -> list[psutil.Process]:
        return [one for one in psutil.Process(self.process.pid).children(recursive=True) if is_raylet(one)]

    def stop(self) -> tuple[int, list[psutil.Process]]:
        """Ask it to end as an engine does; its exit status, and what it left behind."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(STOP_SECONDS)
        alive = [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
        return status, alive


def is_raylet(process: psutil.Process) -> bool:
    try:
        return process.name() == "raylet" and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[list[Container]]:
    started: list[Container] = []
    yield started
    for one in started:
        if one.process.poll() is None:
            one.stop()


@pytest.mark.timeout(400)
def test_a_head_and_a_worker_in_containers(tmp_path: Path, containers: list[Container]) -> None:
    write_tiny_model(tmp_path / "hf")
    (tmp_path / "settings.yml").write_text("")
    ports = {f"DEV_RAY_{name}_PORT": str(free_port()) for name in ("HEAD", "CLIENT", "DASHBOARD", "SERVE")}
    address = own_address()
    values = example_values() | ports | {"HOST_IP": address, "N_DEVICES": "0", "WEB_PORT": str(free_port())}
    values["RAY_ADDRESS"] = f"{address}:{ports['DEV_RAY_HEAD_PORT']}"
    (tmp_path / "token").mkdir()

    # the token comes to the worker by a volume
    head = Container("ray", "head", tmp_path, values)
    containers.append(head)
    wait_until(lambda: (tmp_path / "token" / "ray_token").exists(), 60, "the head makes the token")
    worker = Container("ray-worker", "worker", tmp_path, values | {"NODE_NAME": "worker-a"})
    containers.append(worker)

    def nodes() -> set[str]:
        said = head.run(str(ROOT / "start.sh"), "status", "--json")
        return {one["name"] for one in json.loads(said.stdout)["nodes"]} if said.returncode == 0 else set()

    wait_until(lambda: nodes() == {"head", "worker-a"}, 120, "both nodes are there", every=1)
    assert head.is_healthy()
    assert worker.is_healthy()

    booked = head.run(
        *(str(ROOT / "start.sh"), "calendar", "book", TINY_REPO_ID), "--from", "now", "--to", "+1h"
    )
    assert booked.returncode == 0, booked.stdout + booked.stderr
    key = (head.state / "first_key").read_text().strip()
    url = f"http://127.0.0.1:{ports['DEV_RAY_SERVE_PORT']}/v1/completions"
    body = {"model": TINY_REPO_ID, "prompt": "the cat", "max_tokens": 2}
    wait_until(
        lambda: httpx.post(url, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=30).is_success,
        120,
        "the booked model answers to the first key",
        every=1,
    )
    assert httpx.post(url, json=body).status_code == 401

    # what dies in a container is started again there
    (raylet,) = worker.raylets()
    raylet.kill()
    since = time.monotonic()
    wait_until(lambda: raylet not in worker.raylets() and worker.raylets(), 60, "another Ray is started")
    wait_until(worker.is_healthy, 120, "it is there again")
    sys.stdout.write(f"a worker's Ray killed: well again after {time.monotonic() - since:.1f} s\n")

    for one in (worker, head):
        assert one.stop() == (0, []), one.log.read_text()[-2000:]
