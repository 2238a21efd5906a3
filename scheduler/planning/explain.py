"""Why a booking finds no room, and what each node could offer it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from itertools import islice
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from scheduler.cluster.node import DeviceKind, Node
from scheduler.planning.admission import Admission
from scheduler.planning.book import Book
from scheduler.planning.footprint import SHARE_STEPS
from scheduler.planning.holds import Ask, Hold, wanted_by
from scheduler.planning.needs import Need
from scheduler.planning.openings import FOREVER
from scheduler.planning.room import room
from scheduler.planning.targets import Booked
from scheduler.types import NodeAnswer, Reason, ReasonCode, ReasonKind

OTHERS = "applications that are not ours"
MAX_ANSWERS = 32
"""So many nodes are asked what they could offer, those that lack least first."""


def nearest(admission: Admission, need: Need, start: float, end: float) -> tuple[int, ...]:
    """The numbers of the nodes that could seat a replica, were they emptier, those that lack least first.

    Where none could, ever, all of them, those that come nearest to it first.
    """
    book = admission.book
    if not book.possible(need):
        order = np.lexsort((np.arange(len(book.nodes)), -_nearness(book, need)))
        return tuple(order[:MAX_ANSWERS].tolist())
    return tuple(islice(book.nearly(need, start, end), MAX_ANSWERS))


def _nearness(book: Book, need: Need) -> NDArray[np.float64]:
    """By node, how near it comes to a need if it is empty: the share of the GPUs, or all its memory."""
    fit = book.fit(need)
    if fit.wholes or fit.shares:
        return np.where(fit.whole > 0, book.devices / np.maximum(fit.whole, 1), fit.share > 0)
    return book.devices * book.memory


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
    admission: Admission,
    number: int,
    need: Need,
    start: float,
    end: float,
    booked: Mapping[str, Booked],
    with_times: bool = True,
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
    fit = book.fit(need)
    whole, on_gpu = int(fit.whole[number]), node.kind is DeviceKind.GPU
    device = node.devices[0].memory_bytes
    has = room(book, number, need, start, end, with_times)
    free_gpus = has.free if whole else book.pool.lowest(number, *book.span(start, end))
    why_not = _why_not(node, need, bool(whole or fit.share[number]))
    holders = [hold for hold in admission.there(number) if hold.start < end and hold.end > start]
    holders.sort(key=attrgetter("start", "end", "model"))
    strangers = (OTHERS,) if any(one.taken_share for one in node.devices) else ()
    return NodeAnswer(
        node=node.name,
        fits=has.fits and not node.closed,
        kind=node.kind,
        needed_bytes=need.footprint_bytes,
        free_bytes=has.free * device if whole else has.free * device // SHARE_STEPS,
        needed_gpus=whole if on_gpu else 0,
        free_gpus=min(max(free_gpus, 0), len(node.devices)) if on_gpu else 0,
        largest_bytes=node.memory_bytes if whole else device,
        total_gpus=len(node.devices) if on_gpu else 0,
        held_by=(*_names(holders, booked), *strangers),
        why_not=why_not,
        free_until=None if why_not else _moment(has.until),
        free_from=None if why_not else _moment(has.more_from),
    )


def _names(holders: Iterable[Hold], booked: Mapping[str, Booked]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(booked[min(hold.keys)].model.name for hold in holders))


def _why_not(node: Node, need: Need, possible: bool) -> str | None:
    if node.closed:
        return "the operator lets nothing new onto it"
    if need.gpus is not None and node.kind is DeviceKind.CPU:
        return f"the booking asks for {need.gpus} GPUs and it has none"
    if need.accelerator and not possible:
        return f"the booking asks for {need.accelerator} and it has {node.accelerator or 'none'}"
    return None


def reason(
    admission: Admission,
    ask: Ask,
    got: int,
    booked: Mapping[str, Booked],
    considered: Iterable[NodeAnswer] = (),
    most_free: int | None = None,
) -> Reason:
    """Why a booking did not get all it asked for, with how much there is and who holds the rest.

    Args:
        considered: answers that are known already.
        most_free: the node of which this is told. Of what is too large, it is the one that comes nearest.
    """
    book, code, kind = admission.book, ReasonCode.NO_ROOM, ReasonKind.LATER
    start, number, detail = max(ask.start, admission.at), None, None
    never = not book.possible(ask.need)
    if not book.devices.any():
        code, never = ReasonCode.NO_NODES, False
    elif never:
        code, kind, number = ReasonCode.TOO_LARGE, ReasonKind.NEVER, _nearest_ever(book, ask.need)
        detail = _no_such_kind(book, ask.need)
    else:
        if got:
            code, detail = ReasonCode.SOME_REPLICAS, f"{got} of {ask.replicas} replicas"
        number = most_free
    best = None
    if number is not None:
        name = book.nodes[number].name
        best = next((one for one in considered if one.node == name), None)
        best = best or _answer(admission, number, ask.need, start, ask.end, booked, with_times=False)
        if code is ReasonCode.NO_ROOM and best.fits:
            detail = _in_one_way(admission, number, wanted_by(ask, ask.need, start, ask.end))
    return Reason(
        code=code,
        kind=kind,
        needed_bytes=ask.need.footprint_bytes,
        free_bytes=best and (best.largest_bytes if never else best.free_bytes),
        needed_gpus=ask.need.gpus or (best and best.needed_gpus),
        free_gpus=best and (best.total_gpus if never else best.free_gpus),
        node=best and best.node,
        by=best.held_by if best else (),
        detail=detail,
    )


def _in_one_way(admission: Admission, number: int, wanted: Hold) -> str | None:
    """What to say where a node has room, but runs the model for others with something else."""
    if admission.agrees(wanted, number):
        return None
    node = admission.book.nodes[number].name
    return f"node {node} runs it in another precision or on other GPUs then, and does so in one way at a time"


def _nearest_ever(book: Book, need: Need) -> int:
    """The last of those that come nearest."""
    nearness = _nearness(book, need)
    return len(nearness) - 1 - int(nearness[::-1].argmax())


def _no_such_kind(book: Book, need: Need) -> str | None:
    """What to say where no node has the kind of GPU that is asked for."""
    fit = book.fit(need)
    if need.accelerator is None or fit.wholes or fit.shares:
        return None
    kinds = sorted({node.accelerator for node in book.nodes if node.accelerator})
    has = f"the cluster has {', '.join(kinds)}" if kinds else "of no node is the kind known"
    return f"it asks for {need.accelerator}, and {has}"


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None or seconds == FOREVER else datetime.fromtimestamp(seconds, UTC)
