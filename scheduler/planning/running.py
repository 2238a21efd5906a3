"""What runs, by model and node; what is as it was the last time is told with the same objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from scheduler.types import Deployment

Identity = tuple[str, str]
"""Model key and node name."""


class Running:
    """What was observed of ours; ``of_model`` has one deployment of each, by the model's key."""

    def __init__(self) -> None:
        self.by_identity: Mapping[Identity, Deployment] = {}
        self.of_model: Mapping[str, Deployment] = {}

    def update(self, deployments: Iterable[Deployment]) -> None:
        """Take in what was observed now."""
        before, found = self.by_identity, dict[Identity, Deployment]()
        for one in deployments:
            identity = one.identity
            known = before.get(identity)
            found[identity] = known if known is one or known == one else one
        self.by_identity = found
        self.of_model = {model: one for (model, _), one in found.items()}


def differing(before: Mapping[Identity, object], now: Mapping[Identity, object]) -> set[Identity]:
    """The identities of what is another object, came or went."""
    others = {identity for identity, one in now.items() if before.get(identity) is not one}
    return others | (before.keys() - now.keys())
