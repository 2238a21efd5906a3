"""What the gateway and a shared model cost and give, beside the same work without them.

    python -m benchmarks.gateway [--hub FOLDER] [--write]

Starts a Ray cluster of its own on this machine with the gateway, the tiny model, the demo model and one that
computes nothing. Rows that are compared take turns in one run, so that whatever slows the machine down slows
both. ``--hub`` is a Hugging Face cache that has the demo model; without it the demo model is fetched.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks.gateway_clients import PROMPTS, TOKENS
from serve_apps.contract import GATEWAY_APPLICATION, MODEL_APPLICATION_PREFIX, MODEL_DEPLOYMENT, Route
from serve_apps.messages import GenerationRequest
from serve_apps.providers.demo_model import DEMO_DTYPE, DEMO_REPO_ID, prepare_demo_model
from tests.ray_cluster import RayCluster, running_ray_cluster, wait_until
from tests.serve_apps.on_ray import MODEL_ON_CPU, gateway_application, model_application
from tests.tiny_model import model_key

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "benchmarks-gateway.md"
NOOP = f"{MODEL_APPLICATION_PREFIX}noop--cpu-0"
DEMO = f"{MODEL_APPLICATION_PREFIX}demo--cpu-0"
CALLS = 300
CLIENTS = 32
FLOOD_SECONDS = 8.0
STREAMS = (1, 4, 16)

Found = dict[str, Any]


@contextmanager
def served(hub: Path | None) -> Iterator[RayCluster]:
    """A cluster on which everything that is measured is up."""
    # the workers import the model that computes nothing from here
    os.environ["PYTHONPATH"] = str(ROOT)
    with running_ray_cluster() as cluster:
        own = cluster.hf_home / "hub"
        if hub is None:
            prepare_demo_model(own, lambda step, done: None)
        else:
            name = f"models--{DEMO_REPO_ID.replace('/', '--')}"
            (own / name).symlink_to((hub / name).resolve())
        demo = model_application(DEMO, "cpu-0", 0)
        demo["args"] |= {"repo_id": DEMO_REPO_ID, "model_key": model_key(DEMO_REPO_ID), "dtype": DEMO_DTYPE}
        noop = {
            "name": NOOP,
            "route_prefix": "/noop",
            "import_path": "benchmarks.noop_model:build",
            "deployments": [{"name": MODEL_DEPLOYMENT}],
        }
        gateway = gateway_application()
        gateway["deployments"][0]["user_config"]["routes"] += [
            Route(model_key=model_key(name), names=(name,), applications=(application,)).model_dump(
                mode="json"
            )
            for name, application in (("noop", NOOP), (DEMO_REPO_ID, DEMO))
        ]
        cluster.put([gateway, model_application(MODEL_ON_CPU, "cpu-0", 0), demo, noop])
        cluster.wait_running(GATEWAY_APPLICATION, MODEL_ON_CPU, DEMO, NOOP, seconds=300)
        healthy = f"{cluster.serve_url}/healthz"
        wait_until(lambda: httpx.get(healthy).status_code == 200, 30, "the gateway answers")
        yield cluster


def spread(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50": statistics.median(seconds), "p99": cuts[98]}


def latencies(cluster: RayCluster) -> Found:
    """One call by each way in turn: the application by handle, an application by HTTP, the gateway."""
    import ray
    from ray import serve

    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    handle = serve.get_deployment_handle(MODEL_DEPLOYMENT, NOOP)
    request = GenerationRequest(prompt="Hello", max_tokens=3)
    body = {"model": "noop", "prompt": "Hello", "max_tokens": 3}
    with httpx.Client(base_url=cluster.serve_url, timeout=60) as client:
        ways: dict[str, Callable[[], Any]] = {
            "handle": lambda: handle.complete.remote(request).result(timeout_s=60),
            "http": lambda: client.post("/noop", json=body).raise_for_status(),
            "gateway": lambda: client.post("/v1/completions", json=body).raise_for_status(),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(CALLS + 20):
            for name, call in ways.items():
                began = time.perf_counter()
                call()
                if number >= 20:
                    times[name].append(time.perf_counter() - began)
    ray.shutdown()
    return {name: spread(taken) for name, taken in times.items()}


async def flood(cluster: RayCluster, path: str, model: str) -> float:
    """Requests a second of clients that each send the next one as soon as the last is answered."""
    ends_at, answered = time.monotonic() + FLOOD_SECONDS, 0
    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=cluster.serve_url, timeout=60, limits=limits) as client:

        async def one() -> None:
            nonlocal answered
            while time.monotonic() < ends_at:
                body = {"model": model, "prompt": "Hello", "max_tokens": 3}
                (await client.post(path, json=body)).raise_for_status()
                answered += 1

        await asyncio.gather(*(one() for _ in range(CLIENTS)))
    return answered / FLOOD_SECONDS


async def streams(cluster: RayCluster, count: int) -> Found:
    """Time to first token and tokens a second of ``count`` streams that begin at once."""
    first: list[float] = []
    tokens = 0

    async def one(client: httpx.AsyncClient, prompt: str) -> None:
        nonlocal tokens
        body = {
            "model": DEMO_REPO_ID,
            "prompt": prompt,
            "max_tokens": TOKENS,
            "temperature": 0,
            # the end of the text is as unlikely here as in the bare process, which rules it out
            "logit_bias": {"2": -100, "0": -100},
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        began = time.perf_counter()
        async with client.stream("POST", "/v1/completions", json=body) as response:
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line.removeprefix("data: "))
                if event["choices"] and len(first) < count and event["choices"][0]["text"]:
                    first.append(time.perf_counter() - began)
                if event.get("usage"):
                    tokens += event["usage"]["completion_tokens"]

    async with httpx.AsyncClient(base_url=cluster.serve_url, timeout=600) as client:
        began = time.perf_counter()
        await asyncio.gather(*(one(client, prompt) for prompt in PROMPTS[:count]))
        seconds = time.perf_counter() - began
    return {"first": statistics.median(first), "last": max(first), "rate": tokens / seconds}


def part(cluster: RayCluster, *arguments: str) -> Found:
    """One part in a process of its own, on the cluster's cache."""
    environment = {
        **os.environ,
        "NDIF_HOST": cluster.serve_url,
        "HF_HOME": str(cluster.hf_home),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": arguments[1] if arguments[0] == "bare" else "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gateway_clients", *arguments],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{arguments[0]}: {done.stderr[-2000:]}")
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(hub: Path | None, say: Callable[[str], None]) -> Found:
    found: Found = {}
    with served(hub) as cluster:
        say("everything is up")
        found["latency"] = latencies(cluster)
        found["flood"] = {
            "http": asyncio.run(flood(cluster, "/noop", "noop")),
            "gateway": asyncio.run(flood(cluster, "/v1/completions", "noop")),
        }
        say("latencies and rates are measured")
        found["nnsight"] = part(cluster, "nnsight")
        found["transfer"] = part(cluster, "transfer")
        say("nnsight is measured")
        asyncio.run(streams(cluster, 1))
        found["streams"] = {count: asyncio.run(streams(cluster, count)) for count in STREAMS}
        found["bare 1"] = part(cluster, "bare", "1")
        again = {count: asyncio.run(streams(cluster, count)) for count in STREAMS}
        for count in STREAMS:
            # of two rounds, one before and one after the bare process, the better
            found["streams"][count] = max(found["streams"][count], again[count], key=lambda row: row["rate"])
        found["bare 2"] = part(cluster, "bare", "2")
    found["load"] = os.getloadavg()[1]
    return found


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def care(load: float) -> list[str]:
    """What to mind where the machine had other work: absolute times are not worth much then."""
    cores = os.cpu_count() or 1
    if load < 2 * cores:
        return []
    text = (
        f"Taken beside other work: {load:.0f} processes wanted {cores} cores. Compare rows, not times; and"
        " mind that Ray's workers run at a lower priority than the bare processes do."
    )
    return [text, ""]


