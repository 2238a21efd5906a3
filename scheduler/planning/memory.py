"""What planning knows from one plan to the next.

It makes no other plan, only sooner: whatever is kept here is kept with all it was made from, and made
anew when any of that is another. So one memory serves all questions, in any order, and a plan made
without one is the same to the byte.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from itertools import chain
from operator import attrgetter, itemgetter

import numpy as np

from scheduler.cluster.node import Cluster
from scheduler.planning.admission import Admission
from scheduler.planning.book import Book
from scheduler.planning.clearing import MOVES_PER_PLAN
from scheduler.planning.diff import Differences
from scheduler.planning.directory import Signpost
from scheduler.planning.holds import Ask, Hold, alike
from scheduler.planning.incumbents import Incumbents
from scheduler.planning.running import Identity, Running
from scheduler.planning.schedule import Timetable
from scheduler.planning.verdicts import Sayings
from scheduler.planning.wishes import Wishes
from scheduler.types import Broken, Promises, Stay, Turned

SPARE_EDGES = 2_000
"""Instants at which nothing begins or ends any more that a book may be left with."""
FEW_NODES = 64
"""Where more have changed, all stays are sorted anew."""
_Order = tuple[object, ...]
"""What stays are sorted by; no two have the same."""
_Told = tuple[_Order, Stay]


class Memory:
    """The workings of the last plan, which the next one begins with. For one thread at a time."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin with nothing."""
        self.wishes = Wishes()
        self.running = Running()
        self._standing: Standing | None = None

    def standing(self, cluster: Cluster, now: float) -> Standing:
        """The book as it was left; a new one where that is no use for this cluster and instant."""
        known = self._standing
        if known is None or not known.serves(cluster, now, self.wishes.edges):
            known = self._standing = Standing(cluster, now, self.wishes.edges)
        known.admission.at = now
        return known


