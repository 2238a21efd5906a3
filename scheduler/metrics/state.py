"""Gauges of how things are, read off the daemon's board at every scrape."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from scheduler.board import Board, View
from scheduler.cluster.node import DeviceKind, Node
from scheduler.metrics import table
from scheduler.types import (
    ActionKind,
    Deployment,
    DeploymentStatus,
    Observed,
    Plan,
    Tier,
    Verdict,
    VerdictState,
)
from serve_apps.telemetry.metric import Metric

ADMITTED = (VerdictState.PLACED, VerdictState.COMING)
BEST_FIRST = (
    DeploymentStatus.SERVING,
    DeploymentStatus.LOADING,
    DeploymentStatus.FAILED,
    DeploymentStatus.STOPPING,
)
Values = Iterable[tuple[tuple[str, ...], float]]


class BoardCollector(Collector):
    """Reads the last view there is; before the first there are only the settings and the disks.

    Args:
        max_stale_seconds: a setting, as is ``interval_seconds``. ``disks`` are folders by what they hold.
        on_disk: model keys with the nodes that have their weights.
        now: tells the present instant.
    """

    def __init__(
        self,
        board: Board,
        *,
        max_stale_seconds: float,
        interval_seconds: float,
        disks: Mapping[str, Path],
        on_disk: Callable[[], Collection[tuple[str, str]]],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._board = board
        self._limits = [
            _gauge(table.CALENDAR_LIMIT, [((), max_stale_seconds)]),
            _gauge(table.INTERVAL, [((), interval_seconds)]),
        ]
        self._disks = disks
        self._on_disk = on_disk
        self._now = now

    def collect(self) -> list[Family]:
        found = [*self._limits, *self._disk_room()]
        if (view := self._board.current) is not None:
            found += self._state(view, self._now())
        return found

    def _disk_room(self) -> list[Family]:
        usage = {name: shutil.disk_usage(_existing(path)) for name, path in self._disks.items()}
        return [
            _gauge(table.STATE_DISK_FREE, [((name,), one.free) for name, one in usage.items()]),
            _gauge(table.STATE_DISK_TOTAL, [((name,), one.total) for name, one in usage.items()]),
        ]

    def _state(self, view: View, now: datetime) -> list[Family]:
        plan, observed, beat = view.plan, view.observed, view.beat
        # a daemon that waits for another reads no calendar, and looks at no gateway
        ages = [(one.name, one.age(now)) for one in view.calendars] if view.lease.ours else []
        hindered = {
            "problem": bool(beat.problem),
            "held": bool(beat.held),
            "paused": beat.pause is not None,
            "stuck": bool(beat.stuck),
        }
        found = [
            _gauge(table.LEADING, [((), view.lease.ours)]),
            _gauge(table.HINDERED, [((name,), value) for name, value in hindered.items()]),
            _gauge(table.LOST_RECORDS, [((), beat.lost_records)]),
            _gauge(
                table.CALENDAR_AGE,
                [((name,), math.inf if age is None else age.total_seconds()) for name, age in ages],
            ),
            _gauge(table.PARKED, [((), len(beat.parked))]),
            _gauge(table.GATEWAY_UP, [((), view.gateway[0] == "RUNNING")] if view.gateway else []),
        ]
        if plan is not None:
            found += _bookings(plan, observed, now)
        if observed is not None:
            found += [*_models(observed, plan, self._on_disk()), *_nodes(observed, beat.away)]
        return found


def _bookings(plan: Plan, observed: Observed | None, now: datetime) -> list[Family]:
    states = Counter(one.state for one in plan.verdicts)
    running = {one.identity: one for one in observed.deployments} if observed else {}
    admitted = [one for one in plan.verdicts if one.state in ADMITTED]
    dangers = {
        "late": sum(_comes_late(one, now) for one in admitted),
        "overdue": sum(_is_overdue(one, running, now) for one in admitted),
    }
    actions = Counter(one.kind for one in plan.actions)
    return [
        _gauge(table.RESERVATIONS, [((one.value,), states[one]) for one in VerdictState]),
        _gauge(table.PROMISES_AT_RISK, [((name,), count) for name, count in dangers.items()]),
        _gauge(table.ACTIONS_PENDING, [((kind.value,), actions[kind]) for kind in ActionKind]),
    ]


def _comes_late(one: Verdict, now: datetime) -> bool:
    return one.late_seconds >= 1 and one.start is not None and one.start > now


def _is_overdue(one: Verdict, running: Mapping[tuple[str, str], Deployment], now: datetime) -> bool:
    if one.start is None or one.end is None or not one.start <= now < one.end:
        return False
    if one.model is None or not one.nodes:
        return True
    return not all(_serves(running.get((one.model.key, node))) for node in one.nodes)


def _serves(one: Deployment | None) -> bool:
    return one is not None and (one.status is DeploymentStatus.SERVING or one.ready_replicas > 0)


def _models(observed: Observed, plan: Plan | None, on_disk: Collection[tuple[str, str]]) -> list[Family]:
    hot: dict[str, DeploymentStatus] = {}
    for one in observed.deployments:
        known = hot.get(one.model.key, one.status)
        hot[one.model.key] = min(known, one.status, key=BEST_FIRST.index)
    alive = {node.name for node in observed.cluster.nodes}
    cold = {model for model, node in on_disk if node in alive} - set(hot)
    admitted = [one for one in plan.verdicts if one.state in ADMITTED] if plan else []
    booked = {one.model.key for one in admitted if one.model is not None}
    statuses = Counter(hot.values())
    tiers = [((Tier.HOT.value, status.value), float(statuses[status])) for status in BEST_FIRST]
    tiers += [((Tier.COLD.value, "on disk"), float(len(cold)))]
    tiers += [((Tier.REMOTE.value, "booked"), float(len(booked - set(hot) - cold)))]
    replicas: dict[tuple[str, ...], float] = {}
    for one in observed.deployments:
        for state, number in (("wanted", one.replicas), ("ready", one.ready_replicas)):
            # one name may be served for several tasks
            key = (one.model.name, one.node, state)
            replicas[key] = replicas.get(key, 0.0) + number
    return [_gauge(table.MODELS, tiers), _gauge(table.REPLICAS, replicas.items())]


def _nodes(observed: Observed, away: Collection[str]) -> list[Family]:
    present = [node for node in observed.cluster.nodes if node.name not in away]
    states = Counter(
        "closed" if node.closed else "open" if node.devices else "without devices" for node in present
    )
    states["away"] = len(away)
    count: dict[tuple[str, ...], float] = {}
    capacity: dict[tuple[str, ...], float] = {}
    memory: dict[tuple[str, ...], float] = {}
    for node in observed.cluster.nodes:
        if not node.devices:
            continue
        labels = (node.name, node.kind_name)
        count[labels], capacity[labels] = len(node.devices), node.memory_bytes
        others = node.memory_bytes - sum(device.free_bytes for device in node.devices)
        ours = min(_held(node, observed.deployments), node.memory_bytes - others)
        memory[*labels, "ours"], memory[*labels, "others"] = ours, others
        memory[*labels, "free"] = node.memory_bytes - others - ours
    named = ("open", "closed", "without devices", "away")
    return [
        _gauge(table.NODES, [((name,), states[name]) for name in named]),
        _gauge(table.DEVICES, count.items()),
        _gauge(table.DEVICE_CAPACITY, capacity.items()),
        _gauge(table.DEVICE_MEMORY, memory.items()),
    ]


def _held(node: Node, deployments: Iterable[Deployment]) -> float:
    """What our models take of a node in Ray's books: whole GPUs or shares of one, or reserved memory."""
    ours = [one for one in deployments if one.node == node.name]
    if node.kind is DeviceKind.GPU:
        return sum(one.replicas * one.num_gpus for one in ours) * node.devices[0].memory_bytes
    return float(sum(one.replicas * one.memory_bytes for one in ours))


def _existing(path: Path) -> Path:
    return next((one for one in (path, *path.parents) if one.exists()), Path("/"))


def _gauge(metric: Metric, values: Values) -> Family:
    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in values:
        family.add_metric(labels, value)
    return family
