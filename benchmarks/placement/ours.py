"""The product's planner behind the same door as the baselines; nothing else here knows it.

Every booking is a model of its own, so that no two share a stay.
"""

from __future__ import annotations

import heapq
from dataclasses import replace
from time import thread_time

import numpy as np

from benchmarks.placement.desk import promised
from benchmarks.placement.instance import SLOT_SECONDS, WHOLE, Instance, Result, Setting, nothing_placed
from benchmarks.placement.packing import FULL, Offer, Wanted, pack
from scheduler.cluster.node import Cluster, Device, DeviceKind, Node
from scheduler.planning.admission import Admission
from scheduler.planning.book import Book
from scheduler.planning.clearing import MOVES_PER_PLAN
from scheduler.planning.footprint import Sizing
from scheduler.planning.holds import Ask
from scheduler.planning.needs import Need

EPOCH = 1_767_571_200.0
"""Monday, 5 January 2026, 00:00 UTC: the beginning of every instance."""
SLOTS_SOUGHT = 200


def cluster_of(instance: Instance) -> Cluster:
    """The nodes as the planner knows them; its names sort as their numbers do."""
    kinds = [
        (
            tuple(Device(kind=DeviceKind.GPU, memory_bytes=one.gpu_bytes) for _ in range(one.gpus)),
            one.accelerator,
        )
        for one in instance.classes
    ]
    nodes = []
    for number, kind in enumerate(instance.node_class.tolist()):
        name = f"node-{number:05d}"
        nodes.append(
            Node(name=name, node_id=name, devices=kinds[kind][0], accelerator=kinds[kind][1] or None)
        )
    return Cluster(nodes=tuple(nodes))


def asks_of(instance: Instance, *, equal: bool) -> list[Ask]:
    """The bookings as the planner knows them, each ahead of its start by the time that loading takes."""
    sizing = Sizing()
    asks = []
    for number in range(len(instance)):
        footprint = int(instance.footprint[number])
        need = Need(footprint, int(instance.asked[number]) or None, instance.accelerator[number] or None)
        asks.append(
            Ask(
                key=f"{number:06d}",
                model=f"model-{number:06d}",
                need=need,
                replicas=1,
                start=EPOCH + float(instance.start[number]) * SLOT_SECONDS,
                end=EPOCH + float(instance.end[number]) * SLOT_SECONDS,
                lead=sizing.lead_seconds(footprint),
                priority=0 if equal else int(instance.priority[number]),
                booked_at=EPOCH + float(instance.booked[number]),
            )
        )
    return asks


class Counter:
    """One admission through all the time of an instance, told what time it is with each booking."""

    def __init__(self, instance: Instance, asks: list[Ask], at: float) -> None:
        self.asks = asks
        edges = {at, *(ask.start for ask in asks), *(ask.end for ask in asks)}
        self.admission = Admission(Book(cluster_of(instance), edges), at)
        self._starting: list[tuple[float, str]] = []

    def book(self, booking: int) -> bool:
        """The verdict, with all the moves that one plan may try."""
        ask = self.asks[booking]
        self._now(ask.booked_at)
        self.admission.moves_left = MOVES_PER_PLAN
        return self.put(ask)

    def put(self, ask: Ask) -> bool:
        """The verdict."""
        admitted, _ = self.admission.admit(ask)
        if admitted:
            heapq.heappush(self._starting, (ask.start, ask.key))
        return bool(admitted)

    def seat(self, booking: int) -> tuple[int, int] | None:
        """Node and lane."""
        holds = self.admission.of_booking(self.asks[booking].key)
        if not holds:
            return None
        lane = holds[0].seat.lane
        return holds[0].seat.node, WHOLE if lane is None else lane

    def _now(self, at: float) -> None:
        """What has started by then is settled; a plan made anew would find it running."""
        self.admission.at = at
        while self._starting and self._starting[0][0] <= at:
            for hold in self.admission.of_booking(heapq.heappop(self._starting)[1]):
                self.admission.holds[hold.number] = replace(hold, settled=True)


def ours(instance: Instance, setting: Setting) -> Result:
    """In the order of booking where it promises; packed by weight where all is known."""
    if setting is Setting.FREE:
        return packed(instance)
    counter = Counter(instance, asks_of(instance, equal=True), EPOCH + min(instance.booked.min(), 0.0))
    result = promised(instance, counter)
    result.figures = slots_sought(instance, counter)
    return result


def packed(instance: Instance) -> Result:
    """All at once, as much weight as can be."""
    kinds = instance.classes
    memory = np.array([one.gpu_bytes for one in kinds], dtype=np.float64)
    offer = Offer(instance.node_class, np.array([one.gpus for one in kinds]), np.rint(memory / 1e9))
    shares = np.where(instance.shared, np.ceil(instance.fraction * FULL), 0).astype(np.int64)
    found = pack(offer, Wanted(instance.start, instance.end, instance.weight, instance.whole, shares))
    return Result(node=found.node, lane=found.lane)


def ours_in_turn(instance: Instance, setting: Setting) -> Result:
    """By priority and then by booking, as the product admits what it finds all at once."""
    del setting
    asks = asks_of(instance, equal=False)
    counter = Counter(instance, asks, EPOCH + min(instance.booked.min(), 0.0))
    order = sorted(range(len(asks)), key=lambda number: asks[number].claim)
    result = nothing_placed(instance)
    for booking in order:
        counter.put(counter.asks[booking])
    for booking in order:
        seat = counter.seat(booking)
        if seat is not None:
            result.node[booking], result.lane[booking] = seat
    return result


def slots_sought(instance: Instance, counter: Counter) -> dict[str, float]:
    """How long the next slot for a booking takes to find, when everything is booked; milliseconds."""
    some = np.random.default_rng(0).choice(len(instance), SLOTS_SOUGHT)
    seconds = []
    for booking in some.tolist():
        ask = counter.asks[booking]
        began = thread_time()
        counter.admission.book.openings(ask.need, ask.start).first(ask.end - ask.start)
        seconds.append(thread_time() - began)
    p50, p99 = np.percentile(seconds, (50, 99)) * 1e3
    return {"next_slot_ms_p50": float(p50), "next_slot_ms_p99": float(p99)}
