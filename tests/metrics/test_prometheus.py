"""The shipped configuration and alerts, with Debian's promtool and a real Prometheus."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml

from scheduler.board import Board, CalendarView, View
from scheduler.errors import OperatorError
from scheduler.heartbeat import Heartbeat
from scheduler.metrics import document
from scheduler.metrics.targets import metrics_targets
from scheduler.metrics.telemetry import Telemetry
from scheduler.settings import ROOT, Settings
from scheduler.web.app import make_app
from scheduler.web.desk import Desk
from tests.metrics.table_of import program
from tests.ray_cluster import free_port, wait_until

FOLDER = ROOT / "compose" / "dev" / "prometheus"
DASHBOARDS = FOLDER.parent / "grafana" / "dashboards"
START_SECONDS = 60.0


def promtool(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [program("promtool"), *arguments]
    return subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, input=given, check=False)


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
        for rule in group["rules"]
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts.test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_finds_nothing_wrong(arguments: tuple[str, ...]) -> None:
    done = promtool(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_to_fire() -> None:
    tested = (FOLDER / "alerts.test.yml").read_text()
    assert [rule["alert"] for rule in rules() if rule["alert"] not in tested] == []


def test_every_alert_that_wakes_says_what_to_do() -> None:
    page = document.PAGE.read_text()
    waking = [rule["alert"] for rule in rules() if rule["labels"]["severity"] == "page"]
    assert waking and [name for name in waking if f"**{name}**" not in page] == []
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_the_names_keep_to_the_conventions() -> None:
    telemetry = Telemetry(Settings(), Board())
    done = promtool("check", "metrics", given=telemetry.exposition()[0].decode())
    telemetry.close()
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_has_every_metric_point_and_alert_and_none_besides() -> None:
    page = document.PAGE.read_text()
    assert document.filled(page) == page, "run python -m scheduler.metrics.document"
    assert {match[2] for match in document.MARKS.finditer(page)} == set(document.tables())


class RaysDashboard:
    """Answers Prometheus' question for targets as Ray's dashboard does, for who has the token."""

    def __init__(self, targets: list[str]) -> None:
        self.targets = targets

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        allowed = (b"authorization", b"Bearer the-token") in scope["headers"]
        found = scope["path"] == "/api/prometheus/sd"
        body = json.dumps([{"labels": {"job": "ray"}, "targets": self.targets}]).encode()
        status = 401 if not allowed else 200 if found else 404
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body if status == 200 else b""})


class OfANode:
    """What a node exports."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        labels = 'model="m",code="200",otel_scope_name="x",replica="r"'
        text = (
            f"# TYPE ray_ndif_gateway_requests_total counter\nray_ndif_gateway_requests_total{{{labels}}} 7\n"
        )
        text += "# TYPE ray_operation_count_total counter\nray_operation_count_total 7\n"
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
        )
        await send({"type": "http.response.body", "body": text.encode()})


@contextmanager
def listening(app: Any) -> Iterator[int]:
    """The application answers inside, at that port of 127.0.0.1."""
    port = free_port()
    config = uvicorn.Config(app, port=port, log_level="error", lifespan="auto")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, START_SECONDS, "the server listens", every=0.02)
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def prometheus(folder: Path, daemon_port: int) -> Iterator[httpx.Client]:
    """A real one with the shipped configuration, in a hurry: three times a second, and alerts at once."""
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    text = (folder / "prometheus.yml").read_text().replace("ray:8280", f"127.0.0.1:{daemon_port}")
    config = yaml.safe_load(text.replace("15s", "300ms"))
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    alerts = yaml.safe_load((folder / "alerts.yml").read_text())
    for group in alerts["groups"]:
        for rule in group["rules"]:
            rule["for"] = "0s"
    (folder / "alerts.yml").write_text(yaml.safe_dump(alerts))
    port = free_port()
    command = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ) | {"TZ": "UTC"})
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            wait_until(lambda: _ready(client), START_SECONDS, (folder / "log").read_text()[-500:])
            yield client
    finally:
        process.terminate()
        process.wait(30)


