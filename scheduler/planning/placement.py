"""Which node takes which model: best fit, in the order of the claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from scheduler.cluster.node import Cluster, Device, DeviceKind, Node
from scheduler.planning.footprint import gpus_needed
from scheduler.types import (
    Deployment,
    NodeAnswer,
    Placement,
    Reason,
    ReasonCode,
    ReasonKind,
    Target,
)

OTHERS = "applications that are not ours"

SAME_NEED = 0.05
"""A need that is reckoned anew and differs by no more than this share rebuilds nothing that serves."""


@dataclass(frozen=True)
class Unplaced:
    """A target, or some of its replicas, that found no room, with every node's answer."""

    target: Target
    replicas: int
    reason: Reason
    considered: tuple[NodeAnswer, ...]


@dataclass(frozen=True)
class Placed:
    """Where everything goes, and what goes nowhere."""

    placements: tuple[Placement, ...]
    unplaced: tuple[Unplaced, ...]


@dataclass(frozen=True)
class _Held:
    """Bytes that one replica holds on some devices of a node."""

    owner: str
    name: str
    devices: tuple[int, ...]
    bytes_each: int


@dataclass
class _Room:
    """What is still free on a node while a placement is being worked out."""

    node: Node
    held: list[_Held] = field(default_factory=list)

    def free(self, ignoring: frozenset[str] = frozenset()) -> list[int]:
        free = [device.free_bytes for device in self.node.devices]
        for held in self.held:
            if held.owner not in ignoring:
                for index in held.devices:
                    free[index] -= held.bytes_each
        return free

    def fit(self, target: Target, ignoring: frozenset[str] = frozenset()) -> _Held | None:
        """Where one replica would go: on the fullest device that can take it, or on empty ones."""
        if not self.node.devices or self.node.devices[0].memory_bytes <= 0:
            return None
        free = self.free(ignoring)
        device = self.node.devices[0]
        if not _shares(target, device):
            gpus, each = _whole(target, device)
            empty = [i for i, room in enumerate(free) if room == self.node.devices[i].memory_bytes]
            if len(empty) < gpus or device.kind is DeviceKind.CPU:
                return None
            return _Held(target.model.key, target.model.name, tuple(empty[:gpus]), each)
        need = _share_bytes(target, device)
        best = min((i for i, room in enumerate(free) if room >= need), key=lambda i: free[i], default=None)
        return None if best is None else _Held(target.model.key, target.model.name, (best,), need)

    def squeeze(self, target: Target) -> _Held | None:
        """Where one replica that runs must be taken to be, though it does not fit by our reckoning.

        Ray chose its devices, and may have shared them out in another way; it is there all the same.
        """
        if not self.node.devices or self.node.devices[0].memory_bytes <= 0:
            return None
        free, device = self.free(), self.node.devices[0]
        roomiest = sorted(range(len(free)), key=lambda index: -free[index])
        if _shares(target, device):
            return _Held(target.model.key, target.model.name, (roomiest[0],), _share_bytes(target, device))
        gpus, each = _whole(target, device)
        if gpus > len(free) or device.kind is DeviceKind.CPU:
            return None
        return _Held(target.model.key, target.model.name, tuple(sorted(roomiest[:gpus])), each)

    def release(self, owner: str) -> None:
        self.held = [held for held in self.held if held.owner != owner]


def _shares(target: Target, device: Device) -> bool:
    if device.kind is DeviceKind.CPU:
        return target.gpus is None
    return (
        device.memory_bytes > 0 and gpus_needed(target.footprint_bytes, device.memory_bytes, target.gpus) < 1
    )


def _whole(target: Target, device: Device) -> tuple[int, int]:
    if device.memory_bytes <= 0 or device.kind is DeviceKind.CPU:
        return (target.gpus or 1), 0
    return int(gpus_needed(target.footprint_bytes, device.memory_bytes, target.gpus)), device.memory_bytes


