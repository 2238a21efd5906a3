"""What is taken out of a plan, or added to what it says, before it is carried out. Pure.

Planning knows bookings, nodes and room. That a model has just failed to load, or that the operator took it
down, is no reason to give its room away; so it is planned for, and withheld here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from scheduler.cluster.leftovers import Held
from scheduler.orders import CALENDAR as PINS
from scheduler.orders import Ordered
from scheduler.planning.directory import MAX_ANNOUNCEMENTS
from scheduler.store.records import Parked
from scheduler.types import (
    Action,
    ActionKind,
    Announcement,
    Deployment,
    Directory,
    Observed,
    Plan,
    Reason,
    ReasonCode,
    ReasonKind,
    Verdict,
    VerdictState,
)

COMES_BACK = "From then on it is served again. Ask the operator if it must be sooner."
TRIED_AGAIN = "It is tried again by itself, less and less often, and at once when the booking is changed."


def amended(plan: Plan, observed: Observed, parked: Mapping[str, Parked], ordered: Ordered) -> Plan:
    """The plan without the models that are parked, and what is said of those, the evicted and pins."""
    parked = {key: one for key, one in parked.items() if _concerns(plan, observed, key)}
    verdicts = plan.verdicts
    if ordered.ordered_by:
        verdicts = tuple(_ordered_by(one, ordered.ordered_by) for one in verdicts)
    if parked:
        verdicts = tuple(_told(one, parked) for one in verdicts)
    if ordered.evicted:
        verdicts = _with_evicted(verdicts, ordered.evicted)
    directory = _directory(plan.directory, parked, verdicts, ordered)
    if not parked and verdicts is plan.verdicts and directory is plan.directory:
        return plan
    actions = [one for one in plan.actions if one.model is None or one.model.key not in parked]
    if directory != plan.directory:
        actions = _routed(actions, directory, observed)
    gone = [_taken_down(one, parked) for one in observed.deployments if one.model.key in parked]
    return plan.model_copy(
        update={
            "actions": (*gone, *actions),
            "placements": tuple(one for one in plan.placements if one.target.model.key not in parked),
            "verdicts": verdicts,
            "directory": directory,
        }
    )


def _routed(actions: Iterable[Action], directory: Directory, observed: Observed) -> list[Action]:
    """The actions with that of the gateway for another directory than they were made with."""
    missing = [one for one in actions if one.reason.code is ReasonCode.GATEWAY_MISSING]
    others = [one for one in actions if one.kind is not ActionKind.ROUTE]
    if not missing and observed.directory_version != directory.version:
        missing = [Action(kind=ActionKind.ROUTE, reason=Reason(code=ReasonCode.ROUTES_CHANGED))]
    return [*others, *missing]


def held_back(plan: Plan, waited_for: Mapping[str, Held]) -> Plan:
    """The plan without what shall come to GPUs that are still in use; it comes when they are free.

    Args:
        waited_for: GPUs that are, by the name of their node.
    """
    room = {name: one.free for name, one in waited_for.items()}
    waits = set()
    for one in plan.actions:
        if one.kind is not ActionKind.DEPLOY or one.model is None or one.node not in room:
            continue
        needed = math.ceil(one.num_gpus) * one.replicas
        if needed <= room[one.node]:
            room[one.node] -= needed
        else:
            waits.add((one.model.key, one.node))
    if not waits:
        return plan
    actions = (one for one in plan.actions if one.model is None or (one.model.key, one.node) not in waits)
    return plan.model_copy(
        update={
            "actions": tuple(actions),
            "placements": tuple(one for one in plan.placements if one.identity not in waits),
        }
    )


def load_failed(one: Parked) -> Reason:
    """Why a parked model does not serve."""
    lines = [line.strip() for line in one.error.strip().splitlines() if line.strip()]
    return Reason(
        code=ReasonCode.LOAD_FAILED,
        kind=ReasonKind.LATER,
        # the last line is where Python puts the exception
        detail=lines[-1] if lines else "nobody knows why",
        remedy=TRIED_AGAIN,
    )


def _ordered_by(verdict: Verdict, by: Mapping[str, str]) -> Verdict:
    if verdict.calendar != PINS or verdict.event not in by:
        return verdict
    return verdict.model_copy(update={"owner": by[verdict.event]})


def _concerns(plan: Plan, observed: Observed, key: str) -> bool:
    placed = any(one.target.model.key == key for one in plan.placements)
    return placed or any(one.model.key == key for one in observed.deployments)


def _told(verdict: Verdict, parked: Mapping[str, Parked]) -> Verdict:
    if verdict.model is None or verdict.model.key not in parked or not verdict.nodes:
        return verdict
    reason = load_failed(parked[verdict.model.key])
    return verdict.model_copy(
        update={"state": VerdictState.REFUSED, "reason": reason, "nodes": (), "considered": ()}
    )


def _taken_down(one: Deployment, parked: Mapping[str, Parked]) -> Action:
    return Action(
        kind=ActionKind.UNDEPLOY,
        model=one.model,
        node=one.node,
        replicas_before=one.replicas,
        footprint_bytes=one.footprint_bytes,
        num_gpus=one.num_gpus,
        reason=load_failed(parked[one.model.key]),
    )


def _with_evicted(verdicts: tuple[Verdict, ...], evicted: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """One verdict for each event: what is booked beyond the end of an eviction is no booking of its own."""
    told = {one.event: one for one in evicted}
    rest = {one.event: one for one in verdicts if one.event in told}
    others = (one for one in verdicts if one.event not in told)
    return (*others, *(_returning(one, rest.get(key)) for key, one in told.items()))


def _returning(evicted: Verdict, rest: Verdict | None) -> Verdict:
    if rest is None or rest.state is VerdictState.REFUSED:
        return evicted
    reason = evicted.reason.model_copy(update={"remedy": COMES_BACK})
    return evicted.model_copy(update={"reason": reason, "model": rest.model})


def _directory(
    directory: Directory, parked: Mapping[str, Parked], verdicts: Iterable[Verdict], ordered: Ordered
) -> Directory:
    """What the gateway knows, without routes to what is parked, and with everything that is not met.

    Planning tells it of what it has or would have a place for, not of what it cannot size or may not place.
    """
    verdicts = tuple(verdicts)
    names = {one.model.key: one.names for one in directory.routes}
    evicted = {one.event for one in ordered.evicted}
    known = {one.event for one in verdicts if one.model and one.model.key in parked and not one.nodes}
    silent = [one.event for one in verdicts if _is_silent(one) and one.event not in known | evicted]
    if not parked and not evicted and not silent:
        return directory
    called = ordered.names({*silent, *evicted, *known})
    told = [
        Announcement(
            names=names.get(one.model.key, called[one.event]) if one.model else called[one.event],
            start=one.start,
            end=one.end,
            refused=one.reason if one.state is VerdictState.REFUSED else None,
            private_to=ordered.private_to.get(one.event),
        )
        for one in verdicts
        if one.event in called and one.start and one.end
    ]
    there = {(one.names, one.start, one.end) for one in told}
    kept = [one for one in directory.announcements if (one.names, one.start, one.end) not in there]
    # a copy would keep the version that was reckoned for the other content
    return Directory(
        routes=tuple(one for one in directory.routes if one.model.key not in parked),
        announcements=(*kept, *told[: max(0, MAX_ANNOUNCEMENTS - len(kept))]),
    )


def _is_silent(one: Verdict) -> bool:
    """Whether planning tells the gateway nothing of a booking, though somebody may ask for its model."""
    return one.model is None and one.state in (VerdictState.REFUSED, VerdictState.COMING)
