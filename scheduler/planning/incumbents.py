"""What was promised before and what runs already, put into the book before anything else.

A promise stays where it was; what runs stays where it is. Where both are known they agree, but for a
plan that was never carried out, a history that was lost, or a node that is gone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter

from scheduler.cluster.node import DeviceKind, Node
from scheduler.planning.admission import Admission
from scheduler.planning.footprint import SHARE_STEPS
from scheduler.planning.holds import Ask, alike, runs_with, shared, union
from scheduler.planning.ledger import Released
from scheduler.planning.needs import Need, units_on
from scheduler.planning.running import Identity
from scheduler.types import Deployment, Stay


@dataclass(frozen=True)
class _Part:
    """What is left of an earlier stay: a window in which some of its bookings are still wanted."""

    stay: Stay | None
    model: str
    node: str
    start: float
    end: float
    asks: tuple[Ask, ...]
    need: Need | None = None

    def taking(self, need: Need) -> _Part:
        """The same with what a replica takes."""
        return _Part(self.stay, self.model, self.node, self.start, self.end, self.asks, need)

    @property
    def order(self) -> tuple[object, ...]:
        lane = None if self.stay is None else self.stay.lane
        return (
            min(ask.claim for ask in self.asks),
            self.start,
            self.node,
            self.end,
            -1 if lane is None else lane,
            sorted(ask.key for ask in self.asks),
        )


@dataclass(frozen=True, slots=True)
class _Runs:
    """Replicas of a model that run on a node: how many, what each takes, and until when they are kept."""

    replicas: int
    need: Need
    takes: tuple[int, int] | None
    kept_until: float


@dataclass(slots=True)
class _Node:
    """What was put on a node, and from what: it is put anew when any of that is another.

    ``until`` is the next instant at which it may be another by itself.
    """

    stays: tuple[Stay, ...] = ()
    until: float = 0.0
    released: list[Released] = field(default_factory=list)


class Incumbents:
    """Holds again what was promised and what runs, the strongest claim first, what has begun before all.

    Nodes on which nothing is another than at the last ``update`` are left as they are.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._minimum_seconds = 0.0
        self._runs: dict[Identity, _Runs] = {}
        self._left: Counter[Identity] = Counter()
        self._nodes: dict[str, _Node] = {}
        self._linked: set[str] = set()
        """Nodes on which something is held that was promised elsewhere, or nowhere."""
        self._names_of: defaultdict[str, set[str]] = defaultdict(set)
        """The nodes on which an event, or a model, has stays; by its key."""

    def update(
        self,
        changed: Collection[str],
        stays: Mapping[str, tuple[Stay, ...]],
        running: Mapping[Identity, Deployment],
        others: Collection[Identity],
        minimum_service_seconds: float,
        turned: Collection[str] = (),
    ) -> set[str]:
        """Make the book what it must be before anything is admitted.

        Args:
            changed: keys of the bookings that are others than they were, came or went.
            stays: what was promised, by the name of the node.
            running: what runs.
            others: the identities of what of it is another than at the last ``update``, came or went.
            minimum_service_seconds: how long it may not be displaced.
            turned: keys of those that were refused, for whom what runs is not kept.

        Returns: the keys of the bookings of which something was held, or is now, where things changed.
        """
        if minimum_service_seconds != self._minimum_seconds:
            self._minimum_seconds, others = minimum_service_seconds, running.keys() | others
        for one in others:
            self._note_running(one, running.get(one))
        names = self._dirty(changed, stays, others)
        touched: set[str] = set()
        parts: list[_Part] = []
        for name in sorted(names):
            touched.update(self._forget(name))
            parts += self._note(name, stays.get(name, ()))
        self._left = Counter(
            {one: left for one, left in self._left.items() if one[1] not in names and left > 0}
        )
        for identity, runs in self._runs.items():
            if identity[1] in names and runs.replicas > 0:
                self._left[identity] = runs.replicas
        self._linked.clear()
        self._hold_all(parts, turned, has_history=bool(stays))
        self._admission.settle()
        self._admission.touched.clear()
        for name in names:
            number = self._admission.book.index.get(name)
            for hold in self._admission.there(number) if number is not None else ():
                touched |= hold.keys
        self._note_released(names)
        return touched

    def released(self) -> list[Released]:
        """Where something that was promised is not held any more."""
        return [one for node in self._nodes.values() for one in node.released]

    def promised_on(self, key: str) -> set[str]:
        """The nodes on which something was promised to a booking."""
        return self._names_of.get(key, set())

    # Which nodes are concerned

    def _note_running(self, identity: Identity, one: Deployment | None) -> None:
        book, needs = self._admission.book, self._admission.running
        model, name = identity
        number = book.index.get(name)
        self._runs.pop(identity, None)
        if number is not None:
            needs.pop((model, number), None)
        if one is None:
            return
        node = None if number is None else book.nodes[number]
        takes = _units(one, node) if node and node.devices else None
        kept = one.since.timestamp() + self._minimum_seconds if one.since is not None else 0.0
        self._runs[identity] = _Runs(one.replicas, runs_with(one), takes, kept)
        if number is not None:
            needs[model, number] = self._runs[identity].need

    def _dirty(
        self, changed: Collection[str], stays: Mapping[str, tuple[Stay, ...]], running: Iterable[Identity]
    ) -> set[str]:
        now, nodes = self._admission.at, self._admission.book.nodes
        dirty = {nodes[number].name for number in self._admission.touched}
        for name in stays.keys() | self._nodes.keys():
            node = self._nodes.get(name)
            there = stays.get(name, ())
            if node is None or node.until <= now or (node.stays is not there and node.stays != there):
                dirty.add(name)
            else:
                node.stays = there
        for key in changed:
            dirty |= self._names_of.get(key, set())
        for model, name in running:
            dirty.add(name)
            dirty |= self._names_of.get(model, set())
        # What runs and was promised to nobody may be wanted by now.
        dirty |= {name for (_, name), left in self._left.items() if left > 0}
        return dirty | self._linked

    def _forget(self, name: str) -> set[str]:
        """Take everything off a node; returns the keys of the bookings it was held for."""
        known, keys = self._nodes.pop(name, None), set[str]()
        for stay in known.stays if known else ():
            for key in (stay.model, *stay.events):
                self._names_of[key].discard(name)
        number = self._admission.book.index.get(name)
        if number is not None:
            for hold in self._admission.clear(number):
                keys |= hold.keys
        return keys

    def _note(self, name: str, stays: tuple[Stay, ...]) -> list[_Part]:
        """What is left of the stays on a node."""
        now = self._admission.at
        parts = [part for stay in stays for part in _parts(stay, self._admission)]
        instants = {instant for part in parts for instant in (part.start, part.end)}
        instants |= {instant for part in parts for ask in part.asks for instant in (ask.start, ask.end)}
        until = min((instant for instant in instants if instant > now), default=float("inf"))
        for stay in stays:
            for key in (stay.model, *stay.events):
                self._names_of[key].add(name)
        if stays or name in self._admission.book.index:
            self._nodes[name] = _Node(stays, until)
        return parts

    def _note_released(self, names: Iterable[str]) -> None:
        """Stays whose seat is not held for all of their window, or with a lower priority than it was."""
        admission = self._admission
        for name in names:
            number, known = admission.book.index.get(name), self._nodes.get(name)
            if number is None or known is None:
                continue
            held: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
            for hold in sorted(admission.there(number), key=attrgetter("priority")):
                lane = admission.book.lane_of(hold.seat)
                seat = (hold.model, hold.start, hold.end, lane, hold.seat.devices)
                held[seat].append(hold.priority)
            for stay in sorted(known.stays, key=attrgetter("priority"), reverse=True):
                start, end = stay.start.timestamp(), stay.end.timestamp()
                seat = (stay.model, start, end, stay.lane, stay.devices)
                if not held[seat] or held[seat].pop() < stay.priority:
                    known.released.append((number, start, end))

    # Holding

    def _hold_all(self, parts: list[_Part], turned: Collection[str], *, has_history: bool) -> None:
        admission = self._admission
        parts.sort(key=lambda part: (part.start > admission.at, part.order))
        placed = self._with_needs(self._where_they_run(parts))
        # What runs and needs no change is there, whatever the book says: it is written first.
        left = [one for one in placed if not self._hold(*one, as_it_is=True)]
        if not has_history:
            self._adopt(turned, as_it_is=True)
        # Nobody loses what was promised to what has come to take more, or to what only runs.
        left.sort(key=lambda one: self._grows(one[0], one[1]))
        for one in left:
            self._hold(*one, as_it_is=False)
        self._adopt(turned, as_it_is=False)

    def _where_they_run(self, parts: list[_Part]) -> list[tuple[_Part, str, bool]]:
        """Each with its node, and whether it runs there; what has begun and runs elsewhere, with that one.

        What runs, runs for the stay that begins first.
        """
        spare, now = self._left.copy(), self._admission.at
        runs, lost = [False] * len(parts), []
        for number in sorted(range(len(parts)), key=lambda number: max(parts[number].start, now)):
            part = parts[number]
            if spare[part.model, part.node] > 0:
                spare[part.model, part.node] -= 1
                runs[number] = True
            elif part.start <= now:
                lost.append(number)
        nodes = [part.node for part in parts]
        if lost:
            elsewhere: defaultdict[str, list[str]] = defaultdict(list)
            for (model, node), left in sorted(spare.items()):
                elsewhere[model] += [node] * left
            for number in lost:
                if there := elsewhere[parts[number].model]:
                    nodes[number], runs[number] = there.pop(0), True
                    self._linked |= {parts[number].node, nodes[number]}
        return list(zip(parts, nodes, runs, strict=True))

    def _with_needs(self, placed: list[tuple[_Part, str, bool]]) -> list[tuple[_Part, str, bool]]:
        """Each with what a replica takes: the same for all of a model that are on a node at one time."""
        groups: defaultdict[Identity, list[int]] = defaultdict(list)
        for number, (part, node, _) in enumerate(placed):
            groups[part.model, node].append(number)
        found = list(placed)
        for identity, group in groups.items():
            for together in _at_one_time(group, placed):
                need = self._need(identity, [placed[number][0] for number in together])
                for number in together:
                    found[number] = (placed[number][0].taking(need), *placed[number][1:])
        return found

    def _need(self, identity: Identity, parts: Collection[_Part]) -> Need:
        """What the strongest claim asks for; what runs is left as it is if it may be.

        It may if others of that priority ask for just that, or if it was shared with a booking that is over.
        But nobody who was promised the GPUs it insists on gets fewer.
        """
        admission, (_, name) = self._admission, identity
        asks = list({ask.key: ask for part in parts for ask in part.asks}.values())
        if len(asks) > 1:
            asks.sort(key=_claim)
        need = shared([ask.need for ask in asks])
        runs, number = self._runs.get(identity), admission.book.index.get(name)
        if number is None:
            return need
        stays = [part.stay for part in parts if part.stay is not None]
        insist = [ask for ask in asks if ask.need.gpus]
        if insist:
            promised = min((stay.devices for stay in stays), default=0)
            insist = [ask for ask in insist if (ask.need.gpus or 0) <= promised]
            if not admission.is_enough(number, need, insist):
                need = replace(need, gpus=max(ask.need.gpus or 0 for ask in insist))
        if runs is None or all(part.start > admission.at for part in parts):
            return need
        node = admission.book.nodes[number]
        if alike(node, need, runs.need) or not admission.is_enough(number, runs.need, insist):
            return need
        for ask in asks:
            if ask.priority == asks[0].priority and alike(node, ask.need, runs.need):
                return shared((ask.need, need))
        if any(self._was_shared(stay, need) for stay in stays):
            return replace(runs.need, accelerator=need.accelerator)
        return need

    def _grows(self, part: _Part, name: str) -> bool:
        """Whether it takes more than was promised."""
        number, stay = self._admission.book.index.get(name), part.stay
        if number is None or stay is None or part.need is None or part.node != name:
            return False
        whole, share = units_on(self._admission.book.nodes[number], part.need)
        return (whole or share / SHARE_STEPS) > stay.devices > 0

    def _need_there(self, part: _Part) -> Need | None:
        """What others of its model take on its node at its time, if there are any."""
        number = self._admission.book.index.get(part.node)
        others = self._admission.beside(part.model, part.start, part.end)
        there = (one for one in others if one.start < part.end and one.end > part.start)
        return next((one.need for one in there if one.seat.node == number), None)

    def _was_shared(self, stay: Stay, need: Need) -> bool:
        """Whether what runs for a stay was for a booking, too, that has left it since, or was then."""
        if stay.asked_bytes == need.footprint_bytes:
            return True
        return len(_asks_of(stay, self._admission)) < len(stay.events)

    def _hold(self, part: _Part, name: str, runs: bool, *, as_it_is: bool) -> bool:
        """Hold a part of a stay on a node, if the node takes it still.

        Args:
            runs: it does so there.
            as_it_is: only if it runs and need not change, but then though there is no room by the book.
        """
        admission, identity = self._admission, (part.model, name)
        number = admission.book.index.get(name)
        if number is None or not self._may_stay(number, part.start, runs):
            return False
        if part.node != name and not all(admission.could_be(number, ask.need) for ask in part.asks):
            return False
        node, need = admission.book.nodes[number], part.need or self._need(identity, [part])
        asks, start, end = part.asks, part.start, part.end
        if any(ask.need.gpus for ask in asks):
            asks = tuple(ask for ask in asks if admission.is_enough(number, need, (ask,)))
        if node.cordoned:
            # Its next use is elsewhere.
            asks = tuple(ask for ask in asks if ask.start <= admission.at)
        if asks is not part.asks:
            start = max(start, min((ask.start for ask in asks), default=end))
            end = min(end, max((ask.end for ask in asks), default=start))
        if start >= end:
            return False
        running = self._runs.get(identity)
        if as_it_is and not (runs and running and running.takes == units_on(node, need)):
            return False
        held = admission.restore(
            part.model,
            need,
            number,
            frozenset(ask.key for ask in asks),
            start,
            end,
            lane=part.stay.lane if part.stay and part.node == name else None,
            runs=runs,
            # what is only loaded ahead has no claim to room that others have taken
            squeeze=as_it_is and start <= admission.at and self._has_devices(number, need),
            kept_until=running.kept_until if running else 0.0,
        )
        if held is not None and runs:
            self._left[identity] -= 1
        return held is not None

    def _has_devices(self, number: int, need: Need) -> bool:
        """Whether a node has as many GPUs as what runs there by the book takes with this."""
        admission, node = self._admission, self._admission.book.nodes[number]
        if node.kind is not DeviceKind.GPU:
            return True
        seats = (hold.seat for hold in admission.there(number) if hold.start <= admission.at < hold.end)
        whole, share = units_on(node, need)
        # in steps, in which nothing is rounded
        taken = sum(seat.units * (SHARE_STEPS if seat.lane is None else 1) for seat in seats)
        return taken + whole * SHARE_STEPS + share <= len(node.devices) * SHARE_STEPS

    def _may_stay(self, number: int, start: float, runs: bool) -> bool:
        node = self._admission.book.nodes[number]
        if node.draining:
            return False
        return not node.cordoned or (runs and start <= self._admission.at)

    def _adopt(self, turned: Collection[str], *, as_it_is: bool) -> None:
        """Without a history, what runs tells where it was promised to be: hold it for its first bookings.

        ``as_it_is``: though there is no room by the book. Who was ``turned`` away has no claim to it.
        """
        admission = self._admission
        models = {model for (model, _), left in self._left.items() if left > 0}
        if not models:
            return
        asks_of: dict[str, list[Ask]] = {}
        for ask in admission.asks.values():
            if (
                ask.model in models
                and ask.key not in turned
                and ask.start - ask.lead <= admission.at < ask.end
            ):
                asks_of.setdefault(ask.model, []).append(ask)
        for asks in asks_of.values():
            asks.sort(key=lambda ask: ask.claim)
        left_over = [one for one, left in self._left.items() if left > 0 and one[0] in asks_of]
        for model, node in sorted(left_over, key=lambda one: (asks_of[one[0]][0].claim, one)):
            for _ in range(self._left[model, node]):
                needy = (ask for ask in asks_of[model] if _lacks(admission, ask))
                part = next(filter(None, (self._taken_over(ask, node) for ask in needy)), None)
                if part is None:
                    break
                self._linked.add(node)
                if not self._hold(part, node, True, as_it_is=as_it_is):
                    break

    def _taken_over(self, ask: Ask, name: str) -> _Part | None:
        """What a booking may have of what runs on a node: as much as others of its model take there then."""
        admission, number = self._admission, self._admission.book.index.get(name)
        if number is None or not admission.could_be(number, ask.need):
            return None
        part = _Part(None, ask.model, name, ask.start, ask.end, (ask,))
        there = self._need_there(part)
        if there is None:
            return part
        return part.taking(there) if admission.is_enough(number, there, (ask,)) else None


