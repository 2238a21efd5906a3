"""A Ray cluster of several raylets on one machine, reached as production is: over REST and HTTP.

Nodes: ``cpu-0`` (head, 4 CPUs, no GPU), ``gpu-a`` (8 GPUs) and ``gpu-b`` (2 GPUs). The GPUs are
fake: Ray counts them, and replicas that ask for them run on the CPU (``NDIF_FAKE_GPUS``).
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from serve_apps.contract import GPU_MEMORY_LABEL, NODE_LABEL
from tests.tiny_model import write_tiny_model

GIB = 1024**3
GPU_MEMORY_MIB = 81920
HEAD_NAME = "cpu-0"
WORKERS = {"gpu-a": 8, "gpu-b": 2}


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], Any], seconds: float, what: str, every: float = 0.2) -> Any:
    """Polls until ``condition()`` is truthy and returns it; ``AssertionError`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(every)


@dataclass
class RayCluster:
    """A running cluster; ``cluster`` is the ``ray.cluster_utils.Cluster`` behind it.

    ``nodes`` maps our node names to Ray's node objects, so that a test can kill one with
    ``kill_node`` and bring it back with ``start_node``.
    """

    cluster: Any
    address: str
    dashboard_url: str
    serve_port: int
    hf_home: Path
    nodes: dict[str, Any] = field(default_factory=dict)

    @property
    def serve_url(self) -> str:
        return f"http://127.0.0.1:{self.serve_port}"

    def start_node(self, name: str, **resources: Any) -> None:
        """Adds a raylet named ``name`` and waits until Ray lists it."""
        resources.setdefault("num_cpus", 0)
        resources.setdefault("memory", 64 * GIB)
        labels = {NODE_LABEL: name}
        if resources.get("num_gpus"):
            labels[GPU_MEMORY_LABEL] = str(GPU_MEMORY_MIB)
        self.nodes[name] = self.cluster.add_node(labels=labels, **resources)

    def kill_node(self, name: str) -> None:
        """Takes a raylet and its workers away without any farewell."""
        self.cluster.remove_node(self.nodes.pop(name), allow_graceful=False)

    def put(self, applications: Sequence[Mapping[str, Any]]) -> None:
        """Declares the complete list of applications; unlisted declarative ones are deleted."""
        body = {
            "proxy_location": "HeadOnly",
            "http_options": {"host": "127.0.0.1", "port": self.serve_port},
            "applications": list(applications),
        }
        response = httpx.put(f"{self.dashboard_url}/api/serve/applications/", json=body, timeout=180)
        assert response.status_code == 200, response.text

    def applications(self) -> dict[str, dict[str, Any]]:
        """What Serve's REST API says about each application."""
        response = httpx.get(f"{self.dashboard_url}/api/serve/applications/", timeout=30)
        response.raise_for_status()
        found: dict[str, dict[str, Any]] = response.json()["applications"]
        return found

    def wait_running(self, *names: str, seconds: float = 120) -> None:
        """Waits until all named applications are RUNNING; fails early, with its message, on a failed one."""

        def running() -> bool:
            known = self.applications()
            for name in names:
                assert known.get(name, {}).get("status") != "DEPLOY_FAILED", why_failed(known[name])
            return all(known.get(name, {}).get("status") == "RUNNING" for name in names)

        wait_until(running, seconds, f"RUNNING: {', '.join(names)}")


def why_failed(application: Mapping[str, Any]) -> str:
    """The messages Serve keeps for an application, its deployments' tracebacks included."""
    deployments = application.get("deployments", {}).values()
    return "\n".join([application["message"], *(deployment["message"] for deployment in deployments)])


def cluster_environment(hf_home: Path, root: Path) -> dict[str, str]:
    """What the raylets, and through them the replicas, find in their environment."""
    return {
        "HF_HOME": str(hf_home),
        # a closed port: whoever tries the Hub although the model is in the cache fails at once
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "NDIF_FAKE_GPUS": "1",
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "disabled",
        "RAY_TMPDIR": str(root),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_health_check_initial_delay_ms": "1000",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "5000",
        "RAY_health_check_failure_threshold": "3",
    }


@contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables, and puts back what stood there."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def running_ray_cluster() -> Iterator[RayCluster]:
    """Starts head and workers on free ports and stops exactly these when left."""
    from ray.cluster_utils import Cluster

    # Ray's socket paths allow about 41 characters here, so pytest's tmp_path is too long
    root = Path(tempfile.mkdtemp(prefix="ndif-", dir="/tmp"))
    hf_home = root / "hf"
    write_tiny_model(hf_home)
    (root / "ray").mkdir()
    dashboard_port = free_port()
    with environment(cluster_environment(hf_home, root)):
        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 4,
                "memory": 64 * GIB,
                "labels": {NODE_LABEL: HEAD_NAME},
                "include_dashboard": True,
                "dashboard_host": "127.0.0.1",
                "dashboard_port": dashboard_port,
                "temp_dir": str(root / "ray"),
            },
        )
        try:
            running = RayCluster(
                cluster=cluster,
                address=cluster.address,
                dashboard_url=f"http://127.0.0.1:{dashboard_port}",
                serve_port=free_port(),
                hf_home=hf_home,
                nodes={HEAD_NAME: cluster.head_node},
            )
            for name, gpus in WORKERS.items():
                running.start_node(name, num_gpus=gpus)
            wait_until(lambda: _answers(running.dashboard_url), 60, "the dashboard answers")
            yield running
        finally:
            cluster.shutdown()
            shutil.rmtree(root, ignore_errors=True)


def _answers(dashboard_url: str) -> bool:
    try:
        return httpx.get(f"{dashboard_url}/api/version", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
