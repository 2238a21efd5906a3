"""Reasons, sizes and times in words."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, tzinfo

from scheduler.cluster.node import DeviceKind
from scheduler.types import NodeAnswer, Reason, ReasonCode

GIB = 1024**3

PLAIN = {
    ReasonCode.BOOKED: "it is booked for now",
    ReasonCode.STARTS_SOON: "its booking starts soon",
    ReasonCode.STARTS_LATER: "its booking starts later",
    ReasonCode.ALREADY_THERE: "it runs there already",
    ReasonCode.NO_BOOKING: "no booking asks for it any more",
    ReasonCode.REPLICAS_CHANGED: "the number of replicas has changed",
    ReasonCode.NEEDS_CHANGED: "what it needs of its node has changed",
    ReasonCode.CONTRACT_CHANGED: "it was deployed by another version of this service",
    ReasonCode.BOOKING_CHANGED: "the bookings behind it have changed",
    ReasonCode.LOOKING_UP: "its size is still being looked up",
    ReasonCode.ROUTES_CHANGED: "what clients may ask for, or what is booked next, has changed",
    ReasonCode.GATEWAY_MISSING: "no gateway is running",
}


def sentence(reason: Reason) -> str:
    """One clause without a full stop, naming what is short and by how much."""
    if text := PLAIN.get(reason.code):
        return text
    return SPOKEN[reason.code](reason)


def _too_large(reason: Reason) -> str:
    if not reason.needed_gpus:
        needs, has = size(reason.needed_bytes), f"{size(reason.free_bytes)} even when empty"
    elif not reason.free_gpus:
        return f"it needs {gpus(reason.needed_gpus)}, and no node has any"
    else:
        needs = f"{gpus(reason.needed_gpus)} and {size(reason.needed_bytes)}"
        has = f"{gpus(reason.free_gpus)} and {size(reason.free_bytes)} even when empty"
    return f"it needs {needs} on one node, and the largest, {reason.node}, has {has}"


def _no_room(reason: Reason) -> str:
    if reason.needed_gpus and reason.needed_gpus >= 1:
        short = (
            f"it needs {gpus(reason.needed_gpus)} empty on one node; {reason.node} has the most, "
            f"{gpus(reason.free_gpus or 0)}"
        )
    else:
        short = (
            f"it needs {size(reason.needed_bytes)} on one device; the most that is free is "
            f"{size(reason.free_bytes)} on {reason.node}"
        )
    return short + (
        f", where {listed(reason.by)} run" + ("s" if len(reason.by) == 1 else "") if reason.by else ""
    )


def _displaced(reason: Reason) -> str:
    by = f", which {listed(reason.by)} takes" if reason.by else ""
    return f"a stronger booking needs the room on {reason.node}{by}"


SPOKEN: dict[ReasonCode, Callable[[Reason], str]] = {
    ReasonCode.MISUNDERSTOOD: lambda r: (r.detail or "").rstrip("."),
    ReasonCode.UNKNOWN_MODEL: lambda r: f"{r.detail}",
    ReasonCode.NOT_ALLOWED: lambda r: f"{r.detail}",
    ReasonCode.SIZE_UNKNOWN: lambda r: f"{r.detail}",
    ReasonCode.TOO_LARGE: _too_large,
    ReasonCode.NO_ROOM: _no_room,
    ReasonCode.NO_NODES: lambda r: "no node of the cluster offers a device",
    ReasonCode.SOME_REPLICAS: lambda r: f"only {r.detail} found room: {_no_room(r)}",
    ReasonCode.DISPLACED: _displaced,
    ReasonCode.NODE_LOST: lambda r: f"node {r.node} is gone",
    ReasonCode.MOVED: lambda r: f"it moves to {r.node}",
}


def answer(node: NodeAnswer) -> str:
    """What one node could offer, in one clause."""
    if node.why_not:
        return f"{node.node}: {node.why_not}"
    device = "CPU memory" if node.kind is DeviceKind.CPU else "GPU memory"
    if node.needed_gpus >= 1:
        free = f"{gpus(node.free_gpus)} empty of the {gpus(node.needed_gpus)} it takes"
    else:
        free = f"{size(node.free_bytes)} of {device} free, {size(node.needed_bytes)} needed"
    holders = f", held by {listed(node.held_by)}" if node.held_by and not node.fits else ""
    return f"{node.node}: {free}{holders}"


def size(count: int | None) -> str:
    """Bytes in GiB with one decimal, small ones in MiB."""
    if count is None:
        return "an unknown size"
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / 1024**2:.0f} MiB"


def gpus(count: float) -> str:
    """A number of GPUs: whole, or a share of one."""
    if 0 < count < 1:
        return f"{count:.0%} of a GPU"
    return f"{count:g} GPU" + ("" if count == 1 else "s")


def listed(words: tuple[str, ...]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1] if words else "")))


def moment(instant: datetime, at: datetime, zone: tzinfo | None = None) -> str:
    """A time in a zone (this machine's, unless given): with the day where it is not today's."""
    local, today = instant.astimezone(zone), at.astimezone(zone).date()
    return local.strftime("%H:%M" if local.date() == today else "%a %d %b %H:%M")
