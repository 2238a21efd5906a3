"""Reads the cluster's nodes and who holds what of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from scheduler.cluster.node import Cluster, Device, DeviceKind, Node
from scheduler.settings import GIB, MIB, PlanningSettings
from serve_apps.contract import GPU_MEMORY_LABEL, NODE_LABEL

ACCELERATOR_LABEL = "ray.io/accelerator-type"
ACCELERATOR_RESOURCE = "accelerator_type:"
REPLICA_NAME = "SERVE_REPLICA::"


def cluster_from(
    nodes: Iterable[Mapping[str, Any]],
    actors: Iterable[Mapping[str, Any]],
    settings: PlanningSettings,
    ours: Collection[str],
) -> Cluster:
    """The cluster in what Ray's state API answered (its ``nodes`` and its living ``actors``).

    A node's name is its ``ndif.us/node`` label, else Ray's node id shortened; a second node of the
    same name offers nothing, since applications could not be pinned to it. A GPU's memory is the
    node's ``ndif.us/gpu-memory-mib`` label, else the settings' figure for its accelerator type. A
    node without GPUs offers its CPU as one device with a share of the memory Ray may give out;
    unless the settings say otherwise, only where no node of the cluster has a GPU.
    """
    alive = [node for node in nodes if node["state"] == "ALIVE"]
    any_gpu = any(_resource(node, "GPU") >= 1 for node in alive)
    offer_cpus = settings.cpu_devices if settings.cpu_devices is not None else not any_gpu
    taken = _taken_by_others(actors, ours)
    result: dict[str, Node] = {}
    for raw in sorted(alive, key=lambda node: (node.get("start_time_ms", 0), node["node_id"])):
        node = _node(raw, settings, offer_cpus, taken.get(raw["node_id"], {}))
        if node.name in result:
            node = Node(
                name=f"{node.name} ({node.node_id[:8]})",
                node_id=node.node_id,
                no_devices_because=f"another node is called {node.name}, too",
            )
        result[node.name] = node
    return Cluster(nodes=tuple(result[name] for name in sorted(result)))


def _resource(node: Mapping[str, Any], name: str) -> float:
    return float(node["resources_total"].get(name, 0))


def _taken_by_others(
    actors: Iterable[Mapping[str, Any]], ours: Collection[str]
) -> dict[str, dict[str, float]]:
    """GPUs and bytes of memory by node id, held by actors that are no replicas of ours."""
    taken: dict[str, dict[str, float]] = {}
    for actor in actors:
        name = actor.get("name") or ""
        application = name.removeprefix(REPLICA_NAME).split("#")[0] if name.startswith(REPLICA_NAME) else ""
        if application in ours:
            continue
        on_node = taken.setdefault(actor.get("node_id") or "", {})
        for resource in ("GPU", "memory"):
            amount = (actor.get("required_resources") or {}).get(resource, 0)
            on_node[resource] = on_node.get(resource, 0) + float(amount)
    return taken


def _node(
    raw: Mapping[str, Any], settings: PlanningSettings, offer_cpus: bool, taken: Mapping[str, float]
) -> Node:
    labels: Mapping[str, str] = raw.get("labels") or {}
    name = labels.get(NODE_LABEL)
    gpus = int(_resource(raw, "GPU"))
    accelerator = labels.get(ACCELERATOR_LABEL) or next(
        (
            key.removeprefix(ACCELERATOR_RESOURCE)
            for key in raw["resources_total"]
            if ACCELERATOR_RESOURCE in key
        ),
        None,
    )
    devices: tuple[Device, ...] = ()
    problem: str | None = None
    if name is None:
        problem = f"it has no name: start it with the label {NODE_LABEL}=NAME"
    elif gpus:
        memory = _gpu_memory(labels, accelerator, settings)
        devices = _gpus(gpus, memory, taken.get("GPU", 0)) if memory else ()
        problem = None if memory else _unknown_memory(gpus, accelerator)
    elif offer_cpus:
        devices = (_cpu(_resource(raw, "memory"), settings, taken.get("memory", 0)),)
    else:
        problem = "it has no GPU, and CPUs take models only where no node has one"
    return Node(
        name=name or raw["node_id"][:8],
        node_id=raw["node_id"],
        devices=devices,
        accelerator=accelerator,
        is_head=bool(raw.get("is_head_node")),
        no_devices_because=problem,
    )


def _unknown_memory(gpus: int, accelerator: str | None) -> str:
    kind = accelerator or "their type"
    return (
        f"nothing tells the memory of its {gpus} GPUs: start it with the label "
        f"{GPU_MEMORY_LABEL}=MIB, or name {kind} under planning.gpu_memory_gib"
    )


def _gpu_memory(labels: Mapping[str, str], accelerator: str | None, settings: PlanningSettings) -> int:
    label = labels.get(GPU_MEMORY_LABEL, "")
    if label.isdecimal():
        return int(label) * MIB
    return int(settings.gpu_memory_gib.get(accelerator or "", 0) * GIB)


def _gpus(count: int, memory_bytes: int, taken: float) -> tuple[Device, ...]:
    """GPUs with what others hold of them, as if those had filled one after the other."""
    shares = [min(1.0, max(0.0, taken - index)) for index in range(count)]
    return tuple(
        Device(kind=DeviceKind.GPU, memory_bytes=memory_bytes, taken_share=share) for share in shares
    )


def _cpu(ray_memory: float, settings: PlanningSettings, taken: float) -> Device:
    memory = math.floor(ray_memory * settings.cpu_memory_share)
    share = min(1.0, taken / memory) if memory else 1.0
    return Device(kind=DeviceKind.CPU, memory_bytes=memory, taken_share=share)
