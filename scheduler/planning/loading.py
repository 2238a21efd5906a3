"""How what is to come gets ready: when its loading begins, and whose room it waits for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from scheduler.planning.admission import Admission
from scheduler.planning.footprint import Loads
from scheduler.planning.holds import Hold, alike, runs_with
from scheduler.planning.running import Identity
from scheduler.planning.upcoming import Active, Loading, Place, same
from scheduler.types import Deployment, DeploymentStatus

Begin = tuple[float, tuple[object, ...], int, float, Hold]
"""When loading must begin, the order among equals, the number of the hold, the lead, and the hold."""
_Order = tuple[int, list[tuple[object, ...]]]
"""The version of a node, and the claims of what is loaded there."""


def begin_of(admission: Admission, hold: Hold, loads: Loads) -> Begin:
    """When loading for a hold must begin so that it serves at its start."""
    lead = loads.lead_seconds(hold.model, admission.book.nodes[hold.seat.node], hold.need.footprint_bytes)
    return (hold.start - lead, hold.rank, hold.number, lead, hold)


class Loader:
    """Reckons how what is to come gets ready; what is reckoned as it was is told with the same objects."""

    def __init__(self) -> None:
        self._told: dict[int, Loading] = {}
        """By number of the hold."""
        self._alone: dict[int, tuple[int, Loading]] = {}
        """Each as if it were alone, with the version of its node."""
        self._together: dict[int, tuple[_Order, tuple[Loading, ...], dict[int, Loading]]] = {}
        """By node: what their turns depend on, each as if it were alone, and each beside the others."""

    def forget(self) -> None:
        """Reckon all anew."""
        self._alone.clear()
        self._together.clear()

    def load(
        self,
        admission: Admission,
        nearest: Iterable[Begin],
        loads: Loads,
        running: Mapping[Identity, Deployment],
        active: Active,
    ) -> dict[int, Loading]:
        """How the nearest of what is to come gets ready, by number of the hold.

        Where several need the same room ahead of their starts, the stronger claim has it.
        """
        nodes, versions = admission.book.nodes, admission.versions
        found, alone = dict[int, Loading](), dict[int, tuple[int, Loading]]()
        there_for = _ThereFor(admission, loads, running, active)
        ahead: defaultdict[int, list[Begin]] = defaultdict(list)
        for begin in nearest:
            instant, _, number, lead, hold = begin
            if (hold.model, nodes[hold.seat.node].name) not in running and instant > admission.at:
                version, known = versions[hold.seat.node], self._alone.get(number)
                if known is None or known[0] != version or known[1].hold is not hold:
                    known = (version, self._as_told(_loading(admission, hold, lead, instant)))
                alone[number] = known
                found[number] = known[1]
            else:
                found[number] = self._as_told(there_for.due(begin))
            if found[number].not_before < hold.start:
                ahead[hold.seat.node].append(begin)
        before, self._alone, self._together = self._together, alone, {}
        for node, group in ahead.items():
            each = tuple(found[begin[2]] for begin in group)
            if len(group) > 1 and _overlap(each):
                order = (versions[node], [_claim(admission, one.hold) for one in each])
                turns = before.get(node)
                if turns is None or turns[0] != order or not same(turns[1], each):
                    made = _in_turn(_ThereFor(admission, loads, running, active), group)
                    turns = (order, each, {number: self._as_told(one) for number, one in made.items()})
                self._together[node] = turns
                found.update(turns[2])
        self._told = found
        return found

    def _as_told(self, loading: Loading) -> Loading:
        """What was told the last time, if it is that."""
        told = self._told.get(loading.hold.number)
        return told if told == loading else loading


def still_loading(
    admission: Admission,
    active: Active,
    awaited: Iterable[Place],
    running: Mapping[Identity, Deployment],
    loads: Loads,
) -> dict[int, Loading]:
    """How that gets ready which has begun, for bookings that have joined it and have not; by number.

    Args:
        awaited: where not all that has begun serves.
    """
    found = {}
    for model, number in awaited:
        node = admission.book.nodes[number]
        there = running.get((model, node.name))
        holds = sorted(active.at((model, number)), key=lambda hold: hold.rank)
        for hold in holds[ready_replicas(there) :]:
            if any(admission.asks[key].start > admission.at for key in hold.keys):
                lead = loads.lead_seconds(model, node, hold.need.footprint_bytes)
                found[hold.number] = _under_way(hold, lead, there, admission.at)
    return found


def ready_replicas(there: Deployment | None) -> int:
    """How many serve of what is there, if anything is."""
    if there is None:
        return 0
    return there.replicas if there.status is DeploymentStatus.SERVING else there.ready_replicas


def _under_way(hold: Hold, lead: float, there: Deployment | None, now: float) -> Loading:
    """What is being loaded, or is from now on; that it should have been ready by now makes it no earlier."""
    is_loading = there is not None and there.status is DeploymentStatus.LOADING
    since = there.since.timestamp() if there is not None and there.since and is_loading else now
    return Loading(hold, lead, min(max(since, now - lead), now))


def _overlap(loadings: Iterable[Loading]) -> bool:
    """Whether some are being loaded at the same time."""
    windows = sorted((one.not_before, one.hold.start) for one in loadings)
    return any(begin < end for (_, end), (begin, _) in pairwise(windows))


class _ThereFor:
    """Tells of what is due how it gets ready; each replica that is there is there for one of them."""

    def __init__(
        self,
        admission: Admission,
        loads: Loads,
        running: Mapping[Identity, Deployment],
        active: Active,
    ) -> None:
        self.admission = admission
        self._loads, self._running, self._active = loads, running, active
        self._served: Counter[Place] = Counter()
        """How many of those that are due have a replica."""

    def due(self, begin: Begin) -> Loading:
        """How one gets ready of which the model may be there already, or should be.

        What has been loaded ahead for a booking, or is just being, stays for it, however long loading is
        reckoned to take by now.
        """
        instant, _, _, lead, hold = begin
        now, place = self.admission.at, (hold.model, hold.seat.node)
        there = self._running.get((hold.model, self.admission.book.nodes[hold.seat.node].name))
        if there is not None and self._is_for(hold, there):
            replica = self._active.count(place) + self._served[place]
            if replica < there.replicas:
                self._served[place] += 1
                is_ready = replica < ready_replicas(there)
                return Loading(hold, 0.0, now) if is_ready else _under_way(hold, lead, there, now)
        return _loading(self.admission, hold, lead, max(instant, now))

    def _is_for(self, hold: Hold, there: Deployment) -> bool:
        """Whether what runs may be there for what is held, and has its room until then."""
        admission, sizing = self.admission, self._loads.sizing
        node, now = admission.book.nodes[hold.seat.node], admission.at
        # beside what has begun it is not told for whom others are loaded ahead
        begun = self._active.count((hold.model, hold.seat.node))
        reckoned = sizing.lead_seconds(hold.need.footprint_bytes)
        longest = self._loads.longest_seconds(hold.model, hold.need.footprint_bytes)
        soon = hold.start - now <= max(reckoned, longest)
        return (
            soon
            and (begun > 0 or not hold.keys.isdisjoint(there.reservations))
            and alike(node, hold.need, runs_with(there))
            and _other_until(admission, hold, now) <= now
            and admission.book.fits(hold.seat, now, hold.start)
        )


def _in_turn(there_for: _ThereFor, group: Sequence[Begin]) -> dict[int, Loading]:
    """How those of a node get ready if each has the room that stronger claims leave it ahead of its start."""
    admission, book = there_for.admission, there_for.admission.book
    found, taken = dict[int, Loading](), []
    for begin in sorted(group, key=lambda begin: _claim(admission, begin[4])):
        hold = begin[4]
        loading = found[hold.number] = there_for.due(begin)
        if loading.not_before < hold.start:
            # Whatever is loaded in a slot is so until its end, so that it does not matter when it begins.
            since = book.edge_before(loading.not_before)
            taken.append((book.take(hold.seat, since, hold.start), since, hold.start))
    for seat, start, end in reversed(taken):
        book.give(seat, start, end)
    return found


def _loading(admission: Admission, hold: Hold, lead: float, begin: float) -> Loading:
    free = admission.book.free_since(hold.seat, hold.start, begin)
    other_until = _other_until(admission, hold, begin)
    free = max(free, other_until)
    # A model that is there already needs no time.
    joined = other_until < hold.start and any(
        other.end == hold.start and other.number != hold.number and other.seat.node == hold.seat.node
        for other in admission.beside(hold.model, hold.start, hold.start)
    )
    behind = _behind(admission, hold, free)
    return Loading(hold, 0.0, hold.start, behind) if joined else Loading(hold, lead, free, behind)


def _other_until(admission: Admission, hold: Hold, begin: float) -> float:
    """Until when, from an instant on, its application on its node is one that takes more or less."""
    node = admission.book.nodes[hold.seat.node]
    others = (
        other.end
        for other in admission.beside(hold.model, begin, hold.start)
        if other.end <= hold.start
        and other.seat.node == hold.seat.node
        and other.number != hold.number
        and not alike(node, other.need, hold.need)
    )
    return max(others, default=begin)


def _claim(admission: Admission, hold: Hold) -> tuple[object, ...]:
    return (min(admission.asks[key].claim for key in hold.keys), hold.rank)


def _behind(admission: Admission, hold: Hold, instant: float) -> tuple[str, ...]:
    """The bookings on a hold's node that end when its room becomes free."""
    if instant <= admission.at:
        return ()
    before = (other for other in admission.there(hold.seat.node) if other.end == instant)
    return tuple(sorted({key for other in before for key in other.keys}))
