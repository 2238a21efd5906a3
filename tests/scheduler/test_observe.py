"""What Ray's state API answers, made into nodes and devices. The rows are cut from real answers."""

from __future__ import annotations

from typing import Any

from scheduler.cluster.node import Cluster, DeviceKind
from scheduler.cluster.observe import cluster_from
from scheduler.settings import GIB, PlanningSettings

MEMORY = 20 * GIB


def row(
    name: str | None, node_id: str = "", gpus: int = 0, state: str = "ALIVE", **labels: str
) -> dict[str, Any]:
    resources: dict[str, float] = {"memory": float(MEMORY), "CPU": 4.0, "object_store_memory": 1e8}
    if gpus:
        resources["GPU"] = float(gpus)
    named = {"ndif.us/node": name} if name else {}
    renamed = {key.replace("__", "/").replace("_", "-"): value for key, value in labels.items()}
    return {
        "node_id": (node_id or name or "").ljust(56, "0"),
        "state": state,
        "is_head_node": False,
        "resources_total": resources,
        "labels": named | renamed,
        "start_time_ms": 1,
    }


def actor(node: dict[str, Any], name: str = "", **resources: float) -> dict[str, Any]:
    return {"name": name, "node_id": node["node_id"], "required_resources": resources}


def seen(
    *nodes: dict[str, Any],
    actors: tuple[dict[str, Any], ...] = (),
    ours: tuple[str, ...] = (),
    **settings: Any,
) -> Cluster:
    return cluster_from(nodes, actors, PlanningSettings(**settings), ours)


def test_a_gpu_nodes_memory_comes_from_its_label() -> None:
    (node,) = seen(row("a", gpus=2, **{"ndif.us__gpu_memory_mib": "81920"})).nodes
    assert [device.memory_bytes for device in node.devices] == [80 * GIB, 80 * GIB]


def test_without_a_label_it_comes_from_the_settings_by_accelerator_type() -> None:
    raw = row("a", gpus=1, **{"ray.io__accelerator_type": "H100"})
    assert seen(raw, gpu_memory_gib={"H100": 80}).nodes[0].memory_bytes == 80 * GIB


def test_gpus_of_unknown_memory_are_not_offered_and_the_node_says_how_to_change_that() -> None:
    (node,) = seen(row("a", gpus=4)).nodes
    assert node.devices == ()
    assert "ndif.us/gpu-memory-mib" in (node.no_devices_because or "")


def test_a_node_without_gpus_offers_a_share_of_its_memory_as_one_device() -> None:
    (node,) = seen(row("a"), cpu_memory_share=0.5).nodes
    assert [(d.kind, d.memory_bytes) for d in node.devices] == [(DeviceKind.CPU, 10 * GIB)]


def test_cpus_take_models_only_where_no_node_has_a_gpu_unless_told_otherwise() -> None:
    gpu, cpu = row("g", gpus=1, **{"ndif.us__gpu_memory_mib": "1024"}), row("c")
    assert seen(gpu, cpu).named("c").devices == ()  # type: ignore[union-attr]
    assert len(seen(gpu, cpu, cpu_devices=True).named("c").devices) == 1  # type: ignore[union-attr]
    assert seen(cpu, cpu_devices=False).named("c").devices == ()  # type: ignore[union-attr]


def test_dead_nodes_are_not_there_though_ray_still_lists_their_resources() -> None:
    assert seen(row("a", state="DEAD"), row("b")).named("a") is None


def test_a_node_without_a_name_offers_nothing_and_says_why() -> None:
    (node,) = seen(row(None, node_id="abcdef")).nodes
    assert (node.name, node.devices) == ("abcdef00", ())
    assert "ndif.us/node" in (node.no_devices_because or "")


def test_the_second_node_of_a_name_offers_nothing() -> None:
    first, second = row("a", "1") | {"start_time_ms": 1}, row("a", "2") | {"start_time_ms": 2}
    found = seen(second, first)
    assert found.named("a").node_id.startswith("1")  # type: ignore[union-attr]
    (twin,) = [node for node in found.nodes if node.name != "a"]
    assert twin.devices == ()


def test_what_others_hold_is_taken_and_what_ours_hold_is_not() -> None:
    raw = row("a", gpus=4, **{"ndif.us__gpu_memory_mib": "1024"})
    actors = (
        actor(raw, GPU=1.5, CPU=1),
        actor(raw, "SERVE_REPLICA::theirs#D#1", GPU=1),
        actor(raw, "SERVE_REPLICA::ndif-model-x#Model#1", GPU=1),
    )
    (node,) = seen(raw, actors=actors, ours=("ndif-model-x",)).nodes
    assert [device.taken_share for device in node.devices] == [1.0, 1.0, 0.5, 0.0]


def test_memory_that_others_hold_is_taken_from_the_cpu_device() -> None:
    raw = row("a")
    (node,) = seen(raw, actors=(actor(raw, memory=MEMORY / 4),), cpu_memory_share=0.5).nodes
    assert node.devices[0].free_bytes == 5 * GIB
