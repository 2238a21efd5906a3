"""Two gateways on real Ray Serve: nnsight's own client between them, and what survives their death."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import websocket

from serve_apps.contract import GatewayArgs
from serve_apps.gateway.jobs import JOBS_FILE
from tests.ray_cluster import RayCluster, wait_until
from tests.serve_apps.on_ray import (
    GATEWAY_APPLICATION,
    MODEL_ON_CPU,
    STUCK,
    gateway_application,
    model_application,
)
from tests.tiny_model import TINY_REPO_ID, model_key

pytestmark = pytest.mark.ray

SCRIPT = """
import sys
from nnsight import TransformersModel
from nnsight.modeling.huggingface import _ID_CACHE

_ID_CACHE["REPO"] = "REPO"
model = TransformersModel("REPO", task="text-generation", dispatch=True)
with model.trace("Hello"):
    local = model.model.layers[3].output.save()
for _ in range(8):
    with model.trace("Hello", remote=True):
        remote = model.model.layers[3].output.save()
    assert (local == remote).all(), "remote and local activations differ"
with model.trace("Hello", remote=True, blocking=False) as tracer:
    model.model.layers[3].output.save()
print("JOB", tracer.backend.job_id)
"""


class Gateways:
    """The two gateways, and the folder they share."""

    def __init__(self, cluster: RayCluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.client = httpx.Client(base_url=cluster.serve_url, timeout=60)

    def ask(self, query: str) -> list[Any]:
        with closing(sqlite3.connect(self.folder / JOBS_FILE)) as database:
            return database.execute(query).fetchall()

    def alive(self) -> list[int]:
        """Their process ids, once both are in the books and neither is dead."""
        pids = [pid for (pid,) in self.ask("SELECT pid FROM replicas")]
        return pids if len(pids) == 2 and all(psutil.pid_exists(pid) for pid in pids) else []

    def post(self, **envelope: Any) -> httpx.Response:
        data = json.dumps({"model_key": model_key(), "compress": False} | envelope)
        return self.client.post("/request", data={"data": data}, files={"blob": b"no block"})

    def answers(self) -> bool:
        with suppress(httpx.TransportError):
            return self.client.get("/healthz").status_code == 200
        return False


@pytest.fixture(scope="module")
def gateways(ray_cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    folder = tmp_path_factory.mktemp("gateway")
    application = gateway_application()
    application["args"] = GatewayArgs(state_dir=str(folder)).model_dump(mode="json")
    application["deployments"][0]["num_replicas"] = 2
    ray_cluster.put(
        [application, model_application(MODEL_ON_CPU, "cpu-0", 0), model_application(STUCK, "nowhere", 1)]
    )
    ray_cluster.wait_running(GATEWAY_APPLICATION, MODEL_ON_CPU)
    found = Gateways(ray_cluster, folder)
    wait_until(lambda: found.answers() and found.alive(), 30, "both gateways are at work")
    yield found
    found.client.close()
    ray_cluster.put([])


@pytest.fixture(scope="module")
def polled(gateways: Gateways, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of a job that nnsight's client sent without waiting, after eight it waited for."""
    script = tmp_path_factory.mktemp("script") / "experiment.py"
    script.write_text(SCRIPT.replace("REPO", TINY_REPO_ID))
    environment = os.environ | {
        "NDIF_HOST": gateways.cluster.serve_url,
        "HF_HOME": str(gateways.cluster.hf_home),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.rpartition("JOB ")[2].strip()


def test_nnsights_own_client_works_whichever_gateway_it_meets(gateways: Gateways, polled: str) -> None:
    (ended,) = gateways.ask("SELECT count(*) FROM jobs WHERE status = 'COMPLETED' AND session IS NOT NULL")
    assert ended == (8,)


def test_a_websocket_on_one_and_its_job_on_the_other(gateways: Gateways) -> None:
    address = gateways.cluster.serve_url.replace("http", "ws") + "/subscribe"
    line = websocket.create_connection(address, timeout=30)
    session = json.loads(line.recv())["session_id"]
    ((here,),) = gateways.ask(f"SELECT replica FROM sessions WHERE id = '{session}'")
    ran: set[str] = set()
    # whoever takes a job in mostly runs it; the proxy chooses that one by chance
    for _ in range(40):
        job_id = gateways.post(session_id=session).json()["id"]
        while (told := json.loads(line.recv()))["status"] != "ERROR":
            assert told["id"] == job_id
        ran |= {replica for (replica,) in gateways.ask(f"SELECT replica FROM jobs WHERE id = '{job_id}'")}
        if ran - {here}:
            break
    assert ran - {here}, "the other gateway never ran a job"
    line.close()


def test_jobs_and_results_survive_the_death_of_both(gateways: Gateways, polled: str) -> None:
    def status(job_id: str) -> Any:
        return gateways.client.get(f"/response/{job_id}").json()

    link = wait_until(lambda: status(polled).get("data"), 30, "the job has a result")
    result = gateways.client.get(link).content
    waiting = gateways.post(model_key=model_key("ndif-test/stuck")).json()["id"]
    before = gateways.alive()
    for pid in before:
        psutil.Process(pid).kill()

    def others() -> bool:
        return gateways.answers() and bool(gateways.alive()) and not set(gateways.alive()) & set(before)

    wait_until(others, 90, "Serve has started two others")
    again = status(polled)
    assert again["status"] == "COMPLETED"
    assert gateways.client.get(again["data"]).content == gateways.client.get(link).content == result
    assert status(waiting)["status"] in ("PROVISIONING", "DEPLOYING")
    assert gateways.client.delete(f"/jobs/{waiting}").status_code == 202
