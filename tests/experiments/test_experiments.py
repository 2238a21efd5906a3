"""The experiments of ``docs/experiments.py``, as a researcher runs them, against a served model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from scheduler.settings import ROOT
from tests.ray_cluster import RayCluster, wait_until
from tests.serve_apps.on_ray import GATEWAY_APPLICATION, MODEL_ON_CPU, gateway_application, model_application
from tests.tiny_model import TINY_REPO_ID

pytestmark = pytest.mark.ray

SCRIPT = ROOT / "docs" / "experiments.py"
CLIENT_SCRIPT = """
from types import SimpleNamespace

import huggingface_hub
import nnsight
from nnsight import TransformersModel
from nnsight.modeling.huggingface import _ID_CACHE

# there is no Hub here to ask how a repo id is spelled
huggingface_hub.HfApi.model_info = lambda self, repo_id, **others: SimpleNamespace(id=repo_id)
_ID_CACHE["REPO"] = "REPO"
model = TransformersModel("REPO", task="text-generation")
assert "REPO" in str(nnsight.ndif_status())
assert nnsight.is_model_running("REPO")
assert not nnsight.is_model_running("ndif-test/absent")
print(nnsight.compare())

with model.trace("Hello", remote=True) as tracer:
    model.lm_head.output.save()
meta = tracer.backend.meta
assert meta["runtime"] > 0 and meta["max_memory_usage"] > 0, meta
print("ANSWERED")
"""


@pytest.fixture(scope="module")
def url(ray_cluster: RayCluster) -> Iterator[str]:
    ray_cluster.put([gateway_application(), model_application(MODEL_ON_CPU, "cpu-0", 0)])
    ray_cluster.wait_running(GATEWAY_APPLICATION, MODEL_ON_CPU)
    healthy = f"{ray_cluster.serve_url}/healthz"
    wait_until(lambda: httpx.get(healthy).status_code == 200, 20, "the gateway answers")
    yield ray_cluster.serve_url
    ray_cluster.put([])


def run(ray_cluster: RayCluster, *arguments: str) -> str:
    environment = {
        **os.environ,
        "NDIF_HOST": ray_cluster.serve_url,
        "HF_HOME": str(ray_cluster.hf_home),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_experiment_finds_the_same_here_and_there(ray_cluster: RayCluster, url: str) -> None:
    # the tiny model computes in float32 with one thread on both sides: nothing may differ
    told = run(ray_cluster, str(SCRIPT), "--url", url, "--model", TINY_REPO_ID, "--tolerance", "1e-5")
    lines = [line for line in told.splitlines() if line.startswith("same")]
    assert len(lines) == 16, told


def test_the_client_finds_out_what_there_is(ray_cluster: RayCluster, url: str) -> None:
    assert "ANSWERED" in run(ray_cluster, "-c", CLIENT_SCRIPT.replace("REPO", TINY_REPO_ID))
