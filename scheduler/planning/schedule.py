"""From what is held to what must serve at an instant, what is loaded ahead of it, and what comes later."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from scheduler.cluster.node import DeviceKind, Node
from scheduler.planning.admission import Admission
from scheduler.planning.book import Need, Seat
from scheduler.planning.footprint import Loads, gpus_needed
from scheduler.planning.holds import Hold
from scheduler.planning.targets import Booked, merge
from scheduler.planning.upcoming import MAX_STEPS, Agenda, Loading, same
from scheduler.types import Deployment, Placement, Reason, ReasonCode, Step, Target

LOWEST_PRIORITY = -1_000_000


@dataclass(frozen=True)
class Schedule:
    """What must run now, and how what comes later gets there; ``loadings`` by number of their hold."""

    placements: tuple[Placement, ...]
    loadings: Mapping[int, Loading]
    steps: tuple[Step, ...]
    next_boundary: float | None


_Begin = tuple[float, tuple[object, ...], int, float, Hold]
"""When loading must begin, the order among equals, the number of the hold, the lead, and the hold."""


@dataclass(frozen=True, slots=True)
class _Placed:
    """A placement, and what it was made from; by itself it is another ``until`` then."""

    basis: tuple[object, ...]
    runs: bool
    until: float
    placement: Placement


class Timetable:
    """Reads the book at its present instant; what is as it was is told with the same objects."""

    def __init__(self) -> None:
        self._agenda = Agenda()
        self._loads: Loads | None = None
        self._begins: dict[int, _Begin] = {}
        self._loadings: dict[int, tuple[int, Loading]] = {}
        self._placed: dict[tuple[str, int], _Placed] = {}

    def schedule(
        self,
        admission: Admission,
        booked: Mapping[str, Booked],
        deployments: Iterable[Deployment],
        loads: Loads,
        lingering: Mapping[tuple[str, str], float],
    ) -> Schedule:
        """What must run now, and what later.

        What is to come is loaded ahead if its room is free from now until its start. It never costs
        anything that is held, and where two would need the same room ahead, the stronger claim has it.

        Args:
            booked: by key, all that something may be held for.
            lingering: by model key and node, until when what runs may stay though its bookings ended.
        """
        if loads != self._loads:
            self._loads = loads
            self._begins.clear()
            self._loadings.clear()
        running = {one.identity: one for one in deployments}
        now = admission.at
        active = [hold for hold in admission.holds.values() if hold.start <= now < hold.end]
        coming = self._coming(admission, loads)
        loadings = self._load(admission, heapq.nsmallest(MAX_STEPS, coming), loads, running)
        ahead: list[tuple[Seat, float]] = []
        early = []
        due = [one for one in loadings.values() if one.not_before <= now]
        for loading in sorted(due, key=lambda one: _claim(admission, one.hold)):
            hold = loading.hold
            if admission.book.fits(hold.seat, now, hold.start):
                ahead.append((admission.book.take(hold.seat, now, hold.start), hold.start))
                early.append(hold)
            else:
                loadings[hold.number] = Loading(hold, loading.lead_seconds, hold.start)
        placements = self._placements(admission, [*active, *early], booked, running)
        for identity, until in sorted(lingering.items()):
            kept = _linger(admission, running[identity], until, placements)
            if kept is not None:
                ahead.append((kept[1], until))
                placements.append(kept[0])
        for seat, until in reversed(ahead):
            admission.book.give(seat, now, until)
        numbers = {hold.number for hold in early}
        instants = [one.not_before for one in loadings.values()]
        instants += [one[4].start for one in coming]
        instants += lingering.values()
        for ask in admission.asks.values():
            instants += (ask.start, ask.end)
        return Schedule(
            placements=tuple(sorted(placements, key=lambda one: one.identity)),
            loadings=loadings,
            steps=self._agenda.steps(admission, booked, active, loadings, numbers),
            next_boundary=min((instant for instant in instants if instant > now), default=None),
        )

    def _coming(self, admission: Admission, loads: Loads) -> list[_Begin]:
        """All that is to come."""
        nodes, now, known = admission.book.nodes, admission.at, self._begins
        begins: dict[int, _Begin] = {}
        for number, hold in admission.holds.items():
            if hold.start > now:
                begin = known.get(number)
                if begin is None or begin[4] is not hold:
                    lead = loads.lead_seconds(
                        hold.model, nodes[hold.seat.node], hold.need.footprint_bytes
                    )
                    begin = (hold.start - lead, hold.rank, number, lead, hold)
                begins[number] = begin
        self._begins = begins
        return list(begins.values())

    def _load(
        self,
        admission: Admission,
        nearest: Iterable[_Begin],
        loads: Loads,
        running: Mapping[tuple[str, str], Deployment],
    ) -> dict[int, Loading]:
        """How the nearest of what is to come gets ready.

        What has been loaded ahead for a booking, or is just being, stays for it, however long loading is
        reckoned to take by now.
        """
        nodes, now, versions = admission.book.nodes, admission.at, admission.versions
        found, kept = {}, {}
        for begin, _, number, lead, hold in nearest:
            there = running.get((hold.model, nodes[hold.seat.node].name))
            version = versions[hold.seat.node]
            known = self._loadings.get(number)
            if there is None and begin > now:
                if known is None or known[0] != version or known[1].hold is not hold:
                    known = (version, _loading(admission, hold, lead, begin))
                found[number], kept[number] = known[1], known
                continue
            reckoned = loads.sizing.lead_seconds(hold.need.footprint_bytes)
            longest = loads.longest_seconds(hold.model, hold.need.footprint_bytes)
            soon = hold.start - now <= max(reckoned, longest)
            if there is not None and soon and hold.keys & set(there.reservations):
                found[number] = Loading(hold, 0.0, now)
            else:
                found[number] = _loading(admission, hold, lead, max(begin, now))
        self._loadings = kept
        return found

    def _placements(
        self,
        admission: Admission,
        holds: Iterable[Hold],
        booked: Mapping[str, Booked],
        running: Mapping[tuple[str, str], Deployment],
    ) -> list[Placement]:
        now, nodes = admission.at, admission.book.nodes
        by_place: dict[tuple[str, int], list[Hold]] = defaultdict(list)
        for hold in holds:
            by_place[hold.model, hold.seat.node].append(hold)
        placed: dict[tuple[str, int], _Placed] = {}
        for place, group in by_place.items():
            model, number = place
            runs = (model, nodes[number].name) in running
            basis = (*group, *[booked[key] for hold in group for key in hold.keys])
            known = self._placed.get(place)
            if known is None or known.runs != runs or now >= known.until or not same(known.basis, basis):
                made = placement(_target(admission, group, booked), nodes[number], len(group), runs)
                known = _Placed(basis, runs, _unchanged_until(admission, group), made)
            placed[place] = known
        self._placed = placed
        return [one.placement for one in placed.values()]


def _loading(admission: Admission, hold: Hold, lead: float, begin: float) -> Loading:
    free = admission.book.free_since(hold.seat, hold.start, begin)
    # A model that is there already needs no time.
    joined = any(
        other.end == hold.start and other.number != hold.number and other.seat.node == hold.seat.node
        for other in admission.of_model(hold.model)
    )
    behind = _behind(admission, hold, free)
    return Loading(hold, 0.0, hold.start, behind) if joined else Loading(hold, lead, free, behind)


def _claim(admission: Admission, hold: Hold) -> tuple[object, ...]:
    return (min(admission.asks[key].claim for key in hold.keys), hold.rank)


def _behind(admission: Admission, hold: Hold, instant: float) -> tuple[str, ...]:
    """The bookings on a hold's node that end when its room becomes free."""
    if instant <= admission.at:
        return ()
    before = (other for other in admission.on_node(hold.seat.node) if other.end == instant)
    return tuple(sorted({key for other in before for key in other.keys}))


