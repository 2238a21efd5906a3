"""How much of every node is free at every time, for as far ahead as anything is booked.

Time is cut at every start and end there is, so nothing is rounded. Whole GPUs of a node are counted,
not named: bookings are intervals, so as long as their number fits at every instant each can be given
GPUs of its own when it starts (an interval graph needs no more colours than its largest clique).
Shares are put on one GPU of a node, here a *lane*: it draws one of the node's GPUs while anything is
on it. What is no whole free GPU (a CPU, a GPU of which others hold a part) is a lane of its own.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calendars.reservation import MAX_GPUS
from scheduler.cluster.node import Cluster, DeviceKind, Node
from scheduler.planning.footprint import SHARE_STEPS
from scheduler.planning.needs import Fit, Kinds, Need
from scheduler.planning.openings import FOREVER, Openings
from scheduler.planning.profile import Profile, Units

WHOLE = SHARE_STEPS
"""Units of one whole device on a lane; Ray counts in the same steps."""
NEW_LANE = -1
LANES = (1 << 16) - 1
"""More lanes than a node can have."""
MAX_LANES = 4 * MAX_GPUS
"""More than a promise can name."""
FEW_NODES = 32
"""So many nodes are put in order before the others are."""
ONE_BY_ONE = 8
"""So few nodes are looked at one after the other."""
CPU_LAST = 1 << 20
"""More GPUs than any node lacks."""
RANKS = np.int64(1 << 40)
"""More than the rank of any lane."""
LAST = 1 << 62
"""Behind every lane there is."""


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
        self._kinds = Kinds(self.nodes, int(self.pool_size.max(initial=0)))
        self.memory, self.devices = self._kinds.memory, self._kinds.devices
        self.cpu, self.open = self._kinds.cpu, self._kinds.open
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
            found = self._fits[need] = self._kinds.fit(need)
        return found

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
        fit = self.fit(need)
        if not fit.possible:
            return None
        first, last = self.span(start, end)
        seat = next(self._lanes_with_room(fit.on_gpu, first, last), None)
        if seat is not None:
            return seat
        found = fit.best(self.pool.least(first, last))
        if found is not None:
            whole = int(fit.whole[found])
            return Seat(found, None, whole) if whole else Seat(found, NEW_LANE, int(fit.share[found]))
        return next(self._lanes_with_room(fit.on_cpu, first, last), None)

    def has_other(self, need: Need, start: float, end: float, number: int) -> bool:
        """Whether there is a seat for a window on another node than one."""
        first, last = self.span(start, end)
        fit = self.fit(need)
        for share in (fit.on_gpu, fit.on_cpu):
            if any(seat.node != number for seat in self._lanes_with_room(share, first, last)):
                return True
        pool = self.pool.least(first, last)
        pool[number] = 0
        return fit.best(pool) is not None

    def _lanes_with_room(self, share: Units | None, first: int, last: int) -> Iterator[Seat]:
        """Lanes something is on already that have room for a share, the fullest first."""
        if share is None:
            return
        nodes = self._lane_node[: self.lane_count]
        need = share[nodes]
        least = self.lanes.least(first, last)[: self.lane_count]
        fits = least >= need
        fits[self.fixed :] &= least[self.fixed :] < WHOLE
        found = fits.nonzero()[0]
        ranks = (least[found] - need[found]) * RANKS + self._lane_rank[found]
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
        idle = self.lanes.column(lane, first, last) == WHOLE
        if not np.count_nonzero(idle):
            return True
        pool = self.pool.column(int(self._lane_node[lane]), first, last)
        return int(np.minimum.reduce(pool, where=idle, initial=WHOLE)) > 0

    def has_room(self, nodes: Collection[int], need: Need, start: float, end: float) -> bool:
        """Whether some of these nodes, closed or not, has room for a window."""
        if len(nodes) > ONE_BY_ONE:
            first, last = self.span(start, end)
            fit, some = self.fit(need), np.array(list(nodes), dtype=np.intp)
            takes = fit.takes[some]
            if ((takes > 0) & (takes <= self.pool.least(first, last)[some])).any():
                return True
            nodes = [node for node in nodes if fit.share[node] and node in self.lanes_of]
        return any(self.room_on(node, need, start, end) is not None for node in nodes)

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

    def nearly(
        self, need: Need, start: float, end: float, among: Iterable[int] | None = None
    ) -> Iterator[int]:
        """Open nodes that could seat a need if they were empty enough, those that lack least first.

        ``among``: only these nodes.
        """
        first, last = self.span(start, end)
        fit = self.fit(need)
        able = (fit.whole > 0) & (fit.whole <= self.pool_size)
        able |= (fit.share > 0) & ((self.pool_size > 0) | self.cpu)
        able &= self.open
        found = (
            np.flatnonzero(able)
            if among is None
            else np.array([one for one in among if able[one]], dtype=np.intp)
        )
        lack = (np.maximum(fit.whole, 1) - self.pool.least(first, last))[found] + self.cpu[found] * CPU_LAST
        if len(found) > FEW_NODES:
            near = lack <= np.partition(lack, FEW_NODES)[FEW_NODES]
            yield from self._by_lack(fit, found[near], lack[near])
            found, lack = found[~near], lack[~near]
        yield from self._by_lack(fit, found, lack)

    def _by_lack(self, fit: Fit, found: NDArray[np.intp], lack: Units) -> list[int]:
        ordered: list[int] = found[np.lexsort((found, fit.drawn[found], lack))].tolist()
        return ordered

    def most_free(
        self, need: Need, start: float, end: float, among: Iterable[int] | None = None
    ) -> int | None:
        """The open node on which most of what a need takes is free throughout a window, the last of equals.

        ``among``: only these nodes. None where no node could ever have it.
        """
        first, last = self.span(start, end)
        fit, (some, lanes) = self.fit(need), self._numbers(among)
        whole, pool = fit.whole[some], self.pool.least(first, last)[some]
        free = np.where(whole > 0, pool, (pool > 0) * WHOLE)
        if fit.shares:
            nodes, least = self._lane_node[lanes], self.lanes.least(first, last)[lanes]
            used = (fit.share[nodes] > 0) & ((lanes < self.fixed) | (least < WHOLE))
            np.maximum.at(free, np.searchsorted(some, nodes[used]), least[used])
        takes = whole + fit.share[some]
        parts = np.where((takes > 0) & self.open[some], free / np.maximum(takes, 1), -1.0)
        best = len(parts) - 1 - int(parts[::-1].argmax())
        return int(some[best]) if parts[best] >= 0 else None

    def _numbers(self, among: Iterable[int] | None) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Of some nodes, or of all, in order, and of their lanes."""
        if among is None:
            return np.arange(len(self.nodes)), np.arange(self.lane_count)
        some = sorted(among)
        lanes = [lane for node in some for lane in self.lanes_of.get(node, ())]
        return np.array(some, dtype=np.intp), np.array(lanes, dtype=np.intp)

    def tightest(self, number: int, need: Need, start: float, end: float) -> tuple[float, int]:
        """When a node lacks most for a need within a window, and how many units it lacks then."""
        first, last = self.span(start, end)
        fit = self.fit(need)
        wanted, free = int(fit.whole[number]) or 1, self.pool.column(number, first, last)
        if fit.share[number] and not self.pool_size[number]:
            fixed = (lane for lane in self.lanes_of.get(number, ()) if lane < self.fixed)
            columns = [self.lanes.column(lane, first, last) for lane in fixed]
            if columns:
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
        pool = self.pool.rows(first).T
        nodes = self._lane_node[: self.lane_count]
        some, lanes = self._numbers(among)
        some, lanes = some[self.open[some]], lanes[self.open[nodes[lanes]]]
        whole = some[(fit.whole[some] > 0) & (fit.whole[some] <= self.pool_size[some])]
        opens = some[(fit.share[some] > 0) & (self.pool_size[some] > 0)]
        lanes = lanes[fit.share[nodes[lanes]] > 0]
        free = [pool[whole] >= fit.whole[whole, None]]
        if fit.shares:
            columns = self.lanes.rows(first).T[lanes]
            drawn = (columns < WHOLE) | (lanes < self.fixed)[:, None] | (pool[nodes[lanes]] > 0)
            free += [pool[opens] > 0, (columns >= fit.share[nodes[lanes], None]) & drawn]
        on = np.concatenate((whole, opens, nodes[lanes]))
        return Openings(np.array([after, *self.edges[first + 1 :]]), np.concatenate(free), on)

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
        idle = self.lanes.column(lane, first, last) == WHOLE
        if np.count_nonzero(idle):
            self.pool.take(int(self._lane_node[lane]), first, last, idle * np.int32(gpus))

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


def _whole_free(node: Node) -> int:
    return sum(device.kind is DeviceKind.GPU and not device.taken_share for device in node.devices)


def _fixed_lanes(node: Node) -> list[int]:
    """What is free of devices that cannot be drawn as whole GPUs: CPUs, and GPUs others hold a part of."""
    return [
        int(WHOLE * (1 - device.taken_share) + 1e-6)
        for device in node.devices
        if device.kind is DeviceKind.CPU or 0 < device.taken_share < 1
    ]
