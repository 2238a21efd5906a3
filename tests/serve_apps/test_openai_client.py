"""OpenAI's official client against served models: texts, chats, vectors, errors, several replicas."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from serve_apps.contract import GATEWAY_APPLICATION, MODEL_APPLICATION_PREFIX, Route
from tests.lazily import Lazily
from tests.ray_cluster import RayCluster, wait_until
from tests.serve_apps.on_ray import MODEL_ON_CPU, gateway_application, model_application
from tests.tiny_model import HIDDEN, TINY_CONTEXT, TINY_REPO_ID, model_key

openai: Any = Lazily("openai")
pytestmark = pytest.mark.ray

EMBEDDING_ON_CPU = f"{MODEL_APPLICATION_PREFIX}vectors--cpu-0"
VECTORS = Route(
    model_key=model_key(task="feature-extraction"),
    names=("ndif-test/vectors",),
    applications=(EMBEDDING_ON_CPU,),
)
HI: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def client(ray_cluster: RayCluster) -> Iterator[openai.OpenAI]:
    model = model_application(MODEL_ON_CPU, "cpu-0", 0)
    model["deployments"][0]["num_replicas"] = 2
    vectors = model_application(EMBEDDING_ON_CPU, "cpu-0", 0)
    vectors["args"] |= {"task": "feature-extraction", "model_key": VECTORS.model_key}
    gateway = gateway_application()
    gateway["deployments"][0]["user_config"]["routes"].append(VECTORS.model_dump(mode="json"))
    ray_cluster.put([gateway, model, vectors])
    ray_cluster.wait_running(GATEWAY_APPLICATION, MODEL_ON_CPU, EMBEDDING_ON_CPU)
    healthy = f"{ray_cluster.serve_url}/healthz"
    wait_until(lambda: httpx.get(healthy).status_code == 200, 20, "the gateway answers")
    with openai.OpenAI(
        base_url=f"{ray_cluster.serve_url}/v1", api_key="none", max_retries=0, timeout=60
    ) as client:
        yield client
    ray_cluster.put([])


def complete(client: openai.OpenAI, **fields: Any) -> Any:
    return client.completions.create(
        **{"model": "tiny", "prompt": "Hello", "max_tokens": 6, "temperature": 0, **fields}
    )


def test_completions_in_all_their_forms(client: openai.OpenAI) -> None:
    one = complete(client)
    assert (one.usage.prompt_tokens, one.usage.completion_tokens) == (5, 6)
    assert one.choices[0].finish_reason == "length" and one.choices[0].logprobs is None
    several = complete(client, prompt=["Hello", "Other"], n=2, temperature=1, seed=1)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert several.usage.prompt_tokens == 10
    assert complete(client, prompt=["Hello", "Other"], n=2, temperature=1, seed=1).choices == several.choices
    assert several.choices[0].text != several.choices[1].text
    stopped = complete(client, stop=[one.choices[0].text[3:5]])
    assert stopped.choices[0].finish_reason == "stop"
    assert one.choices[0].text.startswith(stopped.choices[0].text)


def test_log_probabilities_add_up(client: openai.OpenAI) -> None:
    told = complete(client, logprobs=2).choices[0].logprobs
    assert len(told.tokens) == len(told.token_logprobs) == len(told.text_offset) == 6
    # greedy: each token is the likeliest
    for logprob, top in zip(told.token_logprobs, told.top_logprobs, strict=True):
        assert logprob == pytest.approx(max(top.values()))
    chat = client.chat.completions.create(
        model="tiny", messages=HI, max_tokens=3, temperature=0, logprobs=True, top_logprobs=3
    )
    content = chat.choices[0].logprobs.content
    assert content and all(len(token.top_logprobs) == 3 for token in content)


def test_bias_and_penalties_change_what_is_said(client: openai.OpenAI) -> None:
    plain = complete(client, max_tokens=1, logprobs=1).choices[0]
    letter = 4 + 30
    biased = complete(client, max_tokens=3, logit_bias={str(letter): 100}).choices[0].text
    assert len(set(biased)) == 1 and biased[0] != plain.text
    penalised = complete(
        client, max_tokens=3, logit_bias={str(letter): 50}, frequency_penalty=2, presence_penalty=2
    )
    assert penalised.choices[0].text[0] == biased[0]


def test_streams_carry_their_usage(client: openai.OpenAI) -> None:
    options = {"include_usage": True}
    pieces = list(complete(client, stream=True, stream_options=options, n=2))
    assert pieces[-1].usage.completion_tokens == 12 and not pieces[-1].choices
    assert all(piece.usage is None for piece in pieces[:-1])
    whole = complete(client).choices[0].text
    for index in (0, 1):
        said = [piece.choices[0].text for piece in pieces[:-1] if piece.choices[0].index == index]
        assert "".join(said) == whole
    chat = list(client.chat.completions.create(model="tiny", messages=HI, max_tokens=4, stream=True))
    assert chat[0].choices[0].delta.role == "assistant"
    assert [piece.choices[0].finish_reason for piece in chat][-1] in ("stop", "length")


def test_vectors(client: openai.OpenAI) -> None:
    texts = ["Hello", "Hello there", "x" * 200, "Hello"]
    found = client.embeddings.create(model="ndif-test/vectors", input=texts)
    vectors = [item.embedding for item in found.data]
    assert {len(vector) for vector in vectors} == {HIDDEN}
    assert all(sum(number**2 for number in vector) == pytest.approx(1, abs=1e-4) for vector in vectors)
    assert vectors[0] == pytest.approx(vectors[3], abs=1e-5) and vectors[0] != vectors[1]
    # whoever stands beside a text in the batch changes nothing
    alone = client.embeddings.create(model="ndif-test/vectors", input="Hello", encoding_format="float")
    assert alone.data[0].embedding == pytest.approx(vectors[0], abs=1e-4)
    assert found.usage.prompt_tokens == 5 + 11 + 200 + 5


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda c: complete(c, model="gpt-9"), "NotFoundError", "neither up nor booked"),
        (lambda c: complete(c, prompt="x" * 300), "BadRequestError", "context holds 256"),
        (lambda c: complete(c, prompt="x" * 900_000), "BadRequestError", "context holds 256"),
        (lambda c: complete(c, max_tokens=TINY_CONTEXT), "BadRequestError", "context holds 256"),
        (lambda c: complete(c, stop=["x"] * 100_000), "BadRequestError", "stop"),
        (lambda c: complete(c, prompt=["x"] * 100, n=2), "BadRequestError", "128"),
        (lambda c: complete(c, logit_bias={"99999": 1}), "BadRequestError", "token id"),
        (lambda c: complete(c, model="ndif-test/vectors"), "BadRequestError", "does not generate"),
        (lambda c: c.embeddings.create(model="tiny", input="x"), "BadRequestError", "no embeddings"),
        (
            lambda c: c.embeddings.create(model="ndif-test/vectors", input="x" * 300),
            "BadRequestError",
            "300 tokens",
        ),
    ],
)
def test_mistakes_come_back_as_the_clients_own_errors(
    client: openai.OpenAI, call: Any, kind: str, words: str
) -> None:
    with pytest.raises(getattr(openai, kind), match=words) as caught:
        call(client)
    assert set(caught.value.body) >= {"message", "type", "param", "code"}  # type: ignore[arg-type]


def test_a_slow_stream_holds_nobody_up(client: openai.OpenAI) -> None:
    slow = [iter(complete(client, max_tokens=250, stream=True)) for _ in range(4)]
    for stream in slow:
        next(stream)
    assert complete(client, max_tokens=2).usage.completion_tokens == 2
    for stream in slow:
        assert sum(1 for _ in stream) > 0


PIDS = """
import time
from nnsight import TransformersModel
from nnsight.modeling.huggingface import _ID_CACHE

