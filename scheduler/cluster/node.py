"""A node of the cluster and the devices models can be placed on."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from calendars.reservation import Frozen


class DeviceKind(StrEnum):
    """What weights live in."""

    GPU = "gpu"
    CPU = "cpu"


class Device(Frozen):
    """One GPU, or the CPU of a node as a single device.

    ``taken_bytes`` and ``taken_share`` is what applications that are not ours hold of it; Ray gives
    GPUs out by share, so a share of a GPU counts as that share of its memory.
    """

    kind: DeviceKind
    memory_bytes: int = Field(ge=0)
    taken_share: float = Field(default=0.0, ge=0, le=1)

    @property
    def free_bytes(self) -> int:
        """Memory that is not taken by others."""
        return int(self.memory_bytes * (1 - self.taken_share))


class Node(Frozen):
    """One raylet that is alive, by its stable name.

    ``devices`` is empty where a node offers none, with the reason in ``no_devices_because``. On a
    ``cordoned`` node what runs stays until its bookings end; from a ``draining`` one it is moved.
    """

    name: str
    node_id: str
    devices: tuple[Device, ...] = ()
    accelerator: str | None = None
    is_head: bool = False
    no_devices_because: str | None = None
    cordoned: bool = False
    draining: bool = False

    @property
    def closed(self) -> bool:
        """Whether the operator lets nothing new onto it."""
        return self.cordoned or self.draining

    @property
    def kind(self) -> DeviceKind:
        """What its devices are; nodes are never mixed."""
        return self.devices[0].kind if self.devices else DeviceKind.CPU

    @property
    def kind_name(self) -> str:
        """What such nodes are called: their accelerator, or the kind of their devices."""
        return self.accelerator or self.kind.value

    @property
    def memory_bytes(self) -> int:
        """Memory of all its devices."""
        return sum(device.memory_bytes for device in self.devices)


class Cluster(Frozen):
    """All nodes that are alive, in the order of their names."""

    nodes: tuple[Node, ...] = ()

    def named(self, name: str) -> Node | None:
        """The node of that name, if it is alive."""
        return next((node for node in self.nodes if node.name == name), None)

    def without(self, name: str) -> Cluster:
        """The same cluster with one node lost."""
        return Cluster(nodes=tuple(node for node in self.nodes if node.name != name))