def _share_bytes(target: Target, device: Device) -> int:
    if device.kind is DeviceKind.CPU:
        return target.footprint_bytes
    # What Ray will book is a share rounded up, so that is what must be free.
    share = gpus_needed(target.footprint_bytes, device.memory_bytes, None)
    return min(int(share * device.memory_bytes), device.memory_bytes)


def place(targets: Iterable[Target], cluster: Cluster, deployments: Iterable[Deployment] = ()) -> Placed:
    """Put every target on nodes, in the order of their claims.

    A model that runs stays where it is. A new one takes the room that is free; only where there is
    none, and never while it is early, does it take that of models with a weaker claim, which are
    then placed anew in their turn. Among nodes that fit, a GPU wins over a CPU, then the smallest
    device, then the one left fullest (best fit), then the name. Devices taken by others are never counted on.
    """
    ordered = sorted(targets, key=lambda target: target.order)
    rooms = {node.name: _Room(node) for node in cluster.nodes}
    staying = _keep(ordered, rooms, deployments)
    placements: list[Placement] = []
    unplaced: list[Unplaced] = []
    for rank, target in enumerate(ordered):
        weaker = frozenset(one.model.key for one in ordered[rank + 1 :] if one.claim > target.claim)
        on_nodes = staying.pop(target.model.key, Counter())
        answers: dict[str, NodeAnswer] = {}
        missing = target.replicas - sum(on_nodes.values())
        while missing > 0:
            choice = _choose(target, rooms, frozenset())
            firm = target.replicas - missing < target.firm_replicas
            if choice is None and firm and not target.early:
                choice = _choose(target, rooms, weaker)
            answers = answers or _answers(target, rooms, cluster)
            if choice is None:
                break
            name, held = choice
            for owner in _in_the_way(rooms[name], held, weaker):
                rooms[name].release(owner)
                staying[owner].pop(name)
            rooms[name].held.append(held)
            on_nodes[name] += 1
            missing -= 1
        placements += _placements(target, on_nodes, rooms, answers, deployments)
        if missing:
            unplaced.append(_refuse(target, missing, _answers(target, rooms, cluster), cluster))
    return Placed(tuple(sorted(placements, key=lambda p: p.identity)), tuple(unplaced))


def _keep(
    ordered: list[Target], rooms: Mapping[str, _Room], deployments: Iterable[Deployment]
) -> dict[str, Counter[str]]:
    """Hold the room of what runs and is still wanted as it is; returns replicas by model and node.

    It is laid out in the order of the claims, as it was placed; where that does not come out even, the
    larger first; and where that does not either, it is there all the same.
    """
    rank = {target.model.key: number for number, target in enumerate(ordered)}
    kept = [one for one in deployments if one.model.key in rank]
    by_claim = sorted(kept, key=lambda one: (rank[one.model.key], one.identity))
    by_size = sorted(kept, key=lambda one: (-one.footprint_bytes, one.identity))
    layout = _lay_out(by_claim, ordered, rooms)
    if layout.squeezed:
        larger_first = _lay_out(by_size, ordered, rooms)
        layout = layout if larger_first.squeezed else larger_first
    for name, room in rooms.items():
        room.held = layout.held.get(name, [])
    return layout.staying


@dataclass
class _Layout:
    """What runs, on the devices it is taken to be on; ``squeezed`` if some of it does not fit there."""

    held: dict[str, list[_Held]] = field(default_factory=dict)
    staying: dict[str, Counter[str]] = field(default_factory=dict)
    squeezed: bool = False


