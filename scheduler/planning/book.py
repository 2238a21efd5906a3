"""How much of every node is free at every time, for as far ahead as anything is booked.

Time is cut at every start and end there is, so nothing is rounded. Whole GPUs of a node are counted,
not named: bookings are intervals, so as long as their number fits at every instant each can be given
GPUs of its own when it starts (an interval graph needs no more colours than its largest clique).
Shares are put on one GPU of a node, here a *lane*: it draws one of the node's GPUs while anything is
on it. What is no whole free GPU (a CPU, a GPU of which others hold a part) is a lane of its own.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from calendars.reservation import MAX_GPUS
from scheduler.cluster.node import Cluster, DeviceKind, Node
from scheduler.planning.footprint import SHARE_STEPS, gpus_needed
from scheduler.planning.openings import FOREVER, Openings
from scheduler.planning.profile import Profile, Units

WHOLE = SHARE_STEPS
"""Units of one whole device on a lane; Ray counts in the same steps."""
NEW_LANE = -1
NO_SHARE = np.int32(WHOLE + 1)
"""More than any lane has."""
LANES = (1 << 16) - 1
"""More lanes than a node can have."""
MAX_LANES = 4 * MAX_GPUS
"""More than a promise can name."""
FEW_NODES = 32
"""So many nodes are put in order before the others are."""
CPU_LAST = 1 << 20
"""More GPUs than any node lacks."""
LAST = 1 << 62
"""Behind every lane there is."""
SIGNS = re.compile(r"[^a-z0-9]")


@dataclass(frozen=True, slots=True)
class Need:
    """What one replica takes: bytes, and what it insists on.

    ``gpus`` are whole GPUs asked for, ``accelerator`` a kind of GPU (any part of its name will do).
    """

    footprint_bytes: int
    gpus: int | None = None
    accelerator: str | None = None


@dataclass(frozen=True, slots=True)
class Seat:
    """A place for one replica: a node, and the lane if it takes a share of one device.

    ``units`` are whole GPUs, or ten-thousandths of a device on a lane. ``NEW_LANE`` is one that is
    opened when the seat is taken.
    """

    node: int
    lane: int | None
    units: int

    @property
    def devices(self) -> float:
        """How many GPUs it takes, or which part of one device."""
        return self.units if self.lane is None else self.units / WHOLE


@dataclass(frozen=True, slots=True)
class Fit:
    """What one kind of need comes to, by node: whole GPUs, or units of a share; 0 where neither.

    ``drawn`` is the memory of the whole GPUs it takes, in bytes, and for each of them that of the largest
    there is: fewer GPUs come before less memory. ``cost`` ranks the open nodes for whole GPUs and
    ``opening`` for a share of one that nobody uses yet, smaller first, less what is free there.
    ``on_gpu`` and ``on_cpu`` are the shares on open nodes of that kind, ``NO_SHARE`` where there is none.
    ``possible``: some node could seat it if nothing of anybody ran; ``shares``: on some it takes a share,
    ``wholes``: on some whole GPUs.
    """

    whole: Units
    share: Units
    drawn: NDArray[np.float64]
    cost: NDArray[np.float64]
    opening: NDArray[np.float64]
    on_gpu: Units
    on_cpu: Units
    possible: bool
    shares: bool
    wholes: bool


class Book:
    """Who may have what, when. Times are seconds since the epoch; a seat is held during ``[start, end)``.

    By node: ``memory`` of one device in bytes, the number of ``devices``, whether it is a ``cpu``, and
    whether it is ``open`` to what is new.

    Args:
        edges: instants at which something will begin or end; others are added when they come up.
        at: the present; what was before is not known, and a window that began before counts from now on.
    """

    def __init__(self, cluster: Cluster, edges: Iterable[float] = (), at: float = 0.0) -> None:
        self.at = at
        self.nodes: tuple[Node, ...] = cluster.nodes
        self.index = {node.name: number for number, node in enumerate(self.nodes)}
        self.edges: list[float] = sorted({0.0, *edges})
        self.pool_size: Units = np.array([_whole_free(node) for node in self.nodes], dtype=np.int32)
        self.pool = Profile(len(self.edges), self.pool_size)
        self.memory = np.array([_device_bytes(node) for node in self.nodes], dtype=np.float64)
        # fewer GPUs come before less memory
        self._worth = self.memory + self.memory.max(initial=0.0)
        self.cpu = np.array([node.kind is DeviceKind.CPU for node in self.nodes], dtype=np.bool_)
        self.open = np.array([not node.closed for node in self.nodes], dtype=np.bool_)
        self.devices = np.array([len(node.devices) for node in self.nodes], dtype=np.int32)
        kinds: dict[tuple[object, ...], int] = {}
        self._kinds: list[Node] = []
        self._kind_of = np.zeros(len(self.nodes), dtype=np.intp)
        for number, node in enumerate(self.nodes):
            kind = (node.kind, _device_bytes(node), node.accelerator)
            if kind not in kinds:
                kinds[kind] = len(kinds)
                self._kinds.append(node)
            self._kind_of[number] = kinds[kind]
        fixed = [(number, units) for number, node in enumerate(self.nodes) for units in _fixed_lanes(node)]
        self.fixed = len(fixed)
        self.lane_count = len(fixed)
        self._lane_node = np.array([number for number, _ in fixed], dtype=np.intp)
        self._lane_rank = np.zeros(len(fixed), dtype=np.int64)
        self.lanes_of: dict[int, list[int]] = {}
        for lane, (number, _) in enumerate(fixed):
            self._enlist(lane, number)
        self.lanes = Profile(len(self.edges), np.array([units for _, units in fixed], dtype=np.int32))
        self._fits: dict[Need, Fit] = {}

    # Time

    def span(self, start: float, end: float) -> tuple[int, int]:
        """The slots a window touches; what is free does not change within one."""
        first = bisect_right(self.edges, max(start, self.at)) - 1
        return first, max(bisect_left(self.edges, end), first)

    def edge_before(self, instant: float) -> float:
        """When the slot of an instant, or of the present if that is later, begins."""
        return self.edges[bisect_right(self.edges, max(instant, self.at)) - 1]

    def cut(self, start: float, end: float) -> tuple[int, int]:
        """The slots of a window, which begin and end with it, or with the present if that is later."""
        first = self._edge(start)
        return first, (len(self.edges) if end == FOREVER else self._edge(end))

    def _edge(self, instant: float) -> int:
        if instant <= self.at:
            return bisect_right(self.edges, self.at) - 1
        slot = bisect_left(self.edges, instant)
        if slot == len(self.edges) or self.edges[slot] != instant:
            for profile in (self.pool, self.lanes):
                profile.split(slot - 1)
            self.edges.insert(slot, instant)
        return slot

    # What a need comes to

    def fit(self, need: Need) -> Fit:
        """What a need comes to on each node, whatever else is there."""
        found = self._fits.get(need)
        if found is None:
            found = self._fits[need] = self._reckon(need)
        return found

    def _reckon(self, need: Need) -> Fit:
        on_kinds = np.array([units_on(node, need) for node in self._kinds], dtype=np.int32).reshape(-1, 2)
        whole, share = np.ascontiguousarray(on_kinds[self._kind_of].T)
        is_share = (share > 0) & self.open
        shares, wholes = bool((share > 0).any()), bool((whole > 0).any())
        drawn = whole * self._worth
        return Fit(
            whole=whole,
            share=share,
            drawn=drawn,
            cost=np.where((whole > 0) & self.open, drawn * 1024 - whole, FOREVER),
            opening=np.where(is_share, self._worth * 1024, FOREVER),
            on_gpu=np.where(is_share & ~self.cpu, share, NO_SHARE),
            on_cpu=np.where(is_share & self.cpu, share, NO_SHARE),
            possible=shares or bool(((whole > 0) & (whole <= self.devices)).any()),
            shares=shares,
            wholes=wholes,
        )

    def possible(self, need: Need) -> bool:
        """Whether one replica would fit if nothing of anybody ran."""
        return self.fit(need).possible

    # Looking for a seat

    def find(self, need: Need, start: float, end: float, near: Iterable[int] = ()) -> Seat | None:
        """The best seat for a window, or None.

        A GPU before a CPU; then a node the model is ``near``; then where the fewest GPUs and the least memory
        are drawn that nobody uses yet; then the fullest (best fit); then the first.
        """
        for number in near:
            if self.open[number] and not self.cpu[number]:
                seat = self.room_on(number, need, start, end)
                if seat is not None:
                    return seat
        first, last = self.span(start, end)
        fit = self.fit(need)
        if fit.shares:
            seat = next(self._lanes_with_room(fit.on_gpu, first, last), None)
            if seat is not None:
                return seat
        pool = self.pool.least(first, last)
        whole = self._find_whole(fit, pool) if fit.wholes else None
        opened = self._find_opening(fit, pool) if fit.shares else None
        if whole is not None and (opened is None or whole[:2] <= opened[:2]):
            number = whole[-1]
            return Seat(number, None, int(fit.whole[number]))
        if opened is not None:
            number = opened[-1]
            return Seat(number, NEW_LANE, int(fit.share[number]))
        return next(self._lanes_with_room(fit.on_cpu, first, last), None) if fit.shares else None

    def has_other(self, need: Need, start: float, end: float, number: int) -> bool:
        """Whether there is a seat for a window on another node than one."""
        first, last = self.span(start, end)
        fit = self.fit(need)
        if fit.shares:
            for share in (fit.on_gpu, fit.on_cpu):
                if any(seat.node != number for seat in self._lanes_with_room(share, first, last)):
                    return True
        pool = self.pool.least(first, last)
        pool[number] = 0
        if fit.wholes and self._find_whole(fit, pool) is not None:
            return True
        return fit.shares and self._find_opening(fit, pool) is not None

    def _find_whole(self, fit: Fit, pool: Units) -> tuple[float, int, int] | None:
        """The best node for whole GPUs after what is drawn there, and how many are left."""
        ranks = np.where(pool >= fit.whole, fit.cost + pool, FOREVER)
        chosen = int(ranks.argmin())
        if ranks[chosen] == FOREVER:
            return None
        return float(fit.drawn[chosen]), int(pool[chosen]) - int(fit.whole[chosen]), chosen

    def _find_opening(self, fit: Fit, pool: Units) -> tuple[float, int, int] | None:
        """The same for a share of a GPU that nobody uses yet, and how many such there are."""
        ranks = np.where(pool > 0, fit.opening + pool, FOREVER)
        chosen = int(ranks.argmin())
        if ranks[chosen] == FOREVER:
            return None
        return float(self._worth[chosen]), int(pool[chosen]), chosen

    def _lanes_with_room(self, share: Units, first: int, last: int) -> Iterator[Seat]:
        """Lanes something is on already that have room for a share, the fullest first."""
        nodes = self._lane_node[: self.lane_count]
        need = share[nodes]
        least = self.lanes.least(first, last)[: self.lane_count]
        left = least - need
        fits = left >= 0
        fits[self.fixed :] &= least[self.fixed :] < WHOLE
        found = fits.nonzero()[0]
        ranks = left[found].astype(np.int64) * (1 << 40) + self._lane_rank[found]
        for _ in range(len(found)):
            best = int(ranks.argmin())
            lane = int(found[best])
            if self._may_draw(lane, first, last):
                yield Seat(int(nodes[lane]), lane, int(need[lane]))
            ranks[best] = LAST

    def _may_draw(self, lane: int, first: int, last: int) -> bool:
        """Whether a GPU can be had for a lane wherever it has none yet."""
        if lane < self.fixed:
            return True
        node = int(self._lane_node[lane])
        if self.pool.lowest(node, first, last) > 0:
            return True
        pool = self.pool.column(node, first, last)
        return bool((pool[self.lanes.column(lane, first, last) == WHOLE] > 0).all())

    def room_on(self, number: int, need: Need, start: float, end: float) -> Seat | None:
        """The best seat on one node, closed or not, or None."""
        fit = self.fit(need)
        first, last = self.span(start, end)
        pool = self.pool.lowest(number, first, last)
        whole, share = int(fit.whole[number]), int(fit.share[number])
        if whole:
            return Seat(number, None, whole) if pool >= whole else None
        if not share:
            return None
        lanes = []
        for lane in self.lanes_of.get(number, ()):
            left = self.lanes.lowest(lane, first, last)
            used = lane < self.fixed or left < WHOLE
            if used and left >= share and self._may_draw(lane, first, last):
                lanes.append((left, lane))
        if lanes:
            return Seat(number, min(lanes)[1], share)
        return Seat(number, NEW_LANE, share) if pool > 0 else None

    def seat_at(self, number: int, need: Need, lane: int, start: float, end: float) -> Seat | None:
        """The share a need had on a node before, by the number of its lane there, if it is free; or None."""
        share = int(self.fit(need).share[number])
        if not share or not 0 <= lane < MAX_LANES:
            return None
        seat = Seat(number, self._lane(number, lane), share)
        return seat if self.fits(seat, start, end) else None

    def lane_of(self, seat: Seat) -> int | None:
        """The number of a seat's lane on its node."""
        return None if seat.lane is None else int(self._lane_rank[seat.lane]) & LANES

    def squeeze(self, number: int, need: Need, start: float, end: float) -> Seat | None:
        """The seat of something that is on a node already, though by this book there is no room."""
        fit = self.fit(need)
        if fit.whole[number] or not fit.share[number]:
            return Seat(number, None, int(fit.whole[number])) if fit.whole[number] else None
        first, last = self.span(start, end)
        lanes = [(-self.lanes.lowest(lane, first, last), lane) for lane in self.lanes_of.get(number, ())]
        return Seat(number, min(lanes)[1] if lanes else NEW_LANE, int(fit.share[number]))

    def fits(self, seat: Seat, start: float, end: float) -> bool:
        """Whether that very seat is free during a window."""
        first, last = self.span(start, end)
        if seat.lane is None:
            return self.pool.lowest(seat.node, first, last) >= seat.units
        room = self.lanes.lowest(seat.lane, first, last) >= seat.units
        return room and self._may_draw(seat.lane, first, last)

    def is_free(self, seat: Seat, start: float, end: float) -> bool:
        """The same of a seat that may have no lane yet."""
        if seat.lane != NEW_LANE:
            return self.fits(seat, start, end)
        return self.pool.lowest(seat.node, *self.span(start, end)) > 0

    def with_lane(self, seat: Seat, start: float, end: float) -> Seat:
        """The same with a lane, one that is idle during a window, if it shares a device and has none yet."""
        if seat.lane != NEW_LANE:
            return seat
        return Seat(seat.node, self._idle_lane(seat.node, *self.span(start, end)), seat.units)

    def nearly(self, need: Need, start: float, end: float) -> Iterator[int]:
        """Open nodes that could seat a need if they were empty enough, those that lack least first."""
        first, last = self.span(start, end)
        fit = self.fit(need)
        able = (fit.whole > 0) & (fit.whole <= self.pool_size)
        able |= (fit.share > 0) & ((self.pool_size > 0) | self.cpu)
        found = np.flatnonzero(able & self.open)
        lack = (np.maximum(fit.whole, 1) - self.pool.least(first, last))[found] + self.cpu[found] * CPU_LAST
        if len(found) > FEW_NODES:
            near = lack <= np.partition(lack, FEW_NODES)[FEW_NODES]
            yield from self._by_lack(fit, found[near], lack[near])
            found, lack = found[~near], lack[~near]
        yield from self._by_lack(fit, found, lack)

    def _by_lack(self, fit: Fit, found: NDArray[np.intp], lack: Units) -> list[int]:
        ordered: list[int] = found[np.lexsort((found, fit.drawn[found], lack))].tolist()
        return ordered

    def part_free(self, need: Need, start: float, end: float) -> NDArray[np.float64]:
        """By node, how much of what a need takes is free throughout a window: 1 is all of it; -1 where it
        could never be.
        """
        first, last = self.span(start, end)
        fit = self.fit(need)
        pool = self.pool.least(first, last)
        free = np.where(fit.whole > 0, pool, (pool > 0) * WHOLE)
        if fit.shares:
            lanes = np.arange(self.lane_count)
            nodes = self._lane_node[: self.lane_count]
            least = self.lanes.least(first, last)[: self.lane_count]
            used = (fit.share[nodes] > 0) & ((lanes < self.fixed) | (least < WHOLE))
            np.maximum.at(free, nodes[used], least[used])
        takes = fit.whole + fit.share
        return np.where(takes > 0, free / np.maximum(takes, 1), -1.0)

    def tightest(self, number: int, need: Need, start: float, end: float) -> tuple[float, int]:
        """When a node lacks most for a need within a window, and how many units it lacks then."""
        first, last = self.span(start, end)
        fit = self.fit(need)
        wanted, free = int(fit.whole[number]) or 1, self.pool.column(number, first, last)
        fixed = [lane for lane in self.lanes_of.get(number, ()) if lane < self.fixed]
        if fit.share[number] and fixed and not self.pool_size[number]:
            columns = [self.lanes.column(lane, first, last) for lane in fixed]
            wanted, free = int(fit.share[number]), max(columns, key=lambda column: int(column.min()))
        slot = int(free.argmin())
        return max(self.edges[first + slot], start, self.at), wanted - int(free[slot])

    def free_since(self, seat: Seat, instant: float, earliest: float) -> float:
        """From when on, at or after ``earliest``, a seat is free without a break until an instant."""
        first, last = self.span(earliest, instant)
        pool = self.pool.column(seat.node, first, last)
        if seat.lane is None:
            free = pool >= seat.units
        else:
            lane = self.lanes.column(seat.lane, first, last)
            free = lane >= seat.units
            if seat.lane >= self.fixed:
                free &= (lane < WHOLE) | (pool > 0)
        taken = np.flatnonzero(~free)
        return max(self.edges[first + int(taken[-1]) + 1], earliest) if len(taken) else min(earliest, instant)

    def openings(self, need: Need, after: float, among: Iterable[int] | None = None) -> Openings:
        """From every instant on from ``after``, how long each node or lane stays free for a need.

        ``among``: only these nodes.
        """
        first, _ = self.span(after, after)
        fit = self.fit(need)
        pool = self.pool.rows(first)
        nodes = self._lane_node[: self.lane_count]
        if among is None:
            some, lanes = np.arange(len(self.nodes)), np.arange(self.lane_count)
        else:
            some = np.array(sorted(among), dtype=np.intp)
            there = [lane for node in some.tolist() for lane in self.lanes_of.get(node, ())]
            lanes = np.array(there, dtype=np.intp)
        some, lanes = some[self.open[some]], lanes[self.open[nodes[lanes]]]
        whole = some[(fit.whole[some] > 0) & (fit.whole[some] <= self.pool_size[some])]
        opens = some[(fit.share[some] > 0) & (self.pool_size[some] > 0)]
        lanes = lanes[fit.share[nodes[lanes]] > 0]
        free = [pool[:, whole] >= fit.whole[whole]]
        if fit.shares:
            columns = self.lanes.rows(first)[:, lanes]
            drawn = (columns < WHOLE) | (lanes < self.fixed) | (pool[:, nodes[lanes]] > 0)
            free += [pool[:, opens] > 0, (columns >= fit.share[nodes[lanes]]) & drawn]
        on = np.concatenate((whole, opens, nodes[lanes]))
        return Openings(np.array([after, *self.edges[first + 1 :]]), np.hstack(free), on)

    # Taking and giving back

    def take(self, seat: Seat, start: float, end: float) -> Seat:
        """Hold a seat; returns it with its lane."""
        first, last = self.cut(start, end)
        if seat.lane is None:
            self.pool.take(seat.node, first, last, seat.units)
            return seat
        if seat.lane == NEW_LANE:
            seat = Seat(seat.node, self._idle_lane(seat.node, first, last), seat.units)
        assert seat.lane is not None
        if seat.lane >= self.fixed:
            self._draw(seat.lane, first, last, 1)
        self.lanes.take(seat.lane, first, last, seat.units)
        return seat

    def give(self, seat: Seat, start: float, end: float) -> None:
        """Give a seat back."""
        first, last = self.cut(start, end)
        if seat.lane is None:
            self.pool.take(seat.node, first, last, -seat.units)
            return
        self.lanes.take(seat.lane, first, last, -seat.units)
        if seat.lane >= self.fixed:
            self._draw(seat.lane, first, last, -1)

    def clear(self, node: int) -> None:
        """Give back all that is held on a node."""
        self.pool.reset(node, int(self.pool_size[node]))
        fixed = _fixed_lanes(self.nodes[node])
        for number, lane in enumerate(self.lanes_of.get(node, ())):
            self.lanes.reset(lane, fixed[number] if number < len(fixed) else WHOLE)

    def _draw(self, lane: int, first: int, last: int, gpus: int) -> None:
        """Take a GPU for a lane, or give it back, during the slots in which nothing is on it."""
        node, idle = int(self._lane_node[lane]), self.lanes.column(lane, first, last) == WHOLE
        turns = [0, *((idle[1:] != idle[:-1]).nonzero()[0] + 1).tolist(), last - first]
        begin = 0 if len(idle) and idle[0] else 1
        for low, high in zip(turns[begin::2], turns[begin + 1 :: 2], strict=False):
            self.pool.take(node, first + low, first + high, gpus)

    def _idle_lane(self, node: int, first: int, last: int) -> int:
        for lane in self.lanes_of.get(node, ()):
            if lane >= self.fixed and (self.lanes.column(lane, first, last) == WHOLE).all():
                return lane
        return self._lane(node, len(self.lanes_of.get(node, ())))

    def _lane(self, node: int, number: int) -> int:
        """The lane of that number on a node; it and those before it are opened if there are not so many."""
        while number >= len(self.lanes_of.get(node, ())):
            lane = self.lane_count
            if lane == len(self._lane_node) or lane == self.lanes.columns:
                more = max(lane, 16)
                self.lanes.widen(np.full(more, WHOLE, dtype=np.int32))
                self._lane_node = np.concatenate((self._lane_node, np.zeros(more, dtype=np.intp)))
                self._lane_rank = np.concatenate((self._lane_rank, np.zeros(more, dtype=np.int64)))
            self._enlist(lane, node)
            self.lane_count += 1
        return self.lanes_of[node][number]

    def _enlist(self, lane: int, node: int) -> None:
        lanes = self.lanes_of.setdefault(node, [])
        self._lane_node[lane] = node
        self._lane_rank[lane] = node * (LANES + 1) + len(lanes)
        lanes.append(lane)


