"""The chain on real Ray Serve: declared over REST as in production, used over HTTP as clients do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from scheduler.settings import ROOT
from serve_apps.snippets import curl_snippet, nnsight_snippet
from tests.ray_cluster import RayCluster, wait_until
from tests.serve_apps.on_ray import (
    GATEWAY_APPLICATION,
    MODEL_ON_CPU,
    MODEL_ON_GPU,
    STUCK,
    UNTIL,
    gateway_application,
    model_application,
)
from tests.tiny_model import TINY_CONTEXT, TINY_REPO_ID

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def gateway(ray_cluster: RayCluster) -> Iterator[httpx.Client]:
    ray_cluster.put(
        [
            gateway_application(),
            model_application(MODEL_ON_CPU, "cpu-0", 0),
            model_application(MODEL_ON_GPU, "gpu-b", 0.5),
            model_application(STUCK, "nowhere", 1),
        ]
    )
    ray_cluster.wait_running(GATEWAY_APPLICATION, MODEL_ON_CPU, MODEL_ON_GPU)
    with httpx.Client(base_url=ray_cluster.serve_url, timeout=60) as client:
        wait_until(lambda: client.get("/healthz").status_code == 200, 20, "the gateway answers")
        yield client
    ray_cluster.put([])


def complete(gateway: httpx.Client, **body: Any) -> httpx.Response:
    return gateway.post("/v1/completions", json={"model": "tiny", "prompt": "Hello", **body})


def test_lists_what_serves_and_what_is_booked(gateway: httpx.Client) -> None:
    listed = {item["id"]: item for item in gateway.get("/v1/models").json()["data"]}
    assert listed[TINY_REPO_ID]["state"] == "serving"
    assert datetime.fromisoformat(listed[TINY_REPO_ID]["until"]) == UNTIL
    assert listed["ndif-test/stuck"]["state"] == "loading"
    assert listed["ndif-test/later"]["state"] == "booked"


def test_a_completion_comes_back_with_its_counts(gateway: httpx.Client) -> None:
    answer = complete(gateway, max_tokens=5, temperature=0).json()
    assert answer["model"] == TINY_REPO_ID
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
    assert answer["choices"][0]["finish_reason"] == "length"
    # both applications serve the same weights; whoever's turn it is says the same
    again = complete(gateway, max_tokens=5, temperature=0).json()
    assert again["choices"] == answer["choices"]


def test_chat_streams(gateway: httpx.Client) -> None:
    body = {
        "model": TINY_REPO_ID.upper(),
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 4,
        "seed": 1,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    with gateway.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert events[-1]["usage"]["completion_tokens"] == 4


def test_a_prompt_over_the_context_is_a_400(gateway: httpx.Client) -> None:
    response = complete(gateway, prompt="x" * (TINY_CONTEXT + 1))
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


def test_an_unknown_model_is_a_404_that_says_what_is_there(gateway: httpx.Client) -> None:
    response = complete(gateway, model="gpt-9")
    assert response.status_code == 404
    message = response.json()["error"]["message"]
    assert TINY_REPO_ID in message and "ndif-test/later" in message


@pytest.mark.parametrize("model", ["ndif-test/stuck", "ndif-test/later"])
def test_a_model_that_is_not_up_is_a_503_at_once(gateway: httpx.Client, model: str) -> None:
    response = complete(gateway, model=model)
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert response.elapsed < timedelta(seconds=5)


def test_requests_take_turns(gateway: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: complete(gateway, max_tokens=20, seed=n), range(16)))
    assert {answer.status_code for answer in answers} == {200}


def test_a_client_that_leaves_frees_the_model(gateway: httpx.Client) -> None:
    for _ in range(4):
        body = {"model": "tiny", "prompt": "a", "max_tokens": 250, "stream": True, "temperature": 0}
        with gateway.stream("POST", "/v1/completions", json=body) as response:
            next(response.iter_lines())
    assert complete(gateway, max_tokens=1).elapsed < timedelta(seconds=5)


def test_the_openai_package_is_served(gateway: httpx.Client, ray_cluster: RayCluster) -> None:
    import openai

    client = openai.OpenAI(base_url=f"{ray_cluster.serve_url}/v1", api_key="none", max_retries=0)
    answer = client.chat.completions.create(
        model=TINY_REPO_ID, messages=[{"role": "user", "content": "hi"}], max_tokens=3
    )
    assert answer.usage.completion_tokens <= 3
    with pytest.raises(openai.NotFoundError, match="neither up nor booked"):
        client.completions.create(model="gpt-9", prompt="x")


NNSIGHT_SCRIPT = """
import sys, time
import nnsight
from nnsight import TransformersModel
from nnsight.modeling.huggingface import _ID_CACHE

