"""The end of a booking on Ray: what runs may finish, what is new is refused, then the model goes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.faults.bench import Bench
from tests.ray_cluster import wait_until
from tests.tiny_model import TINY_REPO_ID

pytestmark = pytest.mark.ray

BLOCK = """
import sys, time
from types import SimpleNamespace
import huggingface_hub
from nnsight import TransformersModel

# the Hub is asked how a repo id is spelled, and cannot be reached here
huggingface_hub.HfApi.model_info = lambda self, repo_id, **_: SimpleNamespace(id=repo_id)
model = TransformersModel(sys.argv[1], task="text-generation")
seconds = float(sys.argv[2])
with model.trace("the cat", remote=True):
    print("BEGUN")
    time.sleep(seconds)
    out = model.lm_head.output.save()
print("SHAPE", tuple(out.shape))
"""
DRAIN_SECONDS = 25.0


@contextmanager
def running_block(bench: Bench, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """A traced block of nnsight's client that takes so long, and has begun."""
    environment = os.environ | {
        "NDIF_HOST": bench.cluster.serve_url,
        "HF_HOME": str(bench.cluster.hf_home),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    script = bench.folder / "block.py"
    script.write_text(BLOCK)
    process = subprocess.Popen(
        [sys.executable, str(script), TINY_REPO_ID, str(seconds)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    heard = []
    try:
        for line in process.stdout:
            heard.append(line)
            if "BEGUN" in line:
                break
        else:
            raise AssertionError("".join(heard))
        yield process
    finally:
        process.kill()
        process.wait()


def ask(bench: Bench, seconds: float = 30.0) -> httpx.Response:
    body = {"model": TINY_REPO_ID, "prompt": "the cat", "max_tokens": 2}
    return httpx.post(f"{bench.cluster.serve_url}/v1/completions", json=body, timeout=seconds)


def is_refused(bench: Bench) -> bool:
    """Whether the model is not there for anybody any more; while a block runs, others wait for their turn."""
    try:
        return ask(bench, 1.0).status_code == 404
    except httpx.ReadTimeout:
        return False


@pytest.fixture(scope="module")
def serving(bench: Bench) -> Iterator[Bench]:
    bench.book()
    with bench.daemon("a", NDIF_SERVE__DRAIN_SECONDS=str(DRAIN_SECONDS)):
        bench.until_serves(120)
        yield bench


def test_what_runs_at_the_end_finishes_and_what_is_new_is_refused(serving: Bench) -> None:
    assert "x-ndif-ends-at" not in ask(serving).headers
    serving.book(seconds=300)
    end = datetime.now(UTC) + timedelta(seconds=300)
    told = wait_until(lambda: ask(serving).headers.get("x-ndif-ends-at"), 20, "the end is told")
    assert abs(datetime.fromisoformat(told) - end) < timedelta(seconds=2)
    with running_block(serving, 14.0) as block:
        end = datetime.now(UTC) + timedelta(seconds=5)
        serving.book(seconds=5)
        wait_until(lambda: is_refused(serving), 20, "nothing new is taken", every=0.05)
        late = (datetime.now(UTC) - end).total_seconds()
        serving.measured["end: refused after it by"] = late
        assert -1 <= late < 5
        message = ask(serving).json()["error"]["message"]
        assert "neither up nor booked" in message
        assert "book it" in message
        assert block.poll() is None
        assert [app["status"] for app in serving.ours().values()] == ["DELETING"]
        said, _ = block.communicate(timeout=60)
        assert "SHAPE (1, " in said, said
    since = time.monotonic()
    wait_until(lambda: not serving.ours(), 30, "the model is gone")
    serving.measure("end: gone after the last answer", since, 15)


def test_what_takes_longer_than_the_grace_is_ended_and_told(serving: Bench) -> None:
    serving.book()
    serving.until_serves(120)
    with running_block(serving, 120.0) as block:
        serving.book(seconds=3)
        wait_until(lambda: is_refused(serving), 20, "nothing new is taken")
        since = time.monotonic()
        wait_until(lambda: not serving.ours(), DRAIN_SECONDS + 30, "the model is gone")
        serving.measure("end: gone in spite of what still ran", since, DRAIN_SECONDS + 15)
        assert time.monotonic() - since > DRAIN_SECONDS - 5
        said, _ = block.communicate(timeout=60)
        assert block.returncode != 0
        assert "SHAPE" not in said
        assert "The model's last booking ended" in said