def _ready(client: httpx.Client) -> bool:
    with suppress(httpx.TransportError):
        return client.get("/-/ready").status_code == 200
    return False


def query(client: httpx.Client, expr: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/api/v1/query", params={"query": expr}).json()["data"]["result"]
    return found


def firing(client: httpx.Client) -> set[str]:
    alerts = client.get("/api/v1/alerts").json()["data"]["alerts"]
    return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}


def until(condition: Callable[[], Any], what: str) -> Any:
    return wait_until(condition, START_SECONDS, what)


def expressions(dashboard: Any) -> Iterator[str]:
    """What a dashboard asks Prometheus, with its variables filled in."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets") or ():
            if target["datasource"]["type"] == "prometheus":
                yield target["expr"].replace("$__rate_interval", "1m").replace("$model", "m")


def view(read_minutes_ago: float) -> View:
    now = datetime.now(UTC)
    beat = Heartbeat(pid=1, started=now, at=now, passes=1)
    calendar = CalendarView("lab", now - timedelta(minutes=read_minutes_ago))
    return View(beat, calendars=(calendar,), gateway=("RUNNING", ""))


def test_a_real_prometheus_scrapes_the_daemon_and_the_nodes_and_an_alert_fires(tmp_path: Path) -> None:
    program("prometheus")
    board = Board()
    board.publish(view(read_minutes_ago=0))
    (tmp_path / "ray_token").write_text("the-token")
    with listening(OfANode()) as node, listening(RaysDashboard([f"127.0.0.1:{node}"])) as dashboard:
        settings = Settings(state_dir=tmp_path, ray={"dashboard_url": f"http://127.0.0.1:{dashboard}"})
        telemetry = Telemetry(settings, board)
        telemetry.meter.passed("done", 0.0)
        app = make_app(Desk(settings, board, None), telemetry.exposition)  # type: ignore[arg-type]
        with listening(app) as daemon, prometheus(tmp_path / "prometheus", daemon) as client:
            until(lambda: query(client, 'up{job="ndif-daemon"} == 1'), "the daemon is scraped")
            (passes,) = until(lambda: query(client, 'ndif_daemon_passes_total{outcome="done"}'), "a metric")
            assert passes["value"][1] == "1"
            (requests,) = until(lambda: query(client, "ray_ndif_gateway_requests_total"), "a node is scraped")
            assert requests["value"][1] == "7"
            assert requests["metric"]["replica"] == "r" and "otel_scope_name" not in requests["metric"]
            assert query(client, "ray_operation_count_total") == []
            # what was not scraped at first was missed at once: alerts are in a hurry here
            until(lambda: not firing(client) & {"NdifDaemonDown", "NdifClusterNotScraped"}, "all is well")
            assert not {"NdifCalendarStale", "NdifDaemonNotTicking"} & firing(client)

            for path in sorted(DASHBOARDS.glob("*.json")):
                for expr in expressions(json.loads(path.read_text())):
                    answer = client.get("/api/v1/query", params={"query": expr}).json()
                    assert answer["status"] == "success", (path.name, expr, answer)

            board.publish(view(read_minutes_ago=30))
            until(lambda: "NdifCalendarStale" in firing(client), "the alert fires")
            board.publish(view(read_minutes_ago=0))
            until(lambda: "NdifCalendarStale" not in firing(client), "the alert is over")
        telemetry.close()


def test_the_targets_are_those_of_ray_and_need_no_token_to_be_read(tmp_path: Path) -> None:
    (tmp_path / "ray_token").write_text("the-token")
    with listening(RaysDashboard(["10.0.0.2:4711", "10.0.0.3:4711"])) as dashboard:
        settings = Settings(state_dir=tmp_path, ray={"dashboard_url": f"http://127.0.0.1:{dashboard}"})
        assert metrics_targets(settings) == [
            {"targets": ["10.0.0.2:4711", "10.0.0.3:4711"], "labels": {"job": "ray"}}
        ]
    with pytest.raises(OperatorError):
        metrics_targets(settings)


def test_a_program_that_is_missing_fails_where_it_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install prometheus"):
        program("promtool-that-nobody-has")
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="apt-get install prometheus"):
        program("promtool-that-nobody-has")
