"""Short ways to say what the tests of the scheduler are about."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from calendars.reservation import Misunderstood, ModelRequest, Reading, Reservation
from scheduler.cluster.node import Cluster, Device, DeviceKind, Node
from scheduler.planning.footprint import Loads, Sizing
from scheduler.planning.plan import Known, Policy, make_plan
from scheduler.types import (
    Catalog,
    Checkpoint,
    Deployment,
    DeploymentStatus,
    Model,
    Observed,
    Placement,
    Plan,
    Promises,
    UnknownSize,
)

GIB = 1024**3
NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
PLAIN = Sizing(
    padding_fraction=0,
    padding_bytes=0,
    lead_base_seconds=60,
    load_bytes_per_second=GIB,
    download_bytes_per_second=float("inf"),
)


def gpus(name: str, count: int, gib: float, taken: float = 0.0) -> Node:
    """A node with so many GPUs of so much memory; others hold ``taken`` GPUs of it."""
    shares = [min(1.0, max(0.0, taken - index)) for index in range(count)]
    devices = tuple(
        Device(kind=DeviceKind.GPU, memory_bytes=int(gib * GIB), taken_share=share) for share in shares
    )
    return Node(name=name, node_id=f"id-{name}", devices=devices)


def cpu(name: str, gib: float, taken: float = 0.0) -> Node:
    """A node that offers its CPU with so much memory."""
    device = Device(kind=DeviceKind.CPU, memory_bytes=int(gib * GIB), taken_share=taken)
    return Node(name=name, node_id=f"id-{name}", devices=(device,))


def cluster(*nodes: Node) -> Cluster:
    return Cluster(nodes=tuple(sorted(nodes, key=lambda node: node.name)))


def booking(
    model: str,
    start: float = -1,
    end: float = 1,
    *,
    key: str | None = None,
    booked: float = -24,
    owner: str | None = "ada@example.org",
    people: tuple[str, ...] = (),
    **request: object,
) -> Reservation:
    """A reservation of a model; times are hours from noon."""
    return Reservation(
        key=key or f"{model}@{start}",
        calendar="test",
        title=model,
        start=NOON + timedelta(hours=start),
        end=NOON + timedelta(hours=end),
        booked_at=NOON + timedelta(hours=booked),
        owner=owner,
        people=people,
        request=ModelRequest.model_validate({"model": model, **request}),
    )


def gib_model(gib: float) -> Checkpoint:
    """A checkpoint that takes so many GiB in bfloat16."""
    return Checkpoint(parameters=int(gib * GIB / 2), dtype="bfloat16", source="test")


def key(repo_id: str) -> str:
    return Model(repo_id=repo_id).key


def known(**models: float) -> dict[str, Checkpoint | UnknownSize]:
    """Checkpoints of ``org/NAME``, by name and GiB."""
    return {key(f"org/{name}"): gib_model(gib) for name, gib in models.items()}


def planned(
    reservations: Iterable[Reservation],
    on: Cluster,
    sizes: dict[str, Checkpoint | UnknownSize],
    *,
    running: Iterable[Deployment] = (),
    at: datetime = NOON,
    catalog: Catalog | None = None,
    sizing: Sizing = PLAIN,
    misunderstood: tuple[Misunderstood, ...] = (),
    directory_version: str | None = None,
    others: tuple[str, ...] = (),
    previous: Plan | None = None,
    policy: Policy | None = None,
    loads: Loads | None = None,
) -> Plan:
    reading = Reading(calendar="test", reservations=tuple(reservations), misunderstood=misunderstood)
    observed = Observed(
        cluster=on,
        deployments=tuple(running),
        directory_version=directory_version,
        others=others,
        fingerprint="seen",
    )
    known = Known(
        catalog=catalog or Catalog(),
        checkpoints=sizes,
        loads=loads or Loads(sizing),
        policy=policy or Policy(),
        previous=previous.promises if previous else Promises(),
    )
    return make_plan((reading,), observed, at, known)


def deployed(
    placement: Placement, status: DeploymentStatus = DeploymentStatus.SERVING, **changes: object
) -> Deployment:
    """What Serve reports once a placement has been carried out."""
    target = placement.target
    fields = {
        "application": f"app-{target.model.repo_id}-{placement.node}",
        "model": target.model,
        "node": placement.node,
        "replicas": placement.replicas,
        "num_gpus": placement.num_gpus,
        "memory_bytes": placement.memory_bytes,
        "footprint_bytes": placement.footprint_bytes,
        "dtype": target.dtype,
        "reservations": target.reservations,
        "status": status,
        "ready_replicas": placement.replicas if status is DeploymentStatus.SERVING else 0,
    }
    return Deployment.model_validate(fields | changes)


def carried_out(plan: Plan, status: DeploymentStatus = DeploymentStatus.SERVING) -> tuple[Deployment, ...]:
    return tuple(deployed(placement, status) for placement in plan.placements)


def where(plan: Plan) -> dict[str, dict[str, int]]:
    """Replicas by model and node."""
    result: dict[str, dict[str, int]] = {}
    for placement in plan.placements:
        name = placement.target.model.repo_id.removeprefix("org/")
        result.setdefault(name, {})[placement.node] = placement.replicas
    return result


def verdicts(plan: Plan) -> dict[str, str]:
    """What each event was told, by its title."""
    return {
        verdict.title.removeprefix("org/"): f"{verdict.state.value}: {verdict.reason.code.value}"
        for verdict in plan.verdicts
    }


def actions(plan: Plan) -> list[str]:
    """What is done, as ``kind model node reason``; the gateway's routing left out."""
    return [
        f"{a.kind.value} {a.model.repo_id.removeprefix('org/')} {a.node} ({a.reason.code.value})"
        for a in plan.actions
        if a.model
    ]
