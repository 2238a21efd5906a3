"""Why a booking finds no room, what is in its way, and what would help."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from operator import attrgetter

from calendars.reservation import Dtype
from scheduler.cluster.node import DeviceKind, Node
from scheduler.planning.admission import Admission
from scheduler.planning.book import WHOLE, Need
from scheduler.planning.footprint import SHARE_STEPS, Sizing
from scheduler.planning.holds import Ask, Hold
from scheduler.planning.openings import FOREVER
from scheduler.planning.targets import Booked
from scheduler.types import (
    Checkpoint,
    Help,
    HelpCode,
    NodeAnswer,
    Reason,
    ReasonCode,
    ReasonKind,
)

OTHERS = "applications that are not ours"
MAX_ANSWERS = 32
"""So many nodes are asked what they could offer, those that lack least first."""
NODES_SEARCHED = 8
"""So many nodes are searched for the fewest bookings in the way."""
SMALLER: dict[Dtype, tuple[Dtype, ...]] = {
    "float32": ("bfloat16", "int8"),
    "bfloat16": ("int8",),
    "float16": ("int8",),
    "int8": (),
}
"""What weights may be kept in instead, the least change first."""
SLOTS_TRIED = 8
"""So many later starts are tried for a booking of several replicas."""


def nearest(admission: Admission, need: Need, start: float, end: float) -> tuple[int, ...]:
    """The numbers of the nodes that could seat a replica, were they emptier, those that lack least first."""
    return tuple(islice(admission.book.nearly(need, start, end), MAX_ANSWERS))


def answers(
    admission: Admission,
    near: Collection[int],
    need: Need,
    start: float,
    end: float,
    booked: Mapping[str, Booked],
    known: dict[int, tuple[int, NodeAnswer]] | None = None,
) -> tuple[NodeAnswer, ...]:
    """What each node could offer one replica throughout a window, the ``nearest`` first.

    ``known`` are answers of before, each with the version of its node then; it is brought up to date.
    """
    book, known = admission.book, {} if known is None else known
    others = (number for number in range(len(book.nodes)) if number not in near)
    numbers = [*near, *islice(others, MAX_ANSWERS - len(near))]
    for number, version in zip(numbers, admission.versions[numbers].tolist(), strict=True):
        if number not in known or known[number][0] != version:
            known[number] = (version, _answer(admission, number, need, start, end, booked))
    return tuple(known[number][1] for number in numbers)


def _answer(
    admission: Admission, number: int, need: Need, start: float, end: float, booked: Mapping[str, Booked]
) -> NodeAnswer:
    book, node = admission.book, admission.book.nodes[number]
    if not node.devices:
        return NodeAnswer(
            node=node.name,
            fits=False,
            kind=node.kind,
            needed_bytes=need.footprint_bytes,
            free_bytes=0,
            why_not=node.no_devices_because or "it offers no device",
        )
    first, last = book.span(start, end)
    fit = book.fit(need)
    whole, on_gpu = int(fit.whole[number]), node.kind is DeviceKind.GPU
    device = node.devices[0].memory_bytes
    free_gpus = min(book.pool.lowest(number, first, last), len(node.devices))
    lanes = [
        least
        for lane in book.lanes_of.get(number, ())
        if (least := book.lanes.lowest(lane, first, last)) < WHOLE or lane < book.fixed
    ]
    on_lanes = max(lanes, default=0) * device // SHARE_STEPS
    free = max(free_gpus * device if whole else (device if free_gpus > 0 else 0), 0 if whole else on_lanes)
    seat = None if node.closed else book.room_on(number, need, start, end)
    holders = [hold for hold in admission.there(number) if hold.start < end and hold.end > start]
    holders.sort(key=attrgetter("rank"))
    strangers = (OTHERS,) if any(one.taken_share for one in node.devices) else ()
    return NodeAnswer(
        node=node.name,
        fits=seat is not None,
        kind=node.kind,
        needed_bytes=need.footprint_bytes,
        free_bytes=free,
        needed_gpus=whole if on_gpu else 0,
        free_gpus=max(free_gpus, 0) if on_gpu else 0,
        largest_bytes=node.memory_bytes if whole else device,
        total_gpus=len(node.devices) if on_gpu else 0,
        held_by=(*_names(holders, booked), *strangers),
        why_not=_why_not(node, need, bool(whole or fit.share[number])),
        free_from=None if seat else _moment(_free_from(holders, start, end)),
    )


def _names(holders: Iterable[Hold], booked: Mapping[str, Booked]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(booked[min(hold.keys)].model.name for hold in holders))


def _free_from(holders: Iterable[Hold], start: float, end: float) -> float | None:
    """When the first of those that hold a node ends, if within the window or after it."""
    return min((hold.end for hold in holders if hold.start <= start), default=None)


def _why_not(node: Node, need: Need, possible: bool) -> str | None:
    if node.closed:
        return "the operator lets nothing new onto it"
    if need.gpus is not None and node.kind is DeviceKind.CPU:
        return f"the booking asks for {need.gpus} GPUs and it has none"
    if need.accelerator and not possible:
        return f"the booking asks for {need.accelerator} and it has {node.accelerator or 'none'}"
    return None


def reason(admission: Admission, ask: Ask, got: int, considered: Iterable[NodeAnswer]) -> Reason:
    """Why a booking did not get all it asked for."""
    considered = tuple(considered)
    open_ones = [one for one in considered if one.why_not is None] or list(considered)
    best = max(open_ones, key=lambda a: (a.free_bytes, a.node), default=None)
    if not any(node.devices for node in admission.book.nodes):
        code, kind = ReasonCode.NO_NODES, ReasonKind.LATER
    elif not admission.book.possible(ask.need):
        code, kind = ReasonCode.TOO_LARGE, ReasonKind.NEVER
        best = max(open_ones, key=lambda a: (a.total_gpus, a.largest_bytes, a.node), default=None)
    else:
        code, kind = (ReasonCode.SOME_REPLICAS if got else ReasonCode.NO_ROOM), ReasonKind.LATER
    never = kind is ReasonKind.NEVER
    return Reason(
        code=code,
        kind=kind,
        needed_bytes=ask.need.footprint_bytes,
        free_bytes=(best.largest_bytes if never else best.free_bytes) if best else 0,
        needed_gpus=(ask.need.gpus or best.needed_gpus) if best else None,
        free_gpus=(best.total_gpus if never else best.free_gpus) if best else None,
        node=best.node if best else None,
        by=best.held_by if best else (),
        detail=f"{got} of {ask.replicas} replicas" if code is ReasonCode.SOME_REPLICAS else None,
    )


def earliest(admission: Admission, ask: Ask, start: float, first: float | None) -> float | None:
    """The first start from which all replicas of a booking fit for as long as it lasts.

    Args:
        first: that of one replica, from ``start`` on.
    """
    seconds = ask.end - ask.start
    for _ in range(SLOTS_TRIED):
        if first is None:
            return None
        moved = replace(ask, key=f"{ask.key} later", start=first, end=first + seconds)
        if ask.replicas == 1 or admission.would(moved) == ask.replicas:
            return first
        start = min((hold.end for hold in admission.holds.values() if hold.end > first), default=FOREVER)
        if start == FOREVER:
            return None
        found = admission.book.openings(ask.need, start).first(seconds)
        first = found[0] if found else None
    return None


def in_the_way(
    admission: Admission,
    near: Iterable[int],
    ask: Ask,
    booked: Mapping[str, Booked],
    known: dict[int, tuple[int, frozenset[str] | None]],
) -> tuple[str, ...]:
    """The titles of the fewest bookings whose going would make room for one more replica on some node.

    The first of those that are ``near`` are looked at. ``known`` are those of before by node, each with its
    version then; it is brought up to date.
    """
    fewest: frozenset[str] | None = None
    for number in islice(near, NODES_SEARCHED):
        version = int(admission.versions[number])
        if number not in known or known[number][0] != version:
            known[number] = (version, admission.in_the_way(number, ask))
        keys = known[number][1]
        if keys is not None and (fewest is None or len(keys) < len(fewest)):
            fewest = keys
    return tuple(sorted({booked[key].reservation.title for key in fewest or ()}))


def helps(admission: Admission, ask: Ask, one: Booked, sizing: Sizing) -> Iterable[Help]:
    fits = admission.would(ask) if ask.replicas > 1 else 0
    if fits:
        yield Help(code=HelpCode.FEWER_REPLICAS, value=str(fits))
    tried = replace(ask, key=f"{ask.key} otherwise")
    for dtype in SMALLER[one.dtype] if one.parameters else ():
        less = sizing.footprint_bytes(Checkpoint(parameters=one.parameters, source="booking"), dtype)
        if admission.would(replace(tried, need=replace(ask.need, footprint_bytes=less))) == ask.replicas:
            yield Help(code=HelpCode.SMALLER_DTYPE, value=dtype)
            break
    if ask.need.accelerator:
        anywhere = replace(ask.need, accelerator=None)
        if admission.would(replace(tried, need=anywhere)) == ask.replicas:
            yield Help(code=HelpCode.ANY_ACCELERATOR, value="any")
    if ask.need.gpus:
        fewer = replace(ask.need, gpus=None)
        if admission.would(replace(tried, need=fewer)) == ask.replicas:
            whole = admission.book.fit(fewer).whole
            yield Help(code=HelpCode.FEWER_GPUS, value=str(int(whole[whole > 0].min(initial=1))))


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None or seconds == FOREVER else datetime.fromtimestamp(seconds, UTC)