class Standing:
    """A book that is kept from plan to plan: what it holds, and for whom it has no room."""

    def __init__(self, cluster: Cluster, now: float, edges: Collection[float]) -> None:
        self.cluster = cluster
        self.admission = Admission(Book(cluster, edges, now), now)
        self.timetable = Timetable()
        self.sayings = Sayings()
        self.signpost = Signpost()
        self.differences = Differences()
        self.running = Running()
        self.others: Collection[Identity] = ()
        """What of it runs otherwise than in the last plan of this book."""
        self._incumbents = Incumbents(self.admission)
        self._capacity = _capacity(cluster)
        self._is_new = True
        self._unmet: set[str] = set()
        self._told = Promises()
        self._by_node: dict[str, tuple[Stay, ...]] = {}
        self._versions = np.full(len(cluster.nodes), -1)
        self._edited: Collection[str] = ()
        """The keys of the bookings that ask for something else than in the last plan of this book."""
        self._orders: list[_Order] = []
        self._stays_in_order: list[Stay] = []
        self._shown: dict[int, list[_Told]] = {}
        self._on_disk: frozenset[Identity] = frozenset()
        self._digests: dict[str, tuple[Ask, object, str, str]] = {}

    def serves(self, cluster: Cluster, now: float, edges: Collection[float]) -> bool:
        """Whether this is of use for a plan."""
        book = self.admission.book
        if now < book.at or len(book.edges) > len(edges) + SPARE_EDGES:
            return False
        if cluster is not self.cluster and cluster != self.cluster:
            return False
        self.cluster = cluster
        return True

    def observe(self, running: Running, on_disk: frozenset[Identity]) -> None:
        """Take in what runs, and on which nodes the weights of models are."""
        self.running = running
        self.others = running.by_identity.keys() if self._is_new else running.changed
        models = {model for model, _ in self.others}
        if on_disk != self._on_disk:
            models |= {model for model, _ in on_disk ^ self._on_disk}
            self._on_disk = on_disk
        nodes_of: defaultdict[str, set[str]] = defaultdict(set)
        for model, node in on_disk:
            if model in models:
                nodes_of[model].add(node)
        index, at_hand = self.admission.book.index, self.admission.at_hand
        for model in models:
            nodes = nodes_of[model].union(running.nodes_of(model)) & index.keys()
            at_hand[model] = [index[node] for node in sorted(nodes)]
            if not nodes:
                del at_hand[model]

    def admit(
        self,
        asks: dict[str, Ask],
        changed: Collection[str],
        previous: Promises,
        minimum_service_seconds: float,
    ) -> None:
        """Hold what was promised and what runs, then admit what else can be.

        Args:
            asks: all bookings there are now, by key; promises to others are forgotten.
            changed: the keys of those that are others than they were, came or went.
            minimum_service_seconds: how long what runs may not be displaced.
        """
        admission = self.admission
        admission.ask_all(asks)
        fresh = asks.keys() if self._is_new else asks.keys() & changed
        self._edited = () if self._is_new else fresh
        # of what is gone, too: it only bounds what is looked at
        admission.longest_lead = max((admission.longest_lead, *(asks[key].lead for key in fresh)))
        admission.moves_left = MOVES_PER_PLAN
        admission.displaced.clear()
        concerned = set[str]() if self._is_new else fresh | self._unmet
        if self._is_new:
            # all of them, but for whom something is held at once
            self._unmet, self._is_new = set(asks), False
        turned = {one.event: one for one in previous.refused if one.event in asks}
        concerned |= self._incumbents.update(
            changed,
            self._grouped(previous.stays),
            self.running.by_identity,
            self.others,
            minimum_service_seconds,
            turned,
        )
        admission.changed.clear()
        self._look_at(concerned)
        admission.robbed = admission.spent = frozenset()
        before: set[str] = set()
        if previous.capacity == self._capacity:
            unmet = {key: one for key, one in turned.items() if key in self._unmet}
            before = {key for key, one in unmet.items() if one.asked == self._asked(asks[key])}
            begun = (key for key in unmet if asks[key].start < admission.at)
            admission.spent = frozenset(key for key in begun if unmet[key].booking == _digest(asks[key]))
        else:
            admission.robbed = frozenset(key for key in self._unmet if self.promised_on(key))
        admission.admit_all([asks[key] for key in self._unmet], before, self._incumbents.released())

    def promised_on(self, key: str) -> set[str]:
        """The nodes on which something was promised to a booking before this plan."""
        return self._incumbents.promised_on(key)

    def unmet(self) -> list[Ask]:
        """The bookings that did not get all they asked for."""
        changed = self.admission.changed
        self._look_at(changed)
        changed.clear()
        return [self.admission.asks[key] for key in self._unmet]

    def _look_at(self, keys: Iterable[str]) -> None:
        admission, unmet = self.admission, self._unmet
        for key in keys:
            ask = admission.asks.get(key)
            if ask is not None and admission.covered(ask) < ask.replicas:
                unmet.add(key)
            else:
                unmet.discard(key)

    def _grouped(self, stays: tuple[Stay, ...]) -> Mapping[str, tuple[Stay, ...]]:
        if stays is self._told.stays:
            return self._by_node
        found: defaultdict[str, list[Stay]] = defaultdict(list)
        for stay in stays:
            found[stay.node].append(stay)
        return {name: tuple(group) for name, group in found.items()}

    # What is promised from now on

    def promises(self, broken: Mapping[str, Broken]) -> Promises:
        """What the next plan must be given."""
        self._digests = {key: one for key, one in self._digests.items() if key in self._unmet}
        refused = tuple(
            Turned(ask.key, *self._asked_of(ask))
            for ask in sorted(self.unmet(), key=lambda ask: ask.key)
            if self.admission.book.possible(ask.need)
        )
        told = Promises(
            stays=self._stays(),
            broken=tuple(broken[key] for key in sorted(broken)),
            refused=refused,
            capacity=self._capacity,
        )
        if told != self._told:
            self._told = told
        return self._told

    def _stays(self) -> tuple[Stay, ...]:
        versions = self.admission.versions
        others = self._versions != versions
        # what a stay tells of its bookings is another though all is held as it was
        others[[hold.seat.node for key in self._edited for hold in self.admission.of_booking(key)]] = True
        dirty = np.flatnonzero(others).tolist()
        if not dirty:
            return self._told.stays
        self._versions = versions.copy()
        made = {
            node: sorted(_stay(self.admission, number) for number in self.admission.numbers_on(node))
            for node in dirty
        }
        made = {node: group for node, group in made.items() if group != self._shown.get(node, [])}
        if not made:
            return self._told.stays
        if len(made) > FEW_NODES:
            self._shown |= made
            told = sorted(chain.from_iterable(self._shown.values()), key=itemgetter(0))
            self._orders = [order for order, _ in told]
            self._stays_in_order = [stay for _, stay in told]
        else:
            for node, group in made.items():
                self._show(self._shown.get(node, []), group)
            self._shown |= made
        for node, group in made.items():
            self._by_node[self.cluster.nodes[node].name] = tuple(one[1] for one in group)
        return tuple(self._stays_in_order)

    def _show(self, before: Iterable[_Told], now: Iterable[_Told]) -> None:
        """Tell some stays in the place of others."""
        for order, _ in before:
            place = bisect_left(self._orders, order)
            del self._orders[place], self._stays_in_order[place]
        for order, stay in now:
            place = bisect_left(self._orders, order)
            self._orders.insert(place, order)
            self._stays_in_order.insert(place, stay)

    def _asked(self, ask: Ask) -> str:
        return self._asked_of(ask)[0]

    def _asked_of(self, ask: Ask) -> tuple[str, str]:
        """Digests of a booking, with the stays that its model has near its window and without."""
        near = [
            (hold.start, hold.end, hold.seat.node)
            for hold in self.admission.beside(ask.model, ask.start, ask.end)
        ]
        known = self._digests.get(ask.key)
        if known is None or known[0] is not ask or known[1] != near:
            known = self._digests[ask.key] = (ask, near, _digest((ask, near)), _digest(ask))
        return known[2], known[3]


def _stay(admission: Admission, number: int) -> _Told:
    """A hold as it is told, after what it is sorted by."""
    hold = admission.holds[number]
    name, events = admission.book.nodes[hold.seat.node].name, tuple(sorted(hold.keys))
    lane = admission.book.lane_of(hold.seat)
    order = (hold.start, name, hold.model, hold.end, events, -1 if lane is None else lane, number)
    return order, Stay(
        model=hold.model,
        node=name,
        start=datetime.fromtimestamp(hold.start, UTC),
        end=datetime.fromtimestamp(hold.end, UTC),
        events=events,
        devices=hold.seat.devices,
        lane=lane,
        asked_bytes=_asked_bytes(admission, hold),
        priority=hold.priority,
    )


def _asked_bytes(admission: Admission, hold: Hold) -> int:
    """What is asked for by the strongest claim, if something else is held for it; else nothing."""
    asks = [admission.asks[key] for key in hold.keys]
    first = asks[0] if len(asks) == 1 else min(asks, key=attrgetter("claim"))
    if first.need is hold.need:
        return 0
    node = admission.book.nodes[hold.seat.node]
    return 0 if alike(node, first.need, hold.need) else first.need.footprint_bytes


def _capacity(cluster: Cluster) -> str:
    """A digest of what a cluster can hold."""
    nodes = [
        (
            node.name,
            node.accelerator,
            node.closed,
            [(device.kind, device.memory_bytes, device.taken_share) for device in node.devices],
        )
        for node in cluster.nodes
    ]
    return _digest(nodes)


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]
