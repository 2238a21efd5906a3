"""From what is held to what must serve at an instant, what is loaded ahead of it, and what comes later."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from scheduler.cluster.node import DeviceKind, Node
from scheduler.planning.admission import Admission
from scheduler.planning.book import Need, Seat
from scheduler.planning.footprint import Loads, gpus_needed
from scheduler.planning.holds import Hold, union
from scheduler.planning.targets import Booked, merge
from scheduler.types import ActionKind, Deployment, Model, Placement, Reason, ReasonCode, Step, Target

MAX_STEPS = 500
"""So many later steps are told, the nearest first."""
LOWEST_PRIORITY = -1_000_000


PUNCTUAL_SECONDS = 1.0
"""A plan is made some milliseconds after the instant it was due at; that is no lateness."""


@dataclass(frozen=True)
class Loading:
    """When loading for a hold begins, and how much too late that is.

    ``not_before`` is the start less the lead, or when the room is free if that is later; ``behind``
    are the keys of the bookings that hold the room until then.
    """

    hold: Hold
    lead_seconds: float
    not_before: float
    behind: tuple[str, ...] = ()

    @property
    def ready(self) -> float:
        """When it will serve."""
        return self.not_before + self.lead_seconds

    @property
    def late_seconds(self) -> float:
        """How long after its start that is."""
        late = self.ready - self.hold.start
        return late if late >= PUNCTUAL_SECONDS else 0.0


@dataclass(frozen=True)
class Schedule:
    """What must run now, and how what comes later gets there; ``loadings`` by number of their hold."""

    placements: tuple[Placement, ...]
    targets: tuple[Target, ...]
    loadings: Mapping[int, Loading]
    steps: tuple[Step, ...]
    next_boundary: float | None


def schedule(
    admission: Admission,
    booked: Mapping[str, Booked],
    deployments: Iterable[Deployment],
    loads: Loads,
    lingering: Mapping[tuple[str, str], float],
) -> Schedule:
    """Read the book at its present instant.

    What is to come is loaded ahead if its room is free from now until its start. It never costs
    anything that is held, and where two would need the same room ahead, the stronger claim has it.

    Args:
        booked: by key, all that something may be held for.
        lingering: by model key and node, until when what runs may stay though its bookings ended.
    """
    running = {one.identity: one for one in deployments}
    now = admission.at
    active = [hold for hold in admission.holds.values() if hold.start <= now < hold.end]
    loadings = _loadings(admission, loads, running)
    ahead: list[tuple[Seat, float]] = []
    early = []
    for loading in sorted(loadings.values(), key=lambda one: _claim(admission, one.hold)):
        hold = loading.hold
        if loading.not_before <= now:
            if admission.book.fits(hold.seat, now, hold.start):
                ahead.append((admission.book.take(hold.seat, now, hold.start), hold.start))
                early.append(hold)
            else:
                loadings[hold.number] = Loading(hold, loading.lead_seconds, hold.start)
    placements = [*_placements(admission, [*active, *early], booked, running)]
    for identity, until in sorted(lingering.items()):
        kept = _linger(admission, running[identity], until, placements)
        if kept is not None:
            ahead.append((kept[1], until))
            placements.append(kept[0])
    for seat, until in reversed(ahead):
        admission.book.give(seat, now, until)
    targets = {placement.target.model.key: placement.target for placement in placements}
    return Schedule(
        placements=tuple(sorted(placements, key=lambda one: one.identity)),
        targets=tuple(sorted(targets.values(), key=lambda target: target.order)),
        loadings=loadings,
        steps=_steps(admission, booked, loadings, {hold.number for hold in early}),
        next_boundary=_next_boundary(admission, loadings, lingering),
    )


def _claim(admission: Admission, hold: Hold) -> tuple[object, ...]:
    return (min(admission.asks[key].claim for key in hold.keys), hold.number)


def _loadings(
    admission: Admission, loads: Loads, running: Mapping[tuple[str, str], Deployment]
) -> dict[int, Loading]:
    """How the nearest of what is to come gets ready.

    What has been loaded ahead for a booking, or is just being, stays for it, however long loading is
    reckoned to take by now.
    """
    nodes, now = admission.book.nodes, admission.at
    wanted = []
    for hold in admission.holds.values():
        if hold.start > now:
            lead = loads.lead_seconds(hold.model, nodes[hold.seat.node], hold.need.footprint_bytes)
            wanted.append((hold.start - lead, hold.number, lead))
    found = {}
    for begin, number, lead in sorted(wanted)[:MAX_STEPS]:
        hold = admission.holds[number]
        there = running.get((hold.model, nodes[hold.seat.node].name))
        reckoned = loads.sizing.lead_seconds(hold.need.footprint_bytes)
        soon = hold.start - now <= max(reckoned, loads.longest_seconds(hold.model, hold.need.footprint_bytes))
        if there is not None and soon and hold.keys & set(there.reservations):
            found[number] = Loading(hold, 0.0, now)
            continue
        free = admission.book.free_since(hold.seat, hold.start, max(begin, now))
        # A model that is there already needs no time.
        joined = any(
            other.end == hold.start and other.number != number and other.seat.node == hold.seat.node
            for other in admission.of_model(hold.model)
        )
        found[number] = Loading(
            hold, 0.0 if joined else lead, hold.start if joined else free, _behind(admission, hold, free)
        )
    return found


def _behind(admission: Admission, hold: Hold, instant: float) -> tuple[str, ...]:
    """The bookings on a hold's node that end when its room becomes free."""
    if instant <= admission.at:
        return ()
    before = (other for other in admission.on_node(hold.seat.node) if other.end == instant)
    return tuple(sorted({key for other in before for key in other.keys}))


