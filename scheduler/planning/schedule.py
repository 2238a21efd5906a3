"""From what is held to what must serve at an instant, what is loaded ahead of it, and what comes later."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from scheduler.planning.admission import Admission
from scheduler.planning.book import Seat
from scheduler.planning.footprint import Loads
from scheduler.planning.holds import Hold
from scheduler.planning.lingering import linger
from scheduler.planning.loading import Begin, Loader, begin_of, ready_replicas, still_loading
from scheduler.planning.openings import FOREVER
from scheduler.planning.placing import Placed, placed_on
from scheduler.planning.running import Identity
from scheduler.planning.targets import Booked
from scheduler.planning.upcoming import MAX_STEPS, Active, Agenda, Loading, Place, same
from scheduler.types import Deployment, Placement, Step


@dataclass(frozen=True)
class Schedule:
    """What must run now, and how what comes later gets there; ``loadings`` by number of their hold.

    ``others`` are the identities of placements that are others than the last time, came or went, ``placed``
    the placements for each booking, but for those that are ``lingering``. ``changed`` are the bookings of
    which a placement or a loading is another.
    """

    placements: tuple[Placement, ...]
    by_identity: Mapping[Identity, Placement]
    others: frozenset[Identity]
    placed: Mapping[str, Mapping[Identity, Placement]]
    lingering: tuple[Placement, ...]
    loadings: Mapping[int, Loading]
    steps: tuple[Step, ...]
    next_boundary: float | None
    changed: frozenset[str]

    def placements_of(self, key: str) -> list[Placement]:
        """Those of a booking, in order."""
        found = list(self.placed[key].values()) if key in self.placed else []
        found += (one for one in self.lingering if key in one.target.reservations)
        return sorted(found, key=_identity) if len(found) > 1 else found


class Timetable:
    """Reads the book at its present instant; what is as it was is told with the same objects."""

    def __init__(self) -> None:
        self._agenda = Agenda()
        self._loads: Loads | None = None
        self._active = Active()
        self._begin_of: dict[int, Begin] = {}
        self._begins: list[Begin] = []
        self._starts: list[tuple[float, int]] = []
        self._loader = Loader()
        self._told: dict[int, Loading] = {}
        self._basis: tuple[object, ...] = ()
        self._early: dict[int, Hold] = {}
        self._kept_for: frozenset[int] = frozenset()
        self._dirty: set[Place] = set()
        self._awaited: set[Place] = set()
        self._placed: dict[Place, Placed] = {}
        self._until = FOREVER
        self._identities: list[Identity] = []
        self._in_order: list[Placement] = []
        self._swapped: set[Identity] = set()
        self._placed_for: defaultdict[str, dict[Identity, Placement]] = defaultdict(dict)
        self._lingering: tuple[Placement, ...] = ()

    def schedule(
        self,
        admission: Admission,
        booked: Mapping[str, Booked],
        running: Mapping[Identity, Deployment],
        others: Iterable[Identity],
        loads: Loads,
        lingering: Mapping[Identity, float],
        edges: Iterable[float],
        altered: AbstractSet[str] | None,
    ) -> Schedule:
        """What must run now, and what later.

        What is to come is loaded ahead if its room is free from now until its start. It never costs
        anything that is held, and where two would need the same room ahead, the stronger claim has it.

        Args:
            booked: by key, all that something may be held for.
            running: by model key and node.
            others: the identities of what of it is another than the last time, came or went.
            lingering: by model key and node, until when what runs may stay though its bookings ended.
            edges: when bookings start or end.
            altered: the bookings that are others than the last time, in any way; None where that is unknown.
        """
        now = admission.at
        changed = self._follow(admission, loads)
        if altered is None:
            self._dirty.update(self._placed)
        loadings = self._loader.load(admission, self._begins[:MAX_STEPS], loads, running, self._active)
        early, ahead = _load_ahead(admission, loadings)
        unchanged = not self._dirty and early == list(self._early.values())
        self._note_what_differs({hold.number: hold for hold in early}, others, admission.book.index)
        changed |= self._place(admission, booked, running, altered or ())
        models = {model for model, _ in self._identities} if lingering else ()
        lingers = linger(admission, running, lingering, models, loadings.values())
        for seat, until in reversed(ahead):
            admission.book.give(seat, now, until)
        basis = tuple(
            one if one.lead_seconds and number not in self._early else one.hold
            for number, one in loadings.items()
        )
        unchanged = unchanged and altered is not None and same(basis, self._basis)
        unchanged = unchanged and lingers.kept_for == self._kept_for
        self._basis, self._kept_for = basis, lingers.kept_for
        if not unchanged or not self._agenda.keys.isdisjoint(altered or ()):
            self._agenda.note(admission, booked, self._active, loadings, lingers.kept_for.union(self._early))
        lingered, self._lingering = self._lingering, lingers.placements
        changed.update(key for one in lingered + lingers.placements for key in one.target.reservations)
        told = loadings | still_loading(admission, self._active, self._awaited, running, loads)
        changed |= _keys_of_others(self._told, told)
        if altered:
            late = (one for one in loadings.values() if not altered.isdisjoint(one.behind))
            changed.update(key for one in late for key in one.hold.keys)
        self._told = told
        instants = [one.not_before for one in loadings.values()]
        instants += [start for start, _ in self._starts[:1]]
        # a stay may end before its bookings do
        instants.append(self._active.end_after(0) or now)
        instants += lingers.instants
        instants += edges
        by_identity = dict(zip(self._identities, self._in_order, strict=True))
        placements = self._in_order
        if lingers.placements:
            placements = sorted([*placements, *lingers.placements], key=_identity)
            by_identity = {one.identity: one for one in placements}
        swapped, self._swapped = self._swapped, set()
        return Schedule(
            placements=tuple(placements),
            by_identity=by_identity,
            others=frozenset(swapped).union(map(_identity, lingered + lingers.placements)),
            placed=self._placed_for,
            lingering=lingers.placements,
            loadings=told,
            steps=self._agenda.steps,
            next_boundary=min((instant for instant in instants if instant > now), default=None),
            changed=frozenset(changed),
        )

    def _follow(self, admission: Admission, loads: Loads) -> set[str]:
        """Take in what is held by now, and what has begun or ended; returns for whom it is held."""
        now, news = admission.at, admission.news
        if loads != self._loads:
            self._loads = loads
            self._loader.forget()
            news |= {number: begin[4] for number, begin in self._begin_of.items() if number not in news}
        if len(news) > MAX_STEPS:
            self._count_anew(admission, loads)
        else:
            for number, hold in news.items():
                self._note_hold(number, hold, admission, loads)
        changed = {key for hold in news.values() if hold is not None for key in hold.keys}
        news.clear()
        while self._starts and self._starts[0][0] <= now:
            begin = self._begin_of.pop(self._starts.pop(0)[1])
            del self._begins[bisect_left(self._begins, begin)]
            self._begun(begin[4])
        for number in self._active.ended(now):
            self._gone(number)
        return changed

    def _note_hold(self, number: int, hold: Hold | None, admission: Admission, loads: Loads) -> None:
        """What is held by that number now, if anything."""
        begin = self._begin_of.get(number)
        if hold is not None and hold is (begin[4] if begin else self._active.get(number)):
            return
        self._gone(number)
        if begin is not None:
            del self._begin_of[number], self._begins[bisect_left(self._begins, begin)]
            del self._starts[bisect_left(self._starts, (begin[4].start, number))]
        if hold is not None and hold.start > admission.at:
            begin = self._begin_of[number] = begin_of(admission, hold, loads)
            insort(self._begins, begin)
            insort(self._starts, (hold.start, number))
        elif hold is not None:
            self._begun(hold)

    def _begun(self, hold: Hold) -> None:
        self._dirty.add(self._active.add(hold))

    def _gone(self, number: int) -> None:
        place = self._active.remove(number)
        if place is not None:
            self._dirty.add(place)

    def _count_anew(self, admission: Admission, loads: Loads) -> None:
        now = admission.at
        for number in self._active:
            self._gone(number)
        self._begin_of = {}
        for number, hold in admission.holds.items():
            if hold.start > now:
                self._begin_of[number] = begin_of(admission, hold, loads)
            else:
                self._begun(hold)
        self._begins = sorted(self._begin_of.values())
        self._starts = sorted((begin[4].start, number) for number, begin in self._begin_of.items())

    def _place(
        self,
        admission: Admission,
        booked: Mapping[str, Booked],
        running: Mapping[Identity, Deployment],
        altered: Collection[str],
    ) -> set[str]:
        """Make anew the placements that something concerns; returns the keys of their bookings."""
        now, nodes = admission.at, admission.book.nodes
        for key in altered:
            self._dirty.update((hold.model, hold.seat.node) for hold in admission.of_booking(key))
        if now >= self._until:
            self._dirty.update(self._placed)
        joining: defaultdict[Place, list[Hold]] = defaultdict(list)
        for hold in self._early.values():
            joining[hold.model, hold.seat.node].append(hold)
        changed: set[str] = set()
        for place in self._dirty:
            model, number = place
            before = self._placed.pop(place, None)
            group = [*self._active.at(place), *joining.get(place, ())]
            placed = None
            as_it_runs = running.get((model, nodes[number].name))
            if ready_replicas(as_it_runs) < self._active.count(place):
                self._awaited.add(place)
            else:
                self._awaited.discard(place)
            if group:
                placed = self._placed[place] = placed_on(admission, group, booked, as_it_runs, before)
            if before is not placed:
                changed |= self._swap(before, placed)
        if now >= self._until or not self._placed:
            self._until = min((one.until for one in self._placed.values()), default=FOREVER)
        for place in self._dirty & self._placed.keys():
            self._until = min(self._until, self._placed[place].until)
        self._dirty.clear()
        return changed

    def _note_what_differs(
        self, early: dict[int, Hold], others: Iterable[Identity], index: Mapping[str, int]
    ) -> None:
        """Where something is loaded ahead, or runs, that was not or did not so, or the other way round."""
        for hold in (*self._early.values(), *early.values()):
            if self._early.get(hold.number) is not early.get(hold.number):
                self._dirty.add((hold.model, hold.seat.node))
        self._dirty.update((model, index[node]) for model, node in others if node in index)
        self._early = early

    def _swap(self, before: Placed | None, placed: Placed | None) -> set[str]:
        """Tell one placement in the place of another; returns the keys of their bookings."""
        keys: set[str] = set()
        if before is not None:
            identity = before.placement.identity
            index = bisect_left(self._identities, identity)
            del self._identities[index], self._in_order[index]
            self._swapped.add(identity)
            for key in before.placement.target.reservations:
                keys.add(key)
                del self._placed_for[key][identity]
                if not self._placed_for[key]:
                    del self._placed_for[key]
        if placed is not None:
            identity = placed.placement.identity
            index = bisect_left(self._identities, identity)
            self._identities.insert(index, identity)
            self._in_order.insert(index, placed.placement)
            self._swapped.add(identity)
            for key in placed.placement.target.reservations:
                keys.add(key)
                self._placed_for[key][identity] = placed.placement
        return keys


def _load_ahead(
    admission: Admission, loadings: Mapping[int, Loading]
) -> tuple[list[Hold], list[tuple[Seat, float]]]:
    """Take the room of what is due to be loaded, until its start; returns for what, and what was taken."""
    book, now = admission.book, admission.at
    early = [one.hold for one in loadings.values() if one.not_before <= now]
    return early, [(book.take(hold.seat, now, hold.start), hold.start) for hold in early]


def _keys_of_others(before: Mapping[int, Loading], loadings: Mapping[int, Loading]) -> set[str]:
    """The bookings of what is in one of both only."""
    others = [one for number, one in before.items() if loadings.get(number) is not one]
    others += [one for number, one in loadings.items() if before.get(number) is not one]
    return {key for one in others for key in one.hold.keys}


def _identity(one: Placement) -> tuple[str, str]:
    return one.identity
