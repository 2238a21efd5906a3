"""The one function that decides: ``plan``, ``apply`` and the daemon all call it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from calendars.reservation import Misunderstood, Reading, Reservation
from scheduler.cluster.node import Cluster
from scheduler.planning.admission import earliest_slots, foresee
from scheduler.planning.diff import diff
from scheduler.planning.footprint import Sizing
from scheduler.planning.placement import Placed, Unplaced, place
from scheduler.planning.rules import keep_to
from scheduler.planning.targets import Booked, Refused, resolve, targets_at
from scheduler.types import (
    Announcement,
    Catalog,
    Checkpoint,
    Deployment,
    DeploymentStatus,
    Directory,
    Drift,
    Observed,
    Placement,
    Plan,
    Reason,
    ReasonCode,
    ReasonKind,
    Route,
    Rules,
    Target,
    UnknownSize,
    Verdict,
    VerdictState,
)

MAX_ANNOUNCEMENTS = 200
"""The gateway is told of so many bookings at most, the nearest first."""


def make_plan(
    readings: Iterable[Reading],
    catalog: Catalog,
    checkpoints: Mapping[str, Checkpoint | UnknownSize],
    observed: Observed,
    sizing: Sizing,
    at: datetime,
    rules: Rules | None = None,
) -> Plan:
    """Work out what shall run at an instant and what has to change for it.

    Args:
        readings: what each calendar said; together they are everything that is wanted.
        checkpoints: what is known of each model, by model key.
        observed: what runs, and on what.
        at: the instant to plan for; of bookings that ended by then nothing is said.
        rules: the operator's, about who may book what.
    """
    readings = tuple(readings)
    reservations = sorted((one for reading in readings for one in reading.reservations), key=_when)
    running = {one.model.key: one for one in observed.deployments}
    everything = [resolve(one, catalog, checkpoints, sizing, running) for one in reservations]
    begun = frozenset(key for one in observed.deployments for key in one.reservations)
    allowed = keep_to(rules or Rules(), everything, observed.cluster, begun)
    resolved = [one for one in allowed if one.reservation.end > at]
    booked = [one for one in resolved if isinstance(one, Booked)]
    targets = targets_at(booked, at)
    placed = place(targets, observed.cluster, observed.deployments)
    short = foresee(booked, observed.cluster, at)
    judged = [_verdict(one, placed, short, at) for one in resolved]
    verdicts = (
        *_with_earliest(judged, booked, observed.cluster, at),
        *(
            _misunderstood(one)
            for reading in readings
            for one in reading.misunderstood
            if one.end is None or one.end > at
        ),
    )
    directory = _directory(placed.placements, verdicts, booked, at)
    return Plan(
        at=at,
        actions=diff(placed.placements, targets, directory, observed),
        placements=placed.placements,
        verdicts=verdicts,
        drift=_drift(observed.deployments),
        others=observed.others,
        cluster=observed.cluster,
        directory=directory,
        next_boundary=_next_boundary(booked, at),
        fingerprint=observed.fingerprint,
    )


def _when(reservation: Reservation) -> tuple[datetime, str]:
    return (reservation.start, reservation.key)


def _verdict(
    one: Booked | Refused, placed: Placed, foreseen: Mapping[str, Unplaced], at: datetime
) -> Verdict:
    if isinstance(one, Refused):
        pending = one.reason.code is ReasonCode.LOOKING_UP
        return _say(one.reservation, VerdictState.COMING if pending else VerdictState.REFUSED, one.reason)
    key = one.reservation.key
    placements = [p for p in placed.placements if key in p.target.reservations]
    short = next((u for u in placed.unplaced if key in u.target.reservations), None)
    nodes = tuple(p.node for p in placements)
    got = sum(p.replicas for p in placements)
    if short is not None and not short.target.early and got < one.replicas:
        return _say(one.reservation, VerdictState.REFUSED, short.reason, one, nodes, short)
    if one.reservation.start > at:
        return _coming(one, placements, short, foreseen.get(key))
    reason = placements[0].reason if placements else Reason(code=ReasonCode.BOOKED)
    return _say(one.reservation, VerdictState.PLACED, reason, one, nodes)


def _with_earliest(
    verdicts: Iterable[Verdict], booked: Sequence[Booked], cluster: Cluster, at: datetime
) -> list[Verdict]:
    """The same verdicts; those that wait for room are told when there would be some."""
    verdicts = list(verdicts)
    full = {
        verdict.event
        for verdict in verdicts
        if verdict.state is VerdictState.REFUSED and verdict.reason.code is ReasonCode.NO_ROOM
    }
    refused = [one for one in booked if one.reservation.key in full]
    slots = earliest_slots(refused, booked, cluster, at)
    return [verdict.model_copy(update={"earliest": slots.get(verdict.event)}) for verdict in verdicts]


def _coming(
    one: Booked, placements: list[Placement], short: Unplaced | None, foreseen: Unplaced | None
) -> Verdict:
    """A booking that has not begun: refused now if there will be no room for it."""
    if foreseen is not None and not placements:
        return _say(one.reservation, VerdictState.REFUSED, foreseen.reason, one, (), foreseen)
    if placements:
        nodes = tuple(p.node for p in placements)
        return _say(one.reservation, VerdictState.COMING, placements[0].reason, one, nodes)
    code = ReasonCode.STARTS_LATER if short is None else ReasonCode.STARTS_SOON
    kind = ReasonKind.OK if short is None else ReasonKind.LATER
    by = short.reason.by if short else ()
    return _say(one.reservation, VerdictState.COMING, Reason(code=code, kind=kind, by=by), one)


def _say(
    reservation: Reservation,
    state: VerdictState,
    reason: Reason,
    booked: Booked | None = None,
    nodes: tuple[str, ...] = (),
    unplaced: Unplaced | None = None,
) -> Verdict:
    return Verdict(
        event=reservation.key,
        calendar=reservation.calendar,
        title=reservation.title,
        start=reservation.start,
        end=reservation.end,
        owner=reservation.owner,
        state=state,
        model=booked.model if booked else None,
        nodes=nodes,
        reason=reason,
        considered=unplaced.considered if unplaced else (),
    )


def _misunderstood(one: Misunderstood) -> Verdict:
    reason = Reason(
        code=ReasonCode.MISUNDERSTOOD, kind=ReasonKind.EDIT, detail=one.reason, remedy=one.example
    )
    return Verdict(
        event=one.key,
        calendar=one.calendar,
        title=one.title,
        start=one.start,
        end=one.end,
        owner=one.owner,
        state=VerdictState.MISUNDERSTOOD,
        reason=reason,
    )


def _directory(
    placements: Iterable[Placement], verdicts: Iterable[Verdict], booked: Iterable[Booked], at: datetime
) -> Directory:
    by_model: dict[str, list[Placement]] = {}
    for placement in placements:
        by_model.setdefault(placement.target.model.key, []).append(placement)
    routes = tuple(_route(group[0].target, group) for _, group in sorted(by_model.items()))
    names = {one.reservation.key: one.names for one in booked}
    announcements = [
        Announcement(
            names=names.get(verdict.event, (verdict.title,)),
            start=verdict.start,
            end=verdict.end,
            refused=verdict.reason if verdict.state is VerdictState.REFUSED else None,
        )
        for verdict in verdicts
        if verdict.start is not None
        and verdict.end is not None
        and verdict.event in names
        and (verdict.start > at or verdict.state is VerdictState.REFUSED)
    ]
    nearest = sorted(announcements, key=lambda one: (one.start, one.names, one.end))
    return Directory(routes=routes, announcements=tuple(nearest[:MAX_ANNOUNCEMENTS]))


def _route(target: Target, placements: Iterable[Placement]) -> Route:
    return Route(
        model=target.model,
        names=target.names,
        nodes=tuple(placement.node for placement in placements),
        until=target.until,
    )


def _drift(deployments: Iterable[Deployment]) -> tuple[Drift, ...]:
    return tuple(
        Drift(
            application=one.application,
            model=one.model,
            node=one.node,
            status=one.status,
            message=one.message,
        )
        for one in deployments
        if one.status is DeploymentStatus.FAILED
    )


def _next_boundary(booked: Iterable[Booked], at: datetime) -> datetime | None:
    instants = (
        instant
        for one in booked
        for instant in (one.reservation.start - one.lead, one.reservation.start, one.reservation.end)
    )
    return min((instant for instant in instants if instant > at), default=None)
