"""Where Prometheus finds the nodes of the cluster.

Ray lists them for whoever has the cluster's token, which opens everything; Prometheus is told by the daemon.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

from scheduler.cluster.dashboard import Dashboard
from scheduler.settings import Settings

JOB = "ray"


def metrics_targets(settings: Settings) -> list[dict[str, Any]]:
    """The addresses of the nodes' metrics, as HTTP service discovery of Prometheus has them.

    Raises:
        ClusterUnavailable: Ray did not answer; Prometheus then goes by what it was told before.
    """
    ray = settings.ray
    with closing(Dashboard(ray.dashboard, settings.token_file, ray.timeout_seconds)) as dashboard:
        groups = dashboard.metrics_targets()
    return [{"targets": list(one.get("targets") or ()), "labels": {"job": JOB}} for one in groups]