_ID_CACHE["REPO"] = "REPO"
model = TransformersModel("REPO", task="text-generation")
tracers = []
for _ in range(8):
    with model.trace("Hello", remote=True, blocking=False) as tracer:
        import os, time
        time.sleep(0.4)
        pid = [os.getpid()].save()
    tracers.append(tracer)
pids = []
for tracer in tracers:
    while (found := tracer.backend()) is None:
        time.sleep(0.05)
    pids += found["pid"]
print("PIDS", *pids)
"""


def test_replicas_share_the_load(client: openai.OpenAI, ray_cluster: RayCluster) -> None:
    environment = {
        **os.environ,
        "NDIF_HOST": ray_cluster.serve_url,
        "HF_HOME": str(ray_cluster.hf_home),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", PIDS.replace("REPO", TINY_REPO_ID)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pids = next(line for line in done.stdout.splitlines() if line.startswith("PIDS")).split()[1:]
    assert len(set(pids)) == 2 and min(pids.count(pid) for pid in set(pids)) >= 2, pids


def test_a_replica_that_dies_in_the_middle_of_a_stream_is_one_clear_error(
    client: openai.OpenAI, ray_cluster: RayCluster
) -> None:
    def pids() -> set[int]:
        deployment = ray_cluster.applications()[MODEL_ON_CPU]["deployments"]["Model"]
        return {replica["pid"] for replica in deployment["replicas"] if replica.get("pid")}

    before = pids()
    with ThreadPoolExecutor(1) as pool:
        stream = iter(complete(client, max_tokens=250, stream=True))
        next(stream)
        rest = pool.submit(lambda: list(stream))
        for pid in before:
            os.kill(pid, 9)
        with pytest.raises(openai.APIError, match=r"died|gone away"):
            rest.result(60)
    began = time.monotonic()
    wait_until(lambda: pids() and not pids() & before, 90, "new replicas")
    ray_cluster.wait_running(MODEL_ON_CPU)
    assert complete(client, max_tokens=2).choices, time.monotonic() - began