def _lay_out(
    deployments: Iterable[Deployment], ordered: Iterable[Target], rooms: Mapping[str, _Room]
) -> _Layout:
    targets = {target.model.key: target for target in ordered}
    result = _Layout()
    for deployment in deployments:
        key, name = deployment.identity
        target, node = targets[key], rooms[name].node if name in rooms else None
        if node is None or not node.devices or not _same_need(target, deployment, node.devices[0]):
            continue
        target = target.model_copy(update={"footprint_bytes": deployment.footprint_bytes})
        staying = result.staying.setdefault(key, Counter())
        room = _Room(node, result.held.setdefault(name, []))
        for _ in range(min(deployment.replicas, target.replicas - staying.total())):
            held = room.fit(target)
            if held is None:
                result.squeezed = True
                held = room.squeeze(target)
            if held is None:
                break
            room.held.append(held)
            staying[name] += 1
    return result


def _same_need(target: Target, deployment: Deployment, device: Device) -> bool:
    """Whether what runs can go on as it is: same precision, same share of the node, about the same need."""
    footprint = deployment.footprint_bytes
    if target.dtype != deployment.dtype or device.memory_bytes <= 0 or not footprint:
        return False
    if abs(target.footprint_bytes - footprint) > SAME_NEED * footprint:
        return False
    if device.kind is DeviceKind.CPU:
        return target.gpus is None and (deployment.num_gpus, deployment.memory_bytes) == (0, footprint)
    expected = gpus_needed(footprint, device.memory_bytes, target.gpus)
    return (deployment.num_gpus, deployment.memory_bytes) == (expected, 0)


def _choose(target: Target, rooms: Mapping[str, _Room], ignoring: frozenset[str]) -> tuple[str, _Held] | None:
    fits = [
        (_score(target, room, held, ignoring), name, held)
        for name, room in rooms.items()
        if (held := room.fit(target, ignoring)) is not None
    ]
    if not fits:
        return None
    _, name, held = min(fits, key=lambda fit: (fit[0], fit[1]))
    return name, held


def _score(
    target: Target, room: _Room, held: _Held, ignoring: frozenset[str]
) -> tuple[int, bool, bool, int, int]:
    """Smaller is better: fewest displaced, replicas together, GPU, smallest device, fullest left."""
    displaced = len(_in_the_way(room, held, ignoring))
    apart = all(other.owner != target.model.key for other in room.held)
    left = sum(room.free(ignoring)) - held.bytes_each * len(held.devices)
    device = room.node.devices[0]
    return (displaced, apart, device.kind is DeviceKind.CPU, device.memory_bytes, left)


def _in_the_way(room: _Room, held: _Held, weaker: frozenset[str]) -> tuple[str, ...]:
    """The weaker models that must leave a node for a replica to go where it was fitted."""
    free = room.free()
    short = [index for index in held.devices if free[index] < held.bytes_each]
    return tuple(
        dict.fromkeys(
            other.owner
            for other in room.held
            if other.owner in weaker and any(index in other.devices for index in short)
        )
    )


def _placements(
    target: Target,
    on_nodes: Mapping[str, int],
    rooms: Mapping[str, _Room],
    answers: Mapping[str, NodeAnswer],
    deployments: Iterable[Deployment],
) -> list[Placement]:
    running = {one.node: one for one in deployments if one.model == target.model}
    return [
        _placement(target, rooms[name].node.devices[0], name, replicas, running.get(name), answers)
        for name, replicas in sorted(on_nodes.items())
        if replicas
    ]


def _placement(
    target: Target,
    device: Device,
    node: str,
    replicas: int,
    running: Deployment | None,
    answers: Mapping[str, NodeAnswer],
) -> Placement:
    on_cpu = device.kind is DeviceKind.CPU
    gpus = 0.0 if on_cpu else gpus_needed(target.footprint_bytes, device.memory_bytes, target.gpus)
    footprint, memory = target.footprint_bytes, target.footprint_bytes if on_cpu else 0
    code = ReasonCode.STARTS_SOON if target.early else ReasonCode.BOOKED
    if running is not None:
        code = ReasonCode.ALREADY_THERE
        if _same_need(target, running, device):
            gpus, memory, footprint = running.num_gpus, running.memory_bytes, running.footprint_bytes
    return Placement(
        target=target,
        node=node,
        replicas=replicas,
        num_gpus=gpus,
        memory_bytes=memory,
        footprint_bytes=footprint,
        reason=Reason(code=code, node=node),
        considered=tuple(answers.values()),
    )


