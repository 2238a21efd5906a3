"""Dashboards: generated, complete, and no query asks for what nobody tells."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml

from scheduler.metrics import table
from scheduler.metrics.document import ALERTS
from scheduler.metrics.influx import DAEMON_POINTS
from scheduler.settings import ROOT
from serve_apps.gateway.metrics import GATEWAY, GATEWAY_POINTS
from serve_apps.model.metrics import MODEL
from serve_apps.telemetry.loki import LABELS
from serve_apps.telemetry.metric import Metric
from serve_apps.telemetry.ray_metrics import PREFIX

FOLDER = ROOT / "compose" / "dev" / "grafana"
DASHBOARDS = sorted((FOLDER / "dashboards").glob("*.json"))
RAYS_OWN = {
    "ray_node_cpu_utilization": {"ip"},
    "ray_node_mem_used": {"ip"},
    "ray_node_mem_total": {"ip"},
    "ray_node_disk_utilization_percentage": {"ip"},
    "up": {"job", "instance"},
}
"""What is asked of Ray and of Prometheus itself; tests/metrics/test_on_ray.py sees that Ray tells it."""
RAYS_LABELS = {"replica", "deployment", "application", "NodeAddress"}
LOG_FIELDS = {"event", "events", "model", "node", "action", "reason", "state"}


def told() -> dict[str, set[str]]:
    """Every series there is, with its labels."""
    found = dict(RAYS_OWN)
    for one in table.DAEMON:
        found |= series(one)
    for one in (*GATEWAY, *MODEL):
        found |= {PREFIX + name: labels | RAYS_LABELS for name, labels in series(one).items()}
    return found


def series(metric: Metric) -> dict[str, set[str]]:
    labels = set(metric.labels)
    if metric.kind != "histogram":
        return {metric.name: labels}
    return {
        f"{metric.name}_bucket": labels | {"le"},
        f"{metric.name}_count": labels,
        f"{metric.name}_sum": labels,
    }


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        yield from panel.get("panels") or ()
        if panel["type"] != "row":
            yield panel


def queries(kind: str) -> list[Any]:
    """What the dashboards ask a data source of that kind."""
    field = "query" if kind == "influxdb" else "expr"
    return [
        pytest.param(target[field], id=f"{path.stem}: {panel['title']}")
        for path in DASHBOARDS
        for panel in panels(json.loads(path.read_text()))
        for target in panel["targets"]
        if target["datasource"]["type"] == kind
    ]


def selectors(expr: str) -> Iterator[Any]:
    """The vector selectors of an expression."""
    pending = [promql_parser.parse(expr)]
    while pending:
        node = pending.pop()
        if isinstance(node, promql_parser.VectorSelector):
            yield node
        children = [getattr(node, name, None) for name in ("lhs", "rhs", "expr", "param", "vector_selector")]
        arguments = getattr(node, "args", None)
        pending += [one for one in (*children, *(arguments or ())) if isinstance(one, promql_parser.Expr)]


def asked(expr: str) -> dict[str, set[str]]:
    """The metrics an expression asks for, with the labels it picks them by."""
    plain = expr.replace("$__rate_interval", "5m")
    found: dict[str, set[str]] = {}
    for one in selectors(plain):
        found.setdefault(one.name, set()).update(matcher.name for matcher in one.matchers.matchers)
    return found


def grouped_by(expr: str) -> set[str]:
    return {name.strip() for names in re.findall(r"\bby \(([^)]+)\)", expr) for name in names.split(",")}


def test_the_parser_finds_every_selector() -> None:
    expr = (
        'sum by (a) (rate(x_total{b="1"}[5m])) / on () group_left () (0.5 * y) > histogram_quantile(0.5, z)'
    )
    assert asked(expr) == {"x_total": {"b"}, "y": set(), "z": set()}


@pytest.mark.parametrize("expr", queries("prometheus"))
def test_every_metric_and_label_asked_for_exists(expr: str) -> None:
    known, found = told(), asked(expr)
    assert found
    for name, labels in found.items():
        assert name in known, name
        assert labels <= known[name], (name, labels - known[name])
    assert grouped_by(expr) <= set.union(*(known[name] for name in found))


@pytest.mark.parametrize(
    "rule",
    [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]],
    ids=lambda rule: rule["alert"],
)
def test_every_alert_asks_for_what_exists(rule: dict[str, Any]) -> None:
    known = told()
    for name, labels in asked(rule["expr"]).items():
        assert name in known and labels <= known[name], (name, labels)


@pytest.mark.parametrize("expr", queries("loki"))
def test_logs_are_picked_by_labels_and_fields_there_are(expr: str) -> None:
    picked, _, rest = expr.partition("}")
    assert set(re.findall(r"(\w+)=~?\"", picked)) <= set(LABELS)
    assert set(re.findall(r"(\w+) !?=", rest)) <= LOG_FIELDS


@pytest.mark.parametrize("query", queries("influxdb"))
def test_every_point_asked_for_is_written(query: str) -> None:
    known = {one.name: one for one in (*DAEMON_POINTS, *GATEWAY_POINTS)}
    (measurement,) = re.findall(r'r\._measurement == "(\w+)"', query)
    (field,) = re.findall(r'r\._field == "(\w+)"', query)
    assert field in known[measurement].fields
    others = set(re.findall(r"r\.([a-z]\w*) ==", query)) | set(
        re.findall(r'group\(columns: \["(\w+)"\]', query)
    )
    assert others <= set(known[measurement].tags)


def test_the_files_are_what_the_script_makes() -> None:
    sys.path.insert(0, str(FOLDER))
    try:
        import make_dashboards
    finally:
        sys.path.remove(str(FOLDER))
    assert make_dashboards.made() == {path.name: path.read_text() for path in DASHBOARDS}, (
        "run python compose/dev/grafana/make_dashboards.py"
    )


def test_the_four_are_there_and_every_panel_has_a_query() -> None:
    found = {path.stem: json.loads(path.read_text()) for path in DASHBOARDS}
    assert {name: one["title"] for name, one in found.items()} == {
        "promises": "Promises and calendar",
        "cluster": "Cluster and models",
        "requests": "Requests and users",
        "model": "One model",
    }
    assert len({one["uid"] for one in found.values()}) == 4
    for one in found.values():
        ids = [panel["id"] for panel in panels(one)]
        assert len(set(ids)) == len(ids) > 10
        assert all(panel["targets"] and panel["title"] for panel in panels(one))


def provisioned(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / "provisioning" / name / f"{name}.yml").read_text())
    return content


def compose() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((FOLDER.parent / "docker-compose.yml").read_text())["services"]
    return services


def test_every_data_source_asked_is_provisioned_and_is_a_service_of_the_stack() -> None:
    sources = {one["uid"]: one for one in provisioned("datasources")["datasources"]}
    used = {
        (target["datasource"]["uid"], target["datasource"]["type"])
        for path in DASHBOARDS
        for panel in panels(json.loads(path.read_text()))
        for target in panel["targets"]
    }
    assert used == {(uid, one["type"]) for uid, one in sources.items()}
    ports = {"prometheus": "9090", "loki": "3100", "influxdb": "8086"}
    for one in sources.values():
        host, _, port = one["url"].removeprefix("http://").partition(":")
        assert host in compose() and ports[host] == port
        mapped = [str(entry).rpartition(":")[2] for entry in compose()[host]["ports"]]
        assert port in mapped


def test_every_path_that_is_provisioned_is_mounted_from_here() -> None:
    mounts = dict(entry.split(":")[:2][::-1] for entry in compose()["grafana"]["volumes"] if entry[0] == ".")
    assert mounts["/etc/grafana/provisioning"] == "./grafana/provisioning"
    for one in provisioned("dashboards")["providers"]:
        assert (FOLDER.parent / mounts[one["options"]["path"]]).resolve() == FOLDER / "dashboards"


def test_no_secret_is_provisioned_but_named() -> None:
    text = (FOLDER / "provisioning" / "datasources" / "datasources.yml").read_text()
    variables = set(re.findall(r"\$(\w+)", text))
    assert re.search(r"token: \$INFLUXDB_ADMIN_TOKEN$", text, re.MULTILINE)
    assert variables <= set(compose()["grafana"]["environment"])


def test_lokis_configuration_is_mounted_and_listens_where_it_is_asked() -> None:
    config = yaml.safe_load((FOLDER.parent / "loki" / "loki.yml").read_text())
    assert config["server"]["http_listen_port"] == 3100
    assert "./loki:/etc/loki:ro" in compose()["loki"]["volumes"]
