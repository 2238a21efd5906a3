"""Ray's dashboard on loopback, as far as the product uses it: Serve's REST API, and the state API.

    with fake_ray(clock) as ray:
        ray.add_node("gpu-a", gpus=2, gpu_gib=80)
        ...                                   # a `Dashboard` on ray.url
        ray.statuses()                        # {"ndif-gateway": "RUNNING", …}

Time is the clock's: it is looked at when a request comes, and what was due until then has happened. What is
weaker than Ray: proxies, routes and requests do not exist, a deleted replica always stops in the same time,
a fraction of a GPU is not tied to one device, and an application whose node has died is DEPLOYING at once.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from serve_apps.contract import GPU_MEMORY_LABEL, NODE_LABEL
from tests.simulation.fake_serve import Application, Invalid, Json, Needs, Replica, Room, Serve

GIB = 1024**3
APPLICATIONS = "/api/serve/applications/"


class FakeRay:
    """A cluster of one's own. Every table may be changed at any time by the methods here.

    ``down`` answers every request with 503. ``left_over`` are GPUs of nodes whose memory is in use though
    nobody has them. ``puts`` are the configurations taken so far, with when.
    """

    def __init__(self, clock: Callable[[], datetime], **durations: float) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._nodes: dict[str, Json] = {}
        self.rooms: dict[str, Room] = {}
        self.serve = Serve(self.rooms, **durations)
        self.started = False
        self.down = False
        self.left_over: dict[str, int] = {}
        self.puts: list[tuple[datetime, Json]] = []
        self._http = _Server(self)
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, name="fake-ray", daemon=True
        )

    @property
    def url(self) -> str:
        """Base URL, without a trailing slash."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    # --- the hands of a test -----------------------------------------------------------------------------

    def add_node(self, name: str, gpus: int = 0, gpu_gib: float = 80, memory_gib: float = 64) -> None:
        """A raylet with our label joins, or comes back."""
        labels = {NODE_LABEL: name, "ray.io/node-id": _node_id(name)}
        if gpus:
            labels[GPU_MEMORY_LABEL] = str(int(gpu_gib * 1024))
        resources = {"CPU": 4.0, "memory": memory_gib * GIB, "object_store_memory": 1e8}
        with self._lock:
            self.rooms[name] = Room(gpus, int(memory_gib * GIB))
            self._nodes[name] = {
                "node_id": _node_id(name),
                "state": "ALIVE",
                "is_head_node": len(self._nodes) == 0,
                "resources_total": resources | ({"GPU": float(gpus)} if gpus else {}),
                "labels": labels,
                "start_time_ms": int(self._clock().timestamp() * 1000),
            }
            self.serve.settle(self._clock())

    def kill_node(self, name: str) -> None:
        """A raylet dies; it stays listed, as DEAD, with its resources."""
        with self._lock:
            self.serve.lose_node(name, self._clock())
            self.rooms[name].alive = False
            self._nodes[name]["state"] = "DEAD"

    def run_in_code(self, name: str, needs: Needs, route_prefix: str | None = None) -> None:
        """Somebody calls ``serve.run``."""
        with self._lock:
            self.started = True
            self.serve.run_in_code(name, needs, self._clock(), route_prefix)

    def statuses(self) -> dict[str, str]:
        """Every application and how it is, now."""
        with self._lock:
            self.serve.settle(self._clock())
            return {name: app.status for name, app in self.serve.apps.items()}

    # --- the wire ------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        """Status, and JSON or text."""
        with self._lock:
            now = self._clock()
            if self.down:
                return 503, "Failed to get a response from the controller."
            if path == APPLICATIONS and method == "PUT":
                return self._put(body, now)
            self.serve.settle(now)
            if path == APPLICATIONS and method == "GET":
                return 200, self._details()
            if method == "GET" and path == "/api/v0/nodes":
                return 200, _listed(list(self._nodes.values()))
            if method == "GET" and path == "/nodes":
                return 200, {"result": True, "msg": "", "data": {"summary": self._summary()}}
            if method == "GET" and path == "/api/v0/actors":
                return 200, _listed(self._actors())
            return 404, "404: Not Found"

    def _put(self, body: bytes, now: datetime) -> tuple[int, object]:
        try:
            config = json.loads(body)
            self.serve.put(config, now)
        except ValueError as error:
            return 500, str(error)
        except Invalid as error:
            return 400, str(error)
        self.started = True
        self.puts.append((now, config))
        return 200, ""

    def _details(self) -> Json:
        empty: Json = {"controller_info": {}, "proxies": {}, "applications": {}, "target_capacity": None}
        if not self.started:
            return empty
        return empty | {
            "proxy_location": "HeadOnly",
            "applications": {name: _application(app, self._nodes) for name, app in self.serve.apps.items()},
        }

    def _summary(self) -> list[Json]:
        """What the agents of the nodes see: memory of GPUs that are had, and of those in ``left_over``."""
        needed: dict[str, float] = dict.fromkeys(self.rooms, 0.0)
        for app in self.serve.apps.values():
            for one in app.held:
                needed[one.node or ""] += one.needs.num_gpus
        found = []
        for name, row in self._nodes.items():
            gpus = int(row["resources_total"].get("GPU", 0)) if row["state"] == "ALIVE" else 0
            in_use = math.ceil(needed[name]) + self.left_over.get(name, 0)
            listed = [_gpu(index, index < in_use) for index in range(gpus)]
            found.append({"raylet": {"nodeId": row["node_id"], "state": row["state"]}, "gpus": listed})
        return found

    def _actors(self) -> list[Json]:
        return [
            {
                "actor_id": f"{one.number:032x}",
                "state": "ALIVE",
                "name": f"SERVE_REPLICA::{app.name}#{one.needs.deployment}#{one.number}",
                "node_id": self._nodes[one.node]["node_id"],
                "required_resources": {"GPU": one.needs.num_gpus, "memory": float(one.needs.memory_bytes)},
            }
            for app in self.serve.apps.values()
            for one in app.held
            if one.node is not None
        ]


