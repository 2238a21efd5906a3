"""Reasons, sizes and times in words."""

from __future__ import annotations

import math
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
    ReasonCode.BEYOND_HORIZON: "it starts beyond the horizon, and is judged when it comes nearer",
    ReasonCode.LINGERS: "its booking has ended, and nobody needs the room yet",
}


def sentence(reason: Reason) -> str:
    """One clause without a full stop, naming what is short and by how much."""
    if text := PLAIN.get(reason.code):
        return f"{text}, {reason.detail}" if reason.detail else text
    return SPOKEN[reason.code](reason)


def stopped(words: str) -> str:
    """Words as a whole sentence: with a full stop, unless they end with a mark of their own."""
    return words if words.endswith((".", "?", "!")) else f"{words}."


def _too_large(reason: Reason) -> str:
    if reason.detail:
        return reason.detail
    if not reason.needed_gpus:
        needs, has = size(reason.needed_bytes), f"{size(reason.free_bytes)} even when empty"
    elif not reason.free_gpus:
        return f"it needs {gpus(reason.needed_gpus)}, and no node has any"
    else:
        needs = f"{gpus(reason.needed_gpus)} and {size(reason.needed_bytes)}"
        has = f"{gpus(reason.free_gpus)} and {size(reason.free_bytes)} even when empty"
    return f"it needs {needs} on one node, and the largest, {reason.node}, has {has}"


def _no_room(reason: Reason) -> str:
    if reason.code is ReasonCode.NO_ROOM and reason.detail:
        return reason.detail
    needs_gpus = reason.needed_gpus and reason.needed_gpus >= 1
    if reason.node is None:
        wants = gpus(reason.needed_gpus or 0) if needs_gpus else size(reason.needed_bytes)
        where = "empty on one node" if needs_gpus else "on one device"
        return f"it needs {wants} {where}, and no open node has that free for as long as it lasts"
    if needs_gpus:
        short = (
            f"it needs {gpus(reason.needed_gpus or 0)} empty on one node; {reason.node} comes nearest, "
            f"with {gpus(reason.free_gpus or 0)}"
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


def _promise_broken(reason: Reason) -> str:
    """What became of the promise in the planner's words, where it says so, and what it would take."""
    lost = f": {reason.detail}" if reason.detail else f": node {reason.node} is gone" if reason.node else ""
    needs = ""
    if reason.needed_gpus and reason.needed_gpus >= 1:
        needs = f"; it would take {gpus(reason.needed_gpus)} empty on one node"
    elif reason.needed_bytes:
        needs = f"; it would take {size(reason.needed_bytes)} on one device"
    by = f", where {listed(reason.by)} would have to leave" if needs and reason.by else ""
    return f"it was promised and can be kept no longer{lost}{needs}{by}"


SPOKEN: dict[ReasonCode, Callable[[Reason], str]] = {
    ReasonCode.MISUNDERSTOOD: lambda r: (r.detail or "it says nothing that is known").rstrip("."),
    ReasonCode.UNKNOWN_MODEL: lambda r: r.detail or r.code.value,
    ReasonCode.NOT_ALLOWED: lambda r: r.detail or r.code.value,
    ReasonCode.SIZE_UNKNOWN: lambda r: r.detail or r.code.value,
    ReasonCode.TOO_LARGE: _too_large,
    ReasonCode.NO_ROOM: _no_room,
    ReasonCode.NO_NODES: lambda r: "no node of the cluster offers a device",
    ReasonCode.SOME_REPLICAS: lambda r: f"only {r.detail} found room: {_no_room(r)}",
    ReasonCode.DISPLACED: _displaced,
    ReasonCode.NODE_LOST: lambda r: f"node {r.node} is gone",
    ReasonCode.MOVED: lambda r: f"it moves to {r.node}",
    ReasonCode.NODE_DRAINED: lambda r: f"the operator has {r.node or 'its node'} emptied",
    ReasonCode.PROMISE_BROKEN: _promise_broken,
    ReasonCode.LOAD_FAILED: lambda r: f"it could not be loaded: {(r.detail or '').rstrip('.')}",
    ReasonCode.EVICTED: lambda r: f"the operator has taken it down {r.detail or ''}".rstrip(),
}


def answer(node: NodeAnswer, at: datetime | None = None, zone: tzinfo | None = None) -> str:
    """What one node could offer, in one clause; with ``at``, the present, until and from when as well."""
    until = _free_when(node, at, zone) if at else ""
    if node.why_not:
        return f"{node.node}: {node.why_not}{until}"
    device = "CPU memory" if node.kind is DeviceKind.CPU else "GPU memory"
    if node.needed_gpus >= 1:
        free = f"{gpus(node.free_gpus)} empty of the {gpus(node.needed_gpus)} it takes"
    else:
        free = f"{size(node.free_bytes)} of {device} free, {size(node.needed_bytes)} needed"
    holders = f", held by {listed(node.held_by)}" if node.held_by and not node.fits else ""
    return f"{node.node}: {free}{holders}{until}"


def _free_when(node: NodeAnswer, at: datetime, zone: tzinfo | None) -> str:
    """Until when a replica would have room, and from when on there is more."""
    parts = []
    if node.free_until:
        parts.append(f"enough until {moment(node.free_until, at, zone)}")
    if node.free_from:
        parts.append(f"more from {moment(node.free_from, at, zone)} on")
    return f"; {', '.join(parts)}" if parts else ""


def offers(node: NodeAnswer) -> str:
    """What a node that fits has free: ``8 GPUs empty``, ``20.0 GiB free``."""
    return f"{gpus(node.free_gpus)} empty" if node.needed_gpus >= 1 else f"{size(node.free_bytes)} free"


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


def duration(seconds: float) -> str:
    """``40 s``, ``4 min``, ``1 h 5 min``, ``2 days 3 h``: two units at most, the smaller one rounded up."""
    seconds = math.ceil(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes = math.ceil(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h" + (f" {minutes} min" if minutes else "")
    days, hours = divmod(hours + (minutes > 0), 24)
    return f"{days} day{'s' if days > 1 else ''}" + (f" {hours} h" if hours else "")


def moment(instant: datetime, at: datetime, zone: tzinfo | None = None) -> str:
    """A time in a zone (this machine's, unless given): with the day where it is not today's."""
    local, today = instant.astimezone(zone), at.astimezone(zone).date()
    return local.strftime("%H:%M" if local.date() == today else "%a %d %b %H:%M")
