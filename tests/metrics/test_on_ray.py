"""On real Ray: two gateways and a model, scraped from every node; the sums are right."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from scheduler.metrics.targets import metrics_targets
from scheduler.settings import Settings
from serve_apps.contract import GatewayArgs
from serve_apps.gateway.metrics import REQUESTS, SESSIONS, TOKENS
from serve_apps.model.metrics import MEMORY
from serve_apps.telemetry.influx import InfluxServer
from serve_apps.telemetry.ray_metrics import PREFIX
from tests.metrics.stand_ins import InfluxServerStandIn, LokiServer, serving
from tests.metrics.test_grafana import RAYS_OWN
from tests.ray_cluster import RayCluster, environment, running_ray_cluster, wait_until
from tests.serve_apps.on_ray import (
    GATEWAY_APPLICATION,
    MODEL_ON_CPU,
    gateway_application,
    model_application,
)
from tests.tiny_model import TINY_REPO_ID

pytestmark = pytest.mark.ray

ASKED = 12
SECONDS = 60.0
LOGGING = {"encoding": "JSON"}


@pytest.fixture(scope="module")
def loki() -> Iterator[LokiServer]:
    with serving(LokiServer()) as server:
        yield server


@pytest.fixture(scope="module")
def influx() -> Iterator[InfluxServerStandIn]:
    with serving(InfluxServerStandIn()) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(
    loki: LokiServer, influx: InfluxServerStandIn, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RayCluster]:
    """Of its own: nodes learn of Loki, and how often they export, when they start."""
    folder = tmp_path_factory.mktemp("gateway")
    InfluxServer(
        address=influx.url, org=influx.org, bucket=influx.bucket, token=SecretStr(influx.token)
    ).save(folder)
    gateway = gateway_application() | {"logging_config": LOGGING}
    gateway["args"] = GatewayArgs(state_dir=str(folder)).model_dump(mode="json")
    gateway["deployments"][0]["num_replicas"] = 2
    told = {"LOKI_URL": loki.url, "RAY_metrics_report_interval_ms": "1000"}
    with environment(told), running_ray_cluster() as running:
        running.put([gateway, model_application(MODEL_ON_CPU, "cpu-0", 0) | {"logging_config": LOGGING}])
        running.wait_running(GATEWAY_APPLICATION, MODEL_ON_CPU)
        ask(running)
        yield running


def ask(cluster: RayCluster) -> None:
    """What the tests count: completions until both gateways had one, and a model that nobody has."""
    with httpx.Client(base_url=cluster.serve_url, timeout=60) as client:
        for _ in range(ASKED):
            body = {"model": "tiny", "prompt": "Hello", "max_tokens": 3, "temperature": 0}
            answer = client.post("/v1/completions", json=body, headers={"Connection": "close"})
            assert answer.status_code == 200, answer.text
        for number in range(3):
            assert (
                client.post("/v1/completions", json={"model": f"no/{number}", "prompt": "x"}).status_code
                == 404
            )


def scraped(cluster: RayCluster) -> dict[str, list[Any]]:
    """Every sample of every node, by name, found as Prometheus finds them."""
    (group,) = metrics_targets(Settings(ray={"dashboard_url": cluster.dashboard_url}))
    assert group["labels"] == {"job": "ray"} and len(group["targets"]) >= 3
    found: dict[str, list[Any]] = {}
    for target in group["targets"]:
        text = httpx.get(f"http://{target}/metrics", timeout=30).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append(sample)
    return found


def total(found: dict[str, list[Any]], name: str, **labels: str) -> float:
    return sum(one.value for one in found.get(PREFIX + name, ()) if labels.items() <= one.labels.items())


def test_the_sum_over_two_gateways_is_what_was_asked(cluster: RayCluster) -> None:
    expected = {"answered": ASKED, "unknown": 3, "tokens": 3 * ASKED, "timed": ASKED, "gateways": 2}

    def figures(found: dict[str, list[Any]]) -> dict[str, float]:
        mine = {"model": TINY_REPO_ID, "route": "/v1/completions", "code": "200"}
        return {
            "answered": total(found, REQUESTS.name, **mine),
            "unknown": total(found, REQUESTS.name, model="unknown", code="404"),
            "tokens": total(found, TOKENS.name, model=TINY_REPO_ID, kind="completion"),
            "timed": total(found, "ndif_gateway_request_duration_seconds_count", model=TINY_REPO_ID),
            "gateways": len({one.labels["replica"] for one in found.get(PREFIX + SESSIONS.name, ())}),
        }

    def all_exported() -> dict[str, list[Any]] | None:
        now = scraped(cluster)
        there = total(now, MEMORY.name, model=TINY_REPO_ID, of="resident") > 0
        return now if there and all(figures(now)[name] >= least for name, least in expected.items()) else None

    # each process exports at its own times
    found = wait_until(all_exported, SECONDS, "every request and the memory is exported")
    assert figures(found) == expected
    assert total(found, MEMORY.name, model=TINY_REPO_ID, of="resident") > 100 * 1024**2
    assert len(found[PREFIX + MEMORY.name]) == 1


def test_a_gauge_that_is_told_again_and_again_stays(cluster: RayCluster) -> None:
    for _ in range(3):
        assert total(scraped(cluster), MEMORY.name) > 0
        wait_until(lambda: scraped(cluster), SECONDS, "another scrape")


def test_what_the_dashboards_ask_of_ray_itself_is_told_by_ray(cluster: RayCluster) -> None:
    names = RAYS_OWN.keys() - {"up"}
    wait_until(lambda: names <= scraped(cluster).keys(), SECONDS, f"all of {sorted(names)} are exported")
    found = scraped(cluster)
    for name in names:
        assert all(RAYS_OWN[name] <= set(one.labels) for one in found[name])


def test_every_request_is_a_point_in_influxdb_written_by_the_gateways(
    cluster: RayCluster, influx: InfluxServerStandIn
) -> None:
    written: list[Any] = []
    while sum(one.tags["model"] == TINY_REPO_ID for one in written) < ASKED:
        written += influx.take()
    assert influx.refused == []
    assert {one.measurement for one in written} == {"request"}
    assert all(one.fields["completion_tokens"] == 3 for one in written if one.tags["code"] == "200")


def test_replicas_ship_their_logs_with_the_fields_of_their_files(
    cluster: RayCluster, loki: LokiServer
) -> None:
    seen: dict[str, set[str]] = {}
    while not {"gateway", "model"} <= set(seen) or not any("loaded" in text for text in seen["model"]):
        for stream in loki.take():
            labels = stream["stream"]
            assert set(labels) == {"service", "component", "level", "node"} and labels["node"] == "cpu-0"
            for _, line in stream["values"]:
                fields = json.loads(line)
                assert {"asctime", "levelname", "message", "replica", "deployment"} <= set(fields)
                seen.setdefault(labels["component"], set()).add(fields["message"])
    assert loki.refused == []
    assert not any(" 200 " in text for texts in seen.values() for text in texts)
    folder = cluster.hf_home.parent / "ray" / "session_latest" / "logs" / "serve"
    files = [path for path in Path(folder).glob("replica_*.log") if path.stat().st_size]
    assert len(files) == 3
    for path in files:
        fields = json.loads(path.read_text().splitlines()[-1])
        assert {"asctime", "levelname", "message", "replica", "deployment"} <= set(fields)


def test_no_application_shows_the_token(cluster: RayCluster, influx: InfluxServerStandIn) -> None:
    shown = json.dumps(cluster.applications())
    assert influx.token not in shown and os.sep in shown
