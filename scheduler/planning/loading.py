"""How what is to come gets ready: when its loading begins, and whose room it waits for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from scheduler.planning.admission import Admission
from scheduler.planning.footprint import Loads
from scheduler.planning.holds import Hold, alike, runs_with
from scheduler.planning.running import Identity
from scheduler.planning.upcoming import Loading, same
from scheduler.types import Deployment

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
    ) -> dict[int, Loading]:
        """How the nearest of what is to come gets ready, by number of the hold.

        Where several need the same room ahead of their starts, the stronger claim has it.
        """
        nodes, versions = admission.book.nodes, admission.versions
        found, alone = dict[int, Loading](), dict[int, tuple[int, Loading]]()
        ahead: defaultdict[int, list[Begin]] = defaultdict(list)
        for begin in nearest:
            instant, _, number, lead, hold = begin
            there = running.get((hold.model, nodes[hold.seat.node].name))
            if there is None and instant > admission.at:
                version, known = versions[hold.seat.node], self._alone.get(number)
                if known is None or known[0] != version or known[1].hold is not hold:
                    known = (version, self._as_told(_loading(admission, hold, lead, instant)))
                alone[number] = known
                found[number] = known[1]
            else:
                found[number] = self._as_told(_due(admission, begin, loads, there))
            if found[number].not_before < hold.start:
                ahead[hold.seat.node].append(begin)
        before, self._alone, self._together = self._together, alone, {}
        for node, group in ahead.items():
            each = tuple(found[begin[2]] for begin in group)
            if len(group) > 1 and _overlap(each):
                order = (versions[node], [_claim(admission, one.hold) for one in each])
                turns = before.get(node)
                if turns is None or turns[0] != order or not same(turns[1], each):
                    made = _in_turn(admission, group, loads, running)
                    turns = (order, each, {number: self._as_told(one) for number, one in made.items()})
                self._together[node] = turns
                found.update(turns[2])
        self._told = found
        return found

    def _as_told(self, loading: Loading) -> Loading:
        """What was told the last time, if it is that."""
        told = self._told.get(loading.hold.number)
        return told if told == loading else loading


def _overlap(loadings: Iterable[Loading]) -> bool:
    """Whether some are being loaded at the same time."""
    windows = sorted((one.not_before, one.hold.start) for one in loadings)
    return any(begin < end for (_, end), (begin, _) in pairwise(windows))


def _in_turn(
    admission: Admission,
    group: Sequence[Begin],
    loads: Loads,
    running: Mapping[Identity, Deployment],
) -> dict[int, Loading]:
    """How those of a node get ready if each has the room that stronger claims leave it ahead of its start."""
    book = admission.book
    found, taken = dict[int, Loading](), []
    for begin in sorted(group, key=lambda begin: _claim(admission, begin[4])):
        hold = begin[4]
        there = running.get((hold.model, book.nodes[hold.seat.node].name))
        loading = found[hold.number] = _due(admission, begin, loads, there)
        if loading.not_before < hold.start:
            # Whatever is loaded in a slot is so until its end, so that it does not matter when it begins.
            since = book.edge_before(loading.not_before)
            taken.append((book.take(hold.seat, since, hold.start), since, hold.start))
    for seat, start, end in reversed(taken):
        book.give(seat, start, end)
    return found


def _due(admission: Admission, begin: Begin, loads: Loads, there: Deployment | None) -> Loading:
    """How one gets ready of which the model may be there already, or should be.

    What has been loaded ahead for a booking, or is just being, stays for it, however long loading is
    reckoned to take by now.
    """
    instant, _, _, lead, hold = begin
    if there is not None and _is_for(admission, hold, loads, there):
        return Loading(hold, 0.0, admission.at)
    return _loading(admission, hold, lead, max(instant, admission.at))


def _is_for(admission: Admission, hold: Hold, loads: Loads, there: Deployment) -> bool:
    """Whether what runs is there for what is held, and has its room until then."""
    node, now = admission.book.nodes[hold.seat.node], admission.at
    reckoned = loads.sizing.lead_seconds(hold.need.footprint_bytes)
    longest = loads.longest_seconds(hold.model, hold.need.footprint_bytes)
    soon = hold.start - now <= max(reckoned, longest)
    return (
        soon
        and not hold.keys.isdisjoint(there.reservations)
        and alike(node, hold.need, runs_with(there))
        and _other_until(admission, hold, now) <= now
        and admission.book.fits(hold.seat, now, hold.start)
    )


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
