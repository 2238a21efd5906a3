"""What runs, by model and node, and what of it is another than it was."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from scheduler.types import Deployment

Identity = tuple[str, str]
"""Model key and node name."""


class Running:
    """What was observed of ours. ``changed`` are the identities of what came, went or is another."""

    def __init__(self) -> None:
        self.by_identity: dict[Identity, Deployment] = {}
        self.changed: set[Identity] = set()
        self._identities: dict[int, Identity] = {}
        """Of what is known, by the identity of the object."""
        self._on_nodes: defaultdict[str, dict[str, Deployment]] = defaultdict(dict)

    def nodes_of(self, model: str) -> Collection[str]:
        """The names of the nodes a model runs on, by its key."""
        return self._on_nodes[model].keys() if model in self._on_nodes else ()

    def of_model(self, model: str) -> Deployment | None:
        """A model's deployment on the last of its nodes."""
        nodes = self.nodes_of(model)
        return self._on_nodes[model][max(nodes)] if nodes else None

    def update(self, deployments: Sequence[Deployment]) -> None:
        """Take in what was observed now."""
        # most are the very same objects as the last time, and are not looked at
        there = set(map(id, deployments))
        fresh = {one.identity: one for one in deployments if id(one) not in self._identities}
        gone = {self._identities[number] for number in self._identities.keys() - there} - fresh.keys()
        came = sum(identity not in self.by_identity for identity in fresh)
        if len(self.by_identity) + came - len(gone) != len(deployments):
            # several of one identity: the last counts
            fresh = {one.identity: one for one in deployments}
            gone = self.by_identity.keys() - fresh.keys()
        self.changed = gone | {key for key, one in fresh.items() if self.by_identity.get(key) != one}
        for identity in gone | fresh.keys():
            self._replace(identity, fresh.get(identity))

    def _replace(self, identity: Identity, one: Deployment | None) -> None:
        model, node = identity
        before = self.by_identity.pop(identity, None)
        if before is not None:
            del self._identities[id(before)], self._on_nodes[model][node]
        if one is not None:
            self.by_identity[identity] = self._on_nodes[model][node] = one
            self._identities[id(one)] = identity
        if not self._on_nodes[model]:
            del self._on_nodes[model]