def _unchanged_until(admission: Admission, group: Iterable[Hold]) -> float:
    """When the next of these bookings, or one of these stays, begins or ends."""
    instants = [instant for hold in group for instant in (hold.start, hold.end)]
    for key in {key for hold in group for key in hold.keys}:
        instants += (admission.asks[key].start, admission.asks[key].end)
    return min(instant for instant in instants if instant > admission.at)


def _target(admission: Admission, group: Iterable[Hold], booked: Mapping[str, Booked]) -> Target:
    now = admission.at
    group = list(group)
    begun = {key for hold in group for key in hold.keys if _lasts(admission, key)}
    keys = begun or {key for hold in group for key in hold.keys if admission.asks[key].start <= hold.start}
    until = max(hold.end for hold in group)
    at = datetime.fromtimestamp(now, UTC)
    return merge([booked[key] for key in sorted(keys)], at, datetime.fromtimestamp(until, UTC))


def _lasts(admission: Admission, key: str) -> bool:
    return admission.asks[key].start <= admission.at < admission.asks[key].end


def placement(target: Target, node: Node, replicas: int, runs: bool) -> Placement:
    """A target on a node."""
    on_cpu = node.kind is DeviceKind.CPU
    memory = node.devices[0].memory_bytes
    code = ReasonCode.STARTS_SOON if target.early else ReasonCode.BOOKED
    return Placement(
        target=target,
        node=node.name,
        replicas=replicas,
        num_gpus=0.0 if on_cpu else gpus_needed(target.footprint_bytes, memory, target.gpus),
        memory_bytes=target.footprint_bytes if on_cpu else 0,
        footprint_bytes=target.footprint_bytes,
        reason=Reason(code=ReasonCode.ALREADY_THERE if runs else code, node=node.name),
    )


def _linger(
    admission: Admission, one: Deployment, until: float, placements: Iterable[Placement]
) -> tuple[Placement, Seat] | None:
    """Keep what runs a while longer, if nobody needs its room."""
    number, now = admission.book.index.get(one.node), admission.at
    if number is None or until <= now or any(p.target.model == one.model for p in placements):
        return None
    need = Need(one.footprint_bytes, round(one.num_gpus) if one.num_gpus >= 1 else None)
    seat = admission.book.room_on(number, need, now, until)
    if seat is None:
        return None
    at, end = datetime.fromtimestamp(now, UTC), datetime.fromtimestamp(until, UTC)
    target = Target(
        model=one.model,
        names=(one.model.repo_id,),
        dtype=one.dtype,
        gpus=need.gpus,
        replicas=one.replicas,
        footprint_bytes=one.footprint_bytes,
        reservations=one.reservations,
        titles=(),
        start=at,
        until=end,
        priority=LOWEST_PRIORITY,
        booked_at=at,
    )
    kept = Placement(
        target=target,
        node=one.node,
        replicas=one.replicas,
        num_gpus=one.num_gpus,
        memory_bytes=one.memory_bytes,
        footprint_bytes=one.footprint_bytes,
        reason=Reason(code=ReasonCode.LINGERS, node=one.node),
    )
    return kept, admission.book.take(seat, now, until)