def _answers(target: Target, rooms: Mapping[str, _Room], cluster: Cluster) -> dict[str, NodeAnswer]:
    return {node.name: _answer(target, rooms[node.name]) for node in cluster.nodes}


def _answer(target: Target, room: _Room) -> NodeAnswer:
    node = room.node
    if not node.devices:
        return NodeAnswer(
            node=node.name,
            fits=False,
            kind=node.kind,
            needed_bytes=target.footprint_bytes,
            free_bytes=0,
            why_not=node.no_devices_because or "it offers no device",
        )
    free = room.free()
    device = node.devices[0]
    whole = not _shares(target, device)
    gpus, _ = _whole(target, device) if whole else (0, 0)
    empty = [i for i, bytes_ in enumerate(free) if bytes_ == node.devices[i].memory_bytes]
    strangers = (OTHERS,) if any(one.taken_share for one in node.devices) else ()
    on_gpu = device.kind is DeviceKind.GPU
    wants_gpu = target.gpus is not None and not on_gpu
    return NodeAnswer(
        node=node.name,
        fits=room.fit(target) is not None,
        kind=device.kind,
        needed_bytes=target.footprint_bytes,
        free_bytes=sum(free[i] for i in empty) if whole and on_gpu else max(free),
        needed_gpus=gpus if on_gpu else 0,
        free_gpus=len(empty) if on_gpu else 0,
        total_gpus=len(free) if on_gpu else 0,
        largest_bytes=node.memory_bytes if whole and on_gpu else device.memory_bytes,
        held_by=(*dict.fromkeys(held.name for held in room.held), *strangers),
        why_not=f"the booking asks for {target.gpus} GPUs and it has none" if wants_gpu else None,
    )


def _refuse(target: Target, missing: int, answers: Mapping[str, NodeAnswer], cluster: Cluster) -> Unplaced:
    empty = place_alone(target, cluster)
    best = max(answers.values(), key=lambda a: (a.free_bytes, a.node), default=None)
    if not any(node.devices for node in cluster.nodes):
        code, kind = ReasonCode.NO_NODES, ReasonKind.LATER
    elif not empty:
        code, kind = ReasonCode.TOO_LARGE, ReasonKind.NEVER
        best = max(answers.values(), key=lambda a: (a.total_gpus, a.largest_bytes, a.node), default=None)
    elif missing < target.replicas:
        code, kind = ReasonCode.SOME_REPLICAS, ReasonKind.LATER
    else:
        code, kind = ReasonCode.NO_ROOM, ReasonKind.LATER
    never = kind is ReasonKind.NEVER
    reason = Reason(
        code=code,
        kind=kind,
        needed_bytes=target.footprint_bytes,
        free_bytes=(best.largest_bytes if never else best.free_bytes) if best else 0,
        needed_gpus=(target.gpus or best.needed_gpus) if best else None,
        free_gpus=(best.total_gpus if never else best.free_gpus) if best else None,
        node=best.node if best else None,
        by=best.held_by if best else (),
        detail=f"{target.replicas - missing} of {target.replicas} replicas"
        if code is ReasonCode.SOME_REPLICAS
        else None,
    )
    return Unplaced(target, missing, reason, tuple(answers.values()))


def place_alone(target: Target, cluster: Cluster) -> bool:
    """Whether one replica would fit if nothing of anybody ran."""
    for node in cluster.nodes:
        bare = Node(
            name=node.name,
            node_id=node.node_id,
            devices=tuple(Device(kind=d.kind, memory_bytes=d.memory_bytes) for d in node.devices),
        )
        if _Room(bare).fit(target) is not None:
            return True
    return False
