"""The tables of docs/metrics.md: every metric, every point, every alert.

    python -m scheduler.metrics.document

writes them into that file, between the marks that name them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from scheduler.metrics import table
from scheduler.metrics.influx import DAEMON_POINTS
from scheduler.settings import ROOT
from serve_apps.gateway.metrics import GATEWAY, GATEWAY_POINTS
from serve_apps.model.metrics import MODEL
from serve_apps.telemetry.metric import Measurement, Metric
from serve_apps.telemetry.ray_metrics import PREFIX

PAGE = ROOT / "docs" / "metrics.md"
ALERTS = ROOT / "compose" / "dev" / "prometheus" / "alerts.yml"
MARKS = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def tables() -> dict[str, str]:
    """Each table of the page, by its mark."""
    return {
        "daemon": _metrics(table.DAEMON),
        "gateway": _metrics(GATEWAY, PREFIX),
        "model": _metrics(MODEL, PREFIX),
        "points": _points((*DAEMON_POINTS, *GATEWAY_POINTS)),
        "alerts": _alerts(yaml.safe_load(ALERTS.read_text())),
    }


def filled(page: str) -> str:
    """The page with its tables as they should be."""
    found = tables()
    return MARKS.sub(lambda match: f"{match[1]}{found[match[2]]}{match[3]}", page)


def _metrics(metrics: Iterable[Metric], prefix: str = "") -> str:
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for one in metrics:
        labels = ", ".join(f"`{label}`" for label in one.labels)
        lines.append(f"| `{prefix}{one.name}` | {one.kind} | {labels} | {one.help} |")
    return "\n".join(lines) + "\n"


def _points(measurements: Iterable[Measurement]) -> str:
    lines = ["| measurement | tags | fields | meaning |", "|---|---|---|---|"]
    for one in measurements:
        tags, fields = (", ".join(f"`{name}`" for name in names) for names in (one.tags, one.fields))
        lines.append(f"| `{one.name}` | {tags} | {fields} | {one.help} |")
    return "\n".join(lines) + "\n"


def _alerts(rules: Any) -> str:
    lines = ["| alert | wakes | when | for |", "|---|---|---|---|"]
    for group in rules["groups"]:
        for rule in group["rules"]:
            expr = " ".join(rule["expr"].split()).replace("|", "\\|")
            wakes = "yes" if rule["labels"]["severity"] == "page" else "no"
            lines.append(f"| `{rule['alert']}` | {wakes} | `{expr}` | {rule.get('for', 'at once')} |")
    return "\n".join(lines) + "\n"


def main(path: Path = PAGE) -> None:
    """Write the tables into the page."""
    path.write_text(filled(path.read_text()))


if __name__ == "__main__":
    main()