def page(found: Found) -> str:
    """The page of figures, in Markdown."""
    latency, flood_, nn, rows = found["latency"], found["flood"], found["nnsight"], found["streams"]
    added = {cut: latency["gateway"][cut] - latency["handle"][cut] for cut in ("p50", "p99")}
    lines = [
        "# Benchmarks of the gateway and of shared models",
        "",
        f"`python -m benchmarks.gateway --write`, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores"
        f" ({platform.machine()}), no GPU, one thread in each replica; load of the machine at the end"
        f" {found['load']:.1f}. Serve's default proxy.",
        "",
        *care(found["load"]),
        "## A completion of a model that computes nothing",
        "",
        "| | p50 | p99 | requests/s, 32 clients |",
        "|---|---|---|---|",
        f"| its application by handle | {milliseconds(latency['handle']['p50'])}"
        f" | {milliseconds(latency['handle']['p99'])} | |",
        f"| an application of Serve by HTTP | {milliseconds(latency['http']['p50'])}"
        f" | {milliseconds(latency['http']['p99'])} | {flood_['http']:.0f} |",
        f"| through the gateway | {milliseconds(latency['gateway']['p50'])}"
        f" | {milliseconds(latency['gateway']['p99'])} | {flood_['gateway']:.0f} |",
        f"| **added to the handle** (target: p50 under 10 ms) | {milliseconds(added['p50'])}"
        f" | {milliseconds(added['p99'])} | |",
        "",
        f"## Streams of {DEMO_REPO_ID}, {TOKENS} tokens each, {DEMO_DTYPE}",
        "",
        "Bare rows: transformers in a process of its own. A fixed batch has all its texts from the start and"
        " shows none before the end; its own continuous batching is what was weighed against ours.",
        "",
        "| tokens/s | 1 | 4 | 16 |",
        "|---|---|---|---|",
        "| through the gateway | " + " | ".join(f"{rows[count]['rate']:.1f}" for count in STREAMS) + " |",
    ]
    for threads in (1, 2):
        bare = found[f"bare {threads}"]
        for kind, words in (("batch", "generate, fixed batch"), ("continuous", "generate_batch")):
            cells = " | ".join(f"{bare[f'{kind} {count}']:.1f}" for count in STREAMS)
            lines.append(f"| bare {words}, {threads} thread{'s' * (threads > 1)} | {cells} |")
    lines += [
        "",
        "| first token through the gateway | 1 | 4 | 16 |",
        "|---|---|---|---|",
        *(
            f"| {words} | " + " | ".join(f"{rows[count][key]:.2f} s" for count in STREAMS) + " |"
            for key, words in (("first", "median of the streams"), ("last", "last of the streams"))
        ),
        "",
        f"Bare `generate` to its first token: {found['bare 1']['first token']:.2f} s. "
        f"16 streams give {rows[16]['rate'] / rows[1]['rate']:.1f} times the tokens of one (target: 3).",
        "",
        "## nnsight's client on the tiny model",
        "",
        "| | median |",
        "|---|---|",
        f"| trace here | {milliseconds(nn['local'])} |",
        f"| trace with `remote=True` | {milliseconds(nn['remote'])} (p90 {milliseconds(nn['remote p90'])}) |",
        f"| of it, the client building its HTTP client | {milliseconds(nn['building'])} |",
        f"| **added** beyond that (target: under 60 ms)"
        f" | {milliseconds(nn['remote'] - nn['local'] - nn['building'])} |",
        f"| a block that carries 100 MB there (best of 3) | {found['transfer']['up']:.1f} s |",
        f"| a result of 200 MB back (best of 3) | {found['transfer']['down']:.1f} s |",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hub", type=Path, help="a Hugging Face cache with the demo model")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    args = parser.parse_args()
    found = measure(args.hub, lambda text: print(text, file=sys.stderr, flush=True))  # noqa: T201
    text = page(found)
    sys.stdout.write(text)
    if args.write:
        PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
