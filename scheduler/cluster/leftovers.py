"""GPU memory that is in use though by Ray's books nobody has the GPU: seen, waited for, then taken for lost.

What an application held may stay after it went (a process that does not die, a child it left behind), and
others may compute beside Ray. A model that is placed there fails to load. What is in use comes from NVML, by
way of the agents of Ray's dashboard, so it is known of every node.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from scheduler.cluster.node import Cluster, Device, DeviceKind, Node
from scheduler.settings import MIB
from scheduler.types import Deployment

REPLICA_NAME = "SERVE_REPLICA::"
LOOKS_EVERY = timedelta(seconds=3)


class GpuMemory:
    """Bytes in use on the GPUs of all nodes, asked for no more often than the agents look.

    Args:
        ask: gives what each node's agent sees of its machine.
    """

    def __init__(self, ask: Callable[[], Iterable[Mapping[str, Any]]]) -> None:
        self._ask = ask
        self._asked_at: datetime | None = None
        self._used: Mapping[str, tuple[int, ...]] = {}

    def used(self, at: datetime) -> Mapping[str, tuple[int, ...]]:
        """By node id; nothing of nodes whose agent sees no GPU."""
        if self._asked_at is None or abs(at - self._asked_at) >= LOOKS_EVERY:
            self._used, self._asked_at = used_bytes(self._ask()), at
        return self._used


def used_bytes(summary: Iterable[Mapping[str, Any]]) -> dict[str, tuple[int, ...]]:
    """Bytes in use on each GPU, by node id; nothing of nodes whose agent sees no GPU."""
    found = {}
    for one in summary:
        node_id = (one.get("raylet") or {}).get("nodeId")
        gpus = sorted(one.get("gpus") or (), key=lambda gpu: int(gpu["index"]))
        if node_id and gpus:
            found[str(node_id)] = tuple(int(gpu["memoryUsed"]) * MIB for gpu in gpus)
    return found


def occupied(node: Node, actors: Iterable[Mapping[str, Any]], ours: Iterable[Deployment]) -> int:
    """The most GPUs of a node that can be in use by Ray's books: living actors, replicas of ours that come.

    Shares of a GPU count as one GPU each, since nobody tells which of them share one.
    """
    gpus = 0
    alive: dict[str, int] = {}
    for actor in actors:
        if actor.get("node_id") != node.node_id:
            continue
        gpus += math.ceil((actor.get("required_resources") or {}).get("GPU", 0))
        name = str(actor.get("name") or "")
        if name.startswith(REPLICA_NAME):
            application = name.removeprefix(REPLICA_NAME).split("#")[0]
            alive[application] = alive.get(application, 0) + 1
    for one in ours:
        if one.node == node.name:
            coming = max(0, one.replicas - alive.get(one.application, 0))
            gpus += coming * math.ceil(one.num_gpus)
    return gpus


@dataclass(frozen=True)
class Held:
    """GPUs of a node: ``held`` are in use though they should be free, ``free`` are free for sure."""

    held: int
    free: int


def left_over(used: tuple[int, ...], gpus: int, occupied_gpus: int, idle_bytes: int) -> Held | None:
    """What is in use that should be free; None where nothing is.

    The GPUs in use are those with more than ``idle_bytes``, which a driver holds by itself. Nothing is known
    where the node has other GPUs than Ray gives out, since which of them those are is not told.
    """
    if len(used) != gpus:
        return None
    expected = max(0, gpus - occupied_gpus)
    held = expected - sum(one <= idle_bytes for one in used)
    return Held(held, expected - held) if held > 0 else None


class Leftovers:
    """Remembers since when GPUs are in use that should be free.

    Args:
        wait_seconds: so long they are waited for: what shall come there is held back. After that they
            count as taken by others, and planning does without them.
    """

    def __init__(self, wait_seconds: float) -> None:
        self._wait = timedelta(seconds=wait_seconds)
        self._since: dict[str, datetime] = {}
        self.waited_for: dict[str, Held] = {}
        """By the name of the node."""
        self.lost: dict[str, Held] = {}
        """What has been in use for too long."""

    def mark(self, cluster: Cluster, found: Mapping[str, Held], at: datetime) -> Cluster:
        """The cluster without what is lost on it; ``found`` is what is held, by the name of the node."""
        # where the clock is set back meanwhile, the wait begins anew
        self._since = {name: min(at, self._since.get(name, at)) for name in found}
        self.lost = {name: one for name, one in found.items() if at - self._since[name] >= self._wait}
        self.waited_for = {name: one for name, one in found.items() if name not in self.lost}
        nodes = (
            node.model_copy(update={"devices": _taken(node.devices, self.lost[node.name].held)})
            if node.name in self.lost
            else node
            for node in cluster.nodes
        )
        return Cluster(nodes=tuple(nodes))

    @property
    def words(self) -> str:
        """What is waited for, and what is done without; empty where nothing is."""
        said = [
            f"{_memory(one.held)} of {name} is still in use, so what shall come there waits"
            for name, one in self.waited_for.items()
        ]
        for name, one in self.lost.items():
            said.append(f"{_memory(one.held)} of {name} stays in use, and is done without")
        return f"Nobody has it by Ray's books, but {'; '.join(said)}." if said else ""

    @property
    def boundaries(self) -> tuple[datetime, ...]:
        """When what is waited for is given up."""
        return tuple(self._since[name] + self._wait for name in self.waited_for)


def _taken(devices: tuple[Device, ...], count: int) -> tuple[Device, ...]:
    free = [n for n, one in enumerate(devices) if one.kind is DeviceKind.GPU and not one.taken_share]
    gone = set(free[:count])
    return tuple(
        one.model_copy(update={"taken_share": 1.0}) if n in gone else one for n, one in enumerate(devices)
    )


def _memory(gpus: int) -> str:
    return "the memory of a GPU" if gpus == 1 else f"the memory of {gpus} GPUs"
