"""The daemon's metrics for Prometheus: counters the loop is told of, and gauges read off the board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from scheduler.metrics import table
from scheduler.metrics.meter import PassOutcome, PromiseNews, StepOutcome, Unmetered
from scheduler.store.records import Change
from scheduler.types import Model, Plan, ReasonCode
from serve_apps.telemetry.metric import Metric

STEPS = {
    "reading the calendars": "read",
    "observing": "observe",
    "planning": "plan",
    "applying": "apply",
    "answering in the calendars": "answer",
}
"""The loop's words for its steps, and their labels; another step is ``other``."""

KNOWN_LABELS = {
    table.PASSES: ("done", "waiting", "stale", "problem", "fault"),
    table.PROMISES: ("kept", "late", "broken", "withdrawn"),
    table.PROMISES_BROKEN: (*ReasonCode, "never served", "ceased to serve"),
    table.RESERVATION_CHANGES: ("scheduled", "loading", "serving", "refused", "ended"),
}
"""Counters that stand at 0 from the start, so that their first step is seen as one."""


class Queue(Protocol):
    """What ships something to a server."""

    @property
    def sent(self) -> int: ...

    @property
    def dropped(self) -> int: ...


class PrometheusMeter(Unmetered):
    """Counts and times in a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._passes = _counter(table.PASSES, registry)
        self._lag = _histogram(table.PASS_LAG, registry)
        self._steps = _histogram(table.STEP_SECONDS, registry)
        self._polls = _counter(table.POLLS, registry)
        self._changes = _counter(table.RESERVATION_CHANGES, registry)
        self._promises = _counter(table.PROMISES, registry)
        self._late = _histogram(table.PROMISE_LATE, registry)
        self._broken = _counter(table.PROMISES_BROKEN, registry)
        self._loads = _histogram(table.LOAD_SECONDS, registry)
        self._actions = _counter(table.ACTIONS, registry)
        self._last_pass = Gauge(table.LAST_PASS.name, table.LAST_PASS.help, registry=registry)
        # a loop that never comes to the end of its first pass stands still, too
        self._last_pass.set_to_current_time()

    def passed(self, outcome: PassOutcome, lag_seconds: float) -> None:
        self._passes.labels(outcome).inc()
        self._last_pass.set_to_current_time()
        self._lag.observe(lag_seconds)

    def stepped(self, step: str, outcome: StepOutcome, seconds: float) -> None:
        self._steps.labels(STEPS.get(step, "other"), outcome).observe(seconds)

    def polled(self, calendar: str, ok: bool) -> None:
        self._polls.labels(calendar, "ok" if ok else "failed").inc()

    def applied(self, plan: Plan, outcome: str) -> None:
        for action in plan.actions:
            self._actions.labels(action.kind.value, outcome).inc()

    def said(self, changes: Sequence[Change]) -> None:
        for one in changes:
            self._changes.labels(one.state).inc()

    def promised(self, news: Sequence[PromiseNews]) -> None:
        for one in news:
            if one.record.state == "waiting":
                continue
            self._promises.labels(one.record.state).inc()
            if one.record.state in ("kept", "late"):
                self._late.observe(one.record.lateness_seconds or 0.0)
            if one.record.state == "broken":
                self._broken.labels(one.reason).inc()

    def loaded(self, model: Model, node: str, kind: str, tier: str, seconds: float) -> None:
        self._loads.labels(tier).observe(seconds)


class QueueCollector(Collector):
    """What became of points and log lines on their way, by where they should go."""

    def __init__(self, queues: Mapping[str, Queue]) -> None:
        self._queues = queues

    def collect(self) -> list[Family]:
        sent, dropped = _counter_family(table.SENT), _counter_family(table.DROPPED)
        for name, queue in self._queues.items():
            sent.add_metric([name], queue.sent)
            dropped.add_metric([name], queue.dropped)
        return [sent, dropped]


def new_registry() -> CollectorRegistry:
    """A registry of our own, with what Linux says of this process."""
    # a gauge beside each counter, which nobody asks for
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


def exposition_of(registry: CollectorRegistry) -> tuple[bytes, str]:
    """All a registry knows as Prometheus reads it, and the content type of that."""
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


def _counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    counter = Counter(metric.name, metric.help, metric.labels, registry=registry)
    for value in KNOWN_LABELS.get(metric, ()):
        counter.labels(value)
    return counter


def _histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    return Histogram(metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry)


def _counter_family(metric: Metric) -> CounterMetricFamily:
    return CounterMetricFamily(metric.name.removesuffix("_total"), metric.help, labels=metric.labels)