def _placements(
    admission: Admission,
    holds: Iterable[Hold],
    booked: Mapping[str, Booked],
    running: Mapping[tuple[str, str], Deployment],
) -> Iterator[Placement]:
    by_place: dict[tuple[str, int], list[Hold]] = defaultdict(list)
    for hold in holds:
        by_place[hold.model, hold.seat.node].append(hold)
    for (model, number), group in sorted(by_place.items()):
        node = admission.book.nodes[number]
        target = _target(admission, group, booked)
        yield placement(target, node, len(group), (model, node.name) in running)


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


def _steps(
    admission: Admission, booked: Mapping[str, Booked], loadings: Mapping[int, Loading], early: set[int]
) -> tuple[Step, ...]:
    """What will be done later: models that come, and models that go."""
    nodes = admission.book.nodes
    coming: dict[tuple[str, int, float], list[Loading]] = defaultdict(list)
    stays: dict[tuple[str, int], list[Hold]] = defaultdict(list)
    for loading in loadings.values():
        hold = loading.hold
        stays[hold.model, hold.seat.node].append(hold)
        if hold.number not in early and loading.lead_seconds:
            coming[hold.model, hold.seat.node, hold.start].append(loading)
    for hold in admission.holds.values():
        if hold.start <= admission.at:
            stays[hold.model, hold.seat.node].append(hold)
    steps = [_arrival(group, nodes[node].name, admission, booked) for (_, node, _), group in coming.items()]
    for (_, node), holds in stays.items():
        for _, end in union([(hold.start, hold.end) for hold in holds]):
            last = [hold for hold in holds if hold.end == end]
            steps.append(_departure(last, nodes[node].name, end, booked))
    steps.sort(key=lambda step: (step.at, step.kind, step.node, step.model.key))
    return tuple(steps[:MAX_STEPS])


def _arrival(group: list[Loading], node: str, admission: Admission, booked: Mapping[str, Booked]) -> Step:
    first = group[0]
    keys = sorted({key for one in group for key in one.hold.keys})
    return Step(
        kind=ActionKind.DEPLOY,
        model=_model(first.hold, booked),
        node=node,
        replicas=len(group),
        at=_moment(first.not_before),
        done_by=_moment(first.hold.start),
        until=_moment(max(one.hold.end for one in group)),
        titles=tuple(dict.fromkeys(booked[key].reservation.title for key in keys)),
        late_seconds=first.late_seconds,
        held_by=tuple(dict.fromkeys(booked[key].reservation.title for key in first.behind))
        if first.late_seconds
        else (),
    )


def _departure(holds: list[Hold], node: str, end: float, booked: Mapping[str, Booked]) -> Step:
    keys = sorted({key for hold in holds for key in hold.keys})
    return Step(
        kind=ActionKind.UNDEPLOY,
        model=_model(holds[0], booked),
        node=node,
        replicas=len(holds),
        at=_moment(end),
        done_by=_moment(end),
        titles=tuple(dict.fromkeys(booked[key].reservation.title for key in keys)),
    )


def _model(hold: Hold, booked: Mapping[str, Booked]) -> Model:
    return booked[min(hold.keys)].model


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _next_boundary(
    admission: Admission, loadings: Mapping[int, Loading], lingering: Mapping[tuple[str, str], float]
) -> float | None:
    instants = [one.not_before for one in loadings.values()]
    instants += [hold.start for hold in admission.holds.values()]
    instants += [ask.end for ask in admission.asks.values()]
    instants += [ask.start for ask in admission.asks.values()]
    instants += lingering.values()
    return min((instant for instant in instants if instant > admission.at), default=None)
