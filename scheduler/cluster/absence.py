"""Nodes that are gone for a moment: kept in the picture, closed, until they are back or gone for good."""

from __future__ import annotations

from datetime import datetime, timedelta

from scheduler.cluster.node import Cluster, Node


class Absence:
    """Remembers nodes. One that vanished less than ``grace_seconds`` ago still counts, and takes nothing new.

    A raylet that restarts, or a network that hiccups, is back sooner than a model is loaded elsewhere; and
    Serve itself brings back what ran there.
    """

    def __init__(self, grace_seconds: float) -> None:
        self._grace = timedelta(seconds=grace_seconds)
        self._seen: dict[str, tuple[Node, datetime]] = {}

    def complete(self, cluster: Cluster, at: datetime) -> Cluster:
        """The cluster with the nodes that may be back any moment."""
        for node in cluster.nodes:
            self._seen[node.name] = (node, at)
        present = {node.name for node in cluster.nodes}
        for name, (node, seen) in list(self._seen.items()):
            # a clock that was set back must neither keep a dead node for hours nor take it for gone at once
            self._seen[name] = (node, min(seen, at))
            if name not in present and at - seen >= self._grace:
                del self._seen[name]
        away = (
            node.model_copy(update={"cordoned": True})
            for name, (node, _) in self._seen.items()
            if name not in present
        )
        nodes = sorted((*cluster.nodes, *away), key=lambda node: node.name)
        return Cluster(nodes=tuple(nodes))

    def away(self, cluster: Cluster) -> tuple[str, ...]:
        """Which nodes of a completed cluster are only remembered, given what is really there."""
        present = {node.name for node in cluster.nodes}
        return tuple(sorted(set(self._seen) - present))