def _gpu(index: int, in_use: bool) -> Json:
    return {
        "index": index,
        "name": "Fake GPU",
        "uuid": f"GPU-{index}",
        "utilizationGpu": 0,
        "memoryUsed": 60_000 if in_use else 500,
        "memoryTotal": 81_920,
        "processesPids": [],
    }


def _node_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:56]


def _listed(rows: list[Json]) -> Json:
    count = len(rows)
    listing = {"total": count, "num_filtered": count, "num_after_truncation": count, "result": rows}
    return {"result": True, "msg": "", "data": {"result": listing}}


def _application(app: Application, nodes: dict[str, Json]) -> Json:
    unbuilt = app.built_at is not None or app.failed_build
    config = app.config if app.declarative and app.gone_at is None else None
    return {
        "name": app.name,
        "route_prefix": app.config.get("route_prefix"),
        "status": app.status,
        "message": app.failure if app.failed_build else "",
        "last_deployed_time_s": app.deployed_at.timestamp(),
        "deployed_app_config": config,
        "source": "declarative" if app.declarative else "imperative",
        "deployments": {} if unbuilt else _deployments(app, nodes),
    }


def _deployments(app: Application, nodes: dict[str, Json]) -> Json:
    replicas = [_replica(one, nodes) for one in app.replicas]
    listed = app.config.get("deployments") or ()
    name = app.replicas[0].needs.deployment if app.replicas else next((one["name"] for one in listed), "")
    healthy = app.status == "RUNNING"
    return {
        name: {
            "name": name,
            "status": "HEALTHY" if healthy else "UNHEALTHY" if app.failure else "UPDATING",
            "message": app.failure,
            "target_num_replicas": app.wanted_replicas,
            "replicas": replicas,
        }
    }


def _replica(one: Replica, nodes: dict[str, Json]) -> Json:
    shown: Json = {"replica_id": f"{one.number:08x}", "state": "RUNNING" if one.running else "STARTING"}
    if one.running and one.node is not None:
        shown |= {"node_id": nodes[one.node]["node_id"], "pid": 1000 + one.number}
    return shown


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, ray: FakeRay) -> None:
        self.ray = ray
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, content = self.server.ray.answer(self.command, urlsplit(self.path).path, body)
        text = isinstance(content, str)
        payload = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if text else "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_PUT = do_GET


@contextmanager
def fake_ray(clock: Callable[[], datetime], **durations: float) -> Iterator[FakeRay]:
    """A running dashboard on a free port; ``durations`` are those of `fake_serve.Serve`."""
    ray = FakeRay(clock, **durations)
    ray.start()
    try:
        yield ray
    finally:
        ray.stop()