def _claim(ask: Ask) -> tuple[object, ...]:
    return ask.claim


def _at_one_time(group: list[int], placed: list[tuple[_Part, str, bool]]) -> list[list[int]]:
    """Those of a group that overlap, or are joined by others that overlap them."""
    if len(group) == 1:
        return [group]
    found: list[list[int]] = []
    end = float("-inf")
    for number in sorted(group, key=lambda number: placed[number][0].start):
        part = placed[number][0]
        if part.start < end:
            found[-1].append(number)
        else:
            found.append([number])
        end = max(end, part.end)
    return found


def _units(one: Deployment, node: Node) -> tuple[int, int]:
    """What a replica takes of its node: whole GPUs, or ten-thousandths of one device."""
    if one.num_gpus >= 1:
        return round(one.num_gpus), 0
    if one.num_gpus:
        return 0, round(one.num_gpus * SHARE_STEPS)
    return units_on(node, Need(one.memory_bytes))


def _asks_of(stay: Stay, admission: Admission) -> list[Ask]:
    """The bookings of a stay that are part of it still."""
    number = admission.book.index.get(stay.node)
    first, last = stay.start.timestamp(), stay.end.timestamp()
    known = [ask for key in stay.events if (ask := admission.asks.get(key)) is not None]
    asks = [ask for ask in known if ask.model == stay.model and ask.start < last and ask.end > first]
    return asks if number is None else [ask for ask in asks if admission.could_be(number, ask.need)]


def _parts(stay: Stay, admission: Admission) -> Iterable[_Part]:
    asks = _asks_of(stay, admission)
    first, last = stay.start.timestamp(), stay.end.timestamp()
    for start, end in union([(max(ask.start, first), min(ask.end, last)) for ask in asks]):
        if end > admission.at:
            within = tuple(ask for ask in asks if ask.start < end and ask.end > start)
            yield _Part(stay, stay.model, stay.node, start, end, within)


def _lacks(admission: Admission, ask: Ask) -> bool:
    """Whether a booking has fewer replicas at its start than it asks for."""
    start = max(admission.at, ask.start)
    return sum(hold.start <= start < hold.end for hold in admission.of_booking(ask.key)) < ask.replicas