def units_on(node: Node, need: Need) -> tuple[int, int]:
    """What a replica takes on a node: whole GPUs, or ten-thousandths of one device; ``(0, 0)`` if neither."""
    memory = _device_bytes(node)
    if memory <= 0 or need.footprint_bytes < 0:
        return 0, 0
    if need.accelerator is not None and not _is_a(node.accelerator, need.accelerator):
        return 0, 0
    if node.kind is DeviceKind.CPU:
        share = ceil(need.footprint_bytes / memory * SHARE_STEPS)
        return 0, max(share, 1) if need.gpus is None and share <= SHARE_STEPS else 0
    gpus = gpus_needed(need.footprint_bytes, memory, need.gpus)
    if gpus < 1:
        return 0, max(round(gpus * SHARE_STEPS), 1)
    return min(int(gpus), MAX_GPUS), 0


def _is_a(accelerator: str | None, wanted: str) -> bool:
    """Whether a kind of GPU is the one asked for; ``A100 80GB`` is an ``NVIDIA-A100-80G``."""
    has, asked = (SIGNS.sub("", name.casefold()).replace("gb", "g") for name in (accelerator or "", wanted))
    return asked in has


def _device_bytes(node: Node) -> int:
    return node.devices[0].memory_bytes if node.devices else 0


def _whole_free(node: Node) -> int:
    return sum(device.kind is DeviceKind.GPU and not device.taken_share for device in node.devices)


def _fixed_lanes(node: Node) -> list[int]:
    """What is free of devices that cannot be drawn as whole GPUs: CPUs, and GPUs others hold a part of."""
    return [
        int(WHOLE * (1 - device.taken_share) + 1e-6)
        for device in node.devices
        if device.kind is DeviceKind.CPU or 0 < device.taken_share < 1
    ]
