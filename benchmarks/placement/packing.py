"""As much weight as can be placed when everything is known at once and nothing is promised yet.

Bookings are packed one after the other, each where it takes the fewest GPUs for all of its window; what
decides is the order. So everything is packed several times: by weight at first, by two rules, then in
orders that differ a little from the best one so far. Bounded by work, not by time: the same input gives
the same packing.

A packing is no order of promises: it may leave out whoever came first.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NOWHERE = -1
WHOLE_GPUS = -1
FULL = 10_000
"""Shares are ten-thousandths of a GPU."""
TRIED_SEATS = 40_000
"""So often a booking is looked a seat for, all in all, unless there are more bookings than that."""
MOST_ORDERS = 500
"""So many orders are tried at most."""
CHANCE = 0.1
"""By how much orders differ that are tried after each other: the deviation of the logarithm of a rank."""
SHARED_RANK = 0.25
"""A booking that shares a GPU is ranked as if it took so much of one at least."""
LANES_TRIED = 6
NEVER = np.int8(127)
FAR = np.float32(1e8)
STEP = np.float32(256)


@dataclass(frozen=True, eq=False)
class Offer:
    """The nodes: the kind of each, GPUs and memory of one of them in GB by kind."""

    kind: Ints
    gpus: Ints
    gpu_gb: Floats


@dataclass(frozen=True, eq=False)
class Wanted:
    """Bookings: slots of time ``[first, last)``, at least one, and what they weigh.

    By kind of node: ``whole`` GPUs, or the ``share`` of one in ten-thousandths; both 0 where it cannot be.
    """

    first: Ints
    last: Ints
    weight: Floats
    whole: Ints
    share: Ints

    def __len__(self) -> int:
        return len(self.weight)


@dataclass(frozen=True, eq=False)
class Packing:
    """The node of each booking or ``NOWHERE``; which of its shared GPUs it is on, or ``WHOLE_GPUS``."""

    node: Ints
    lane: Ints


class Rule(IntEnum):
    """Which of the nodes that take the fewest GPUs and the least memory."""

    ALIGNED = 0
    """Where the fewest GPUs are left idle just before and just after."""
    EMPTIEST = 1
    """Where the most GPUs are idle."""


def pack(offer: Offer, wanted: Wanted, tried_seats: int = TRIED_SEATS, seed: int = 0) -> Packing:
    """Find a packing of much weight."""
    if not len(wanted) or not len(offer.kind):
        return Packing(np.full(len(wanted), NOWHERE), np.full(len(wanted), WHOLE_GPUS))
    rng = np.random.default_rng(seed)
    needs = _Needs(offer, wanted)
    best = _packed(needs, _ranks(wanted), Rule.ALIGNED)
    for turn in range(1, min(tried_seats // len(wanted), MOST_ORDERS)):
        if turn == 1:
            tried = _packed(needs, best.rank, Rule.EMPTIEST)
        else:
            chance = np.exp(CHANCE * rng.standard_normal(len(wanted)))
            tried = _packed(needs, best.rank * chance, best.rule)
        if tried.weight >= best.weight:
            best = tried
    return best.packing()


def _ranks(wanted: Wanted) -> Floats:
    """Weights; small bookings in the ranks of larger ones, or they would find only what is left."""
    gpus = np.where(wanted.whole > 0, wanted.whole.astype(np.float64), wanted.share / FULL)
    fewest = np.where(gpus > 0, gpus, np.inf).min(axis=1)
    ranks: Floats = np.where(np.isfinite(fewest), np.maximum(SHARED_RANK / fewest, 1.0), 0.0) * wanted.weight
    return ranks


def _packed(needs: _Needs, rank: Floats, rule: Rule) -> _Table:
    table = _Table(needs, rank, rule)
    for booking in np.argsort(-rank, kind="stable").tolist():
        table.seat(booking)
    return table


class _Needs:
    """What each booking takes where; those that need the same share one answer, by their ``type``.

    Nodes stand in the order of their size, small memory first; ``order`` has their numbers.
    """

    def __init__(self, offer: Offer, wanted: Wanted) -> None:
        self.order = np.lexsort((offer.gpus[offer.kind], offer.gpu_gb[offer.kind]))
        kind = offer.kind[self.order]
        self.gpus = offer.gpus[kind].astype(np.int8)
        kinds = wanted.whole.shape[1]
        types, of = np.unique(np.hstack((wanted.whole, wanted.share)), axis=0, return_inverse=True)
        whole, share = types[:, :kinds][:, kind], types[:, kinds:][:, kind]
        memory = offer.gpu_gb[kind]
        self.whole = np.where(whole > 0, np.minimum(whole, NEVER), NEVER).astype(np.int8)
        self.share = share.astype(np.int16)
        self.opens = np.where(share > 0, np.int8(1), NEVER)
        # the fewest GPUs, then the least memory; rules add less than one GB to it
        few = 2 * memory.max()
        self.cost = np.where(whole > 0, whole * (memory + few), FAR).astype(np.float32)
        self.opening_cost = np.where(share > 0, memory, FAR).astype(np.float32)
        self.takes_whole: list[bool] = np.any(whole > 0, axis=1).tolist()
        self.shares: list[bool] = np.any(share > 0, axis=1).tolist()
        self.type: list[int] = of.ravel().tolist()
        self.first: list[int] = wanted.first.tolist()
        self.last: list[int] = wanted.last.tolist()
        self.weight: list[float] = wanted.weight.tolist()
        self.slots = int(wanted.last.max())


class _Table:
    """Who sits where: idle GPUs of each node by slot, and what is free of each GPU that is shared.

    A shared GPU is a lane: it draws one GPU of its node while anybody is on it.
    """

    def __init__(self, needs: _Needs, rank: Floats, rule: Rule) -> None:
        self.needs, self.rank, self.rule = needs, rank, rule
        self.weight = 0.0
        self._node = [NOWHERE] * len(needs.type)
        self._lane = [WHOLE_GPUS] * len(needs.type)
        self._idle = np.tile(needs.gpus, (needs.slots, 1))
        self._free = np.full((needs.slots, 64), FULL, dtype=np.int16)
        self._lane_node = np.zeros(64, dtype=np.int64)
        self._lanes_of: dict[int, list[int]] = {}
        self._lanes = 0

    def packing(self) -> Packing:
        """The seats, by the numbers that nodes had from outside."""
        node = np.array(self._node, dtype=np.int64)
        seated = node != NOWHERE
        node[seated] = self.needs.order[node[seated]]
        return Packing(node, np.array(self._lane, dtype=np.int64))

    def seat(self, booking: int) -> bool:
        """Find a seat: on a GPU that is shared already, on whole ones, on one to be shared from now on."""
        needs = self.needs
        first, last, kind = needs.first[booking], needs.last[booking], needs.type[booking]
        if needs.shares[kind] and self._share(booking, first, last, needs.share[kind]):
            return True
        least = self._idle[first:last].min(axis=0)
        if needs.takes_whole[kind]:
            left = least - needs.whole[kind]
            if (left >= 0).any():
                score = needs.cost[kind] + self._preference(first, last, least)
                node = int(np.where(left >= 0, score, FAR).argmin())
                self._sit(booking, node, WHOLE_GPUS)
                return True
        if needs.shares[kind]:
            room = least >= needs.opens[kind]
            if room.any():
                score = needs.opening_cost[kind] - least.astype(np.float32) / STEP
                node = int(np.where(room, score, FAR).argmin())
                self._sit(booking, node, self._idle_lane(node, first, last))
                return True
        return False

    def _preference(self, first: int, last: int, least: NDArray[np.int8]) -> NDArray[np.float32]:
        if self.rule is Rule.EMPTIEST:
            return -least.astype(np.float32) / STEP
        gaps = np.zeros(len(least), dtype=np.float32)
        if first > 0:
            gaps += self._idle[first - 1] - least
        if last < self.needs.slots:
            gaps += self._idle[last] - least
        gaps /= STEP
        return gaps

    def _share(self, booking: int, first: int, last: int, share: NDArray[np.int16]) -> bool:
        if not self._lanes:
            return False
        takes = share[self._lane_node[: self._lanes]]
        least = self._free[first:last, : self._lanes].min(axis=0)
        lanes = np.flatnonzero((takes > 0) & (least >= takes) & (least < FULL))
        for lane in lanes[np.argsort((least - takes)[lanes], kind="stable")[:LANES_TRIED]].tolist():
            node = int(self._lane_node[lane])
            unused = self._free[first:last, lane] == FULL
            if (self._idle[first:last, node] >= unused).all():
                self._sit(booking, node, lane)
                return True
        return False

    def _idle_lane(self, node: int, first: int, last: int) -> int:
        for lane in self._lanes_of.get(node, ()):
            if (self._free[first:last, lane] == FULL).all():
                return lane
        lane = self._lanes
        if lane == len(self._lane_node):
            self._free = np.hstack((self._free, np.full_like(self._free, FULL)))
            self._lane_node = np.concatenate((self._lane_node, np.zeros_like(self._lane_node)))
        self._lane_node[lane] = node
        self._lanes_of.setdefault(node, []).append(lane)
        self._lanes += 1
        return lane

    def _sit(self, booking: int, node: int, lane: int) -> None:
        needs = self.needs
        slots, kind = slice(needs.first[booking], needs.last[booking]), needs.type[booking]
        if lane == WHOLE_GPUS:
            self._idle[slots, node] -= needs.whole[kind, node]
        else:
            self._idle[slots, node] -= self._free[slots, lane] == FULL
            self._free[slots, lane] -= needs.share[kind, node]
        self._node[booking], self._lane[booking] = node, lane
        self.weight += needs.weight[booking]
