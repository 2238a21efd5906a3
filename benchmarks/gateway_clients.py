"""Parts of the gateway's benchmark that run in processes of their own; each prints one line of JSON.

python -m benchmarks.gateway_clients bare THREADS | nnsight | transfer
"""

# ruff: noqa: F841 - what a traced block assigns is saved under that name
from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from serve_apps.providers.demo_model import DEMO_REPO_ID
from tests.tiny_model import TINY_REPO_ID

PROMPTS = tuple(
    f"The {thing} of France is known all over the world, and its long history begins with"
    for thing in ("capital", "longest river", "largest castle", "oldest bridge", "finest wine", "south",
                  "highest mountain", "railway", "language", "cuisine", "coast", "king", "sea", "army",
                  "school", "music")
)  # fmt: skip
TOKENS = 48
ROUNDS = 40


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def bare(threads: int) -> dict[str, float]:
    """Tokens a second of transformers alone: one text after another, in a fixed batch, and its own
    continuous batching."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, ContinuousBatchingConfig, GenerationConfig

    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(DEMO_REPO_ID).eval()
    tokenizer = AutoTokenizer.from_pretrained(DEMO_REPO_ID, padding_side="left")
    found = {}

    def generate(count: int) -> None:
        inputs = tokenizer(list(PROMPTS[:count]), return_tensors="pt", padding=True)
        model.generate(**inputs, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)

    generate(1)
    for count in (1, 4, 16):
        found[f"batch {count}"] = count * TOKENS / timed(lambda count=count: generate(count))
    first = tokenizer(PROMPTS[0], return_tensors="pt")
    found["first token"] = timed(lambda: model.generate(**first, max_new_tokens=1, do_sample=False))
    config = GenerationConfig(max_new_tokens=TOKENS, do_sample=False, eos_token_id=-1, pad_token_id=0)
    memory = ContinuousBatchingConfig(max_memory_percent=0.1)

    def continuous(count: int) -> None:
        ids = [tokenizer(prompt).input_ids for prompt in PROMPTS[:count]]
        model.generate_batch(
            inputs=ids, generation_config=config, continuous_batching_config=memory, progress_bar=False
        )

    continuous(1)
    for count in (1, 4, 16):
        found[f"continuous {count}"] = count * TOKENS / timed(lambda count=count: continuous(count))
    return found


def tiny(**others: Any) -> Any:
    from nnsight import TransformersModel
    from nnsight.modeling.huggingface import _ID_CACHE

    _ID_CACHE[TINY_REPO_ID] = TINY_REPO_ID
    return TransformersModel(TINY_REPO_ID, task="text-generation", dispatch=True)


def nnsight() -> dict[str, float]:
    """One trace here and remote, one after the other; and what the client's own HTTP client costs it."""
    import httpx

    model = tiny()

    def trace(remote: bool) -> None:
        with model.trace("Hello", remote=remote):
            hidden = model.model.layers[3].output.save()

    for _ in range(3):
        trace(False)
        trace(True)
    rounds = [
        (timed(lambda: trace(False)), timed(lambda: trace(True)), timed(httpx.Client)) for _ in range(ROUNDS)
    ]
    local, remote, building = ([round[place] for round in rounds] for place in range(3))
    return {
        "local": statistics.median(local),
        "remote": statistics.median(remote),
        "remote p90": statistics.quantiles(remote, n=10)[-1],
        "building": statistics.median(building),
    }


def transfer() -> dict[str, float]:
    """A block that carries 100 MB there, and one that brings 200 MB back. Noise, which does not shrink."""
    import torch

    model = tiny()
    load = torch.randn(100 * 10**6 // 4)

    def up() -> None:
        with model.trace("Hello", remote=True):
            total = load.sum().save()

    def down() -> None:
        with model.trace("Hello", remote=True):
            back = torch.randn(200 * 10**6 // 4).save()

    return {"up": min(timed(up) for _ in range(3)), "down": min(timed(down) for _ in range(3))}


def main() -> None:
    part, *rest = sys.argv[1:]
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "bare": lambda: bare(int(rest[0])),
        "nnsight": nnsight,
        "transfer": transfer,
    }
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.stdout.write("\n" + json.dumps(parts[part]()) + "\n")


if __name__ == "__main__":
    main()