_ID_CACHE["REPO"] = "REPO"
model = TransformersModel("REPO", task="text-generation", dispatch=True)

with model.trace("Hello"):
    local = model.model.layers[3].output.save()
with model.trace("Hello", remote=True):
    print("printed over there")
    remote = model.model.layers[3].output.save()
assert (local == remote).all(), "remote and local activations differ"

with model.generate("Hello", max_new_tokens=3, do_sample=False, remote=True) as tracer:
    ids = tracer.result.save()
assert ids.shape == (1, 8), ids.shape

began = time.perf_counter()
with model.trace("Hello", remote=True):
    again = model.model.layers[3].output.save()
print(f"TRACE {1000 * (time.perf_counter() - began):.0f} ms", file=sys.stderr)

try:
    with model.trace("Hello", remote=True):
        model.model.layers[99].output.save()
except Exception as error:
    assert "layers[99]" in str(error) or "IndexError" in str(error), error
else:
    raise AssertionError("no error came back")

with model.trace("Hello", remote=True, blocking=False) as tracer:
    polled = model.model.layers[3].output.save()
for _ in range(200):
    result = tracer.backend()
    if result is not None:
        break
    time.sleep(0.05)
assert (result["polled"] == local).all()
assert "REPO" in nnsight.status()
print("SAME")
"""


def test_the_stock_nnsight_client_traces_and_generates(
    gateway: httpx.Client, ray_cluster: RayCluster, tmp_path: Path
) -> None:
    script = tmp_path / "experiment.py"
    script.write_text(NNSIGHT_SCRIPT.replace("REPO", TINY_REPO_ID))
    environment = {
        **os.environ,
        "NDIF_HOST": ray_cluster.serve_url,
        "HF_HOME": str(ray_cluster.hf_home),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SAME" in done.stdout
    assert "printed over there" in done.stdout + done.stderr


def run_in_shell(command: str, folder: Path) -> str:
    """Runs a snippet as a person would paste it: from anywhere, with nothing set beforehand."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "NDIF_"))}
    done = subprocess.run(
        ["bash", "-c", command],
        env={**bare, "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def readme(cluster: RayCluster) -> str:
    """README with this cluster's address and model in place of the demo's."""
    text = (ROOT / "README.md").read_text().replace("http://127.0.0.1:8267", cluster.serve_url)
    return text.replace("HuggingFaceTB/SmolLM2-135M-Instruct", TINY_REPO_ID).replace(
        "SmolLM2-135M-Instruct", "tiny"
    )


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_readmes_curl_answers(gateway: httpx.Client, ray_cluster: RayCluster, tmp_path: Path) -> None:
    shown = readme(ray_cluster)
    command = shown[shown.index("$ curl") + 2 :].split("\n{")[0]
    answer = json.loads(run_in_shell(command, tmp_path))
    assert answer["choices"][0]["message"]["role"] == "assistant"


def test_readmes_python_answers(gateway: httpx.Client, ray_cluster: RayCluster, tmp_path: Path) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", readme(ray_cluster), re.DOTALL)
    # where there is no Hub to ask how the repo id is spelled
    offline = (
        f"import nnsight.modeling.huggingface as hub\nhub._ID_CACHE[{TINY_REPO_ID!r}] = {TINY_REPO_ID!r}\n"
    )
    script = tmp_path / "snippet.py"
    script.write_text(f"{offline}{snippet}\nprint(answer.choices[0].message.role, hidden.shape)")
    settings = f"NDIF_HOST={ray_cluster.serve_url} HF_HOME={ray_cluster.hf_home} HF_HUB_OFFLINE=1"
    said = run_in_shell(f"{settings} {sys.executable} {script}", tmp_path)
    assert "assistant torch.Size([1, " in said


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_the_curl_snippet_answers(gateway: httpx.Client, ray_cluster: RayCluster, tmp_path: Path) -> None:
    answer = json.loads(run_in_shell(curl_snippet(ray_cluster.serve_url, TINY_REPO_ID), tmp_path))
    assert answer["choices"][0]["message"]["role"] == "assistant"


def test_the_nnsight_snippet_answers(gateway: httpx.Client, ray_cluster: RayCluster, tmp_path: Path) -> None:
    snippet = nnsight_snippet(ray_cluster.serve_url, TINY_REPO_ID, str(ray_cluster.hf_home), sys.executable)
    assert "torch.Size([1, " in run_in_shell(snippet, tmp_path)
