"""Metrics of a Serve replica: recorded by Ray, which every node exports for all its processes.

Ray writes ``ray_`` before each name and adds labels such as ``replica``, by which the replicas of one
application stay apart, so that sums over them are right. Counters and the buckets of histograms are
exact; the ``_sum`` of a histogram is not, since Ray makes it of the middles of the buckets.
"""

from __future__ import annotations

from typing import Any

from serve_apps.telemetry.metric import Metric

PREFIX = "ray_"


class Recorder:
    """Keeps what was made of each metric. Only inside a replica: outside it there is nobody to record."""

    def __init__(self, metrics: tuple[Metric, ...]) -> None:
        from ray.serve import metrics as ray

        self._made: dict[Metric, Any] = {}
        for one in metrics:
            if one.kind == "counter":
                self._made[one] = ray.Counter(one.name, one.help, one.labels)
            elif one.kind == "gauge":
                self._made[one] = ray.Gauge(one.name, one.help, one.labels)
            else:
                self._made[one] = ray.Histogram(one.name, one.help, list(one.buckets), one.labels)

    def count(self, metric: Metric, by: float, *labels: str) -> None:
        """Raise a counter; by nothing is nothing."""
        if by > 0:
            self._made[metric].inc(by, dict(zip(metric.labels, labels, strict=True)))

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Put a value into a histogram."""
        self._made[metric].observe(value, dict(zip(metric.labels, labels, strict=True)))

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a gauge. Ray forgets one that is not set again within two of its export intervals."""
        self._made[metric].set(value, dict(zip(metric.labels, labels, strict=True)))
