"""Who holds how much of a node's memory, as a sum and as a bar of characters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scheduler.cluster.node import Node
from scheduler.types import Deployment

CELLS = 24
OURS, OTHERS, FREE = "█", "▒", "░"


@dataclass(frozen=True)
class Held:
    """Bytes of a node: what its models hold, what others hold, and what is free; together ``total``."""

    total: int
    ours: int
    others: int

    @property
    def free(self) -> int:
        """What nobody holds."""
        return self.total - self.ours - self.others


def held(node: Node, deployments: Iterable[Deployment]) -> Held:
    """Who holds what of a node. A replica on whole GPUs holds all of their memory."""
    total = node.memory_bytes
    others = min(total, sum(one.memory_bytes - one.free_bytes for one in node.devices))
    each = node.devices[0].memory_bytes if node.devices else 0
    here = (one for one in deployments if one.node == node.name)
    ours = sum(max(one.footprint_bytes, int(one.num_gpus * each)) * one.replicas for one in here)
    return Held(total, min(total - others, ours), others)


def bar(one: Held, cells: int = CELLS) -> str:
    """``██████▒▒░░░░``: what models hold, what others hold, and what is free."""
    if not one.total:
        return ""
    ours = round(cells * one.ours / one.total)
    others = min(cells - ours, round(cells * one.others / one.total))
    return OURS * ours + OTHERS * others + FREE * (cells - ours - others)
