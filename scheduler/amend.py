"""What is taken out of a plan, or added to what it says, before it is carried out. Pure.

Planning knows bookings, nodes and room. That a model has just failed to load, or that the operator took it
down, is no reason to give its room away; so it is planned for, and withheld here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime

from scheduler.cluster.leftovers import Held
from scheduler.orders import CALENDAR as PINS
from scheduler.orders import Ordered
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

TRIED_AGAIN = "It is tried again by itself, less and less often, and at once when the booking is changed."


def amended(plan: Plan, observed: Observed, parked: Mapping[str, Parked], ordered: Ordered) -> Plan:
    """The plan without the models that are parked, and what is said of those, the evicted and pins."""
    if ordered.ordered_by:
        told = tuple(_ordered_by(one, ordered.ordered_by) for one in plan.verdicts)
        plan = plan.model_copy(update={"verdicts": told})
    evicted = ordered.evicted
    parked = {key: one for key, one in parked.items() if _concerns(plan, observed, key)}
    if not parked and not evicted:
        return plan
    verdicts = (*(_told(one, parked) for one in plan.verdicts), *evicted)
    directory = _without(plan.directory, parked, verdicts, ordered)
    actions = [one for one in plan.actions if one.model is None or one.model.key not in parked]
    actions = [one for one in actions if one.kind is not ActionKind.ROUTE]
    gone = [_taken_down(one, parked) for one in observed.deployments if one.model.key in parked]
    routed = [one for one in plan.actions if one.reason.code is ReasonCode.GATEWAY_MISSING]
    if not routed and observed.directory_version != directory.version:
        routed = [Action(kind=ActionKind.ROUTE, reason=Reason(code=ReasonCode.ROUTES_CHANGED))]
    return plan.model_copy(
        update={
            "actions": (*gone, *actions, *routed),
            "placements": tuple(one for one in plan.placements if one.target.model.key not in parked),
            "verdicts": verdicts,
            "directory": directory,
        }
    )


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


def _without(
    directory: Directory,
    parked: Mapping[str, Parked],
    verdicts: Iterable[Verdict],
    ordered: Ordered,
) -> Directory:
    dropped = [one for one in directory.routes if one.model.key in parked]
    names = {one.model.key: one.names for one in dropped}
    told = [
        _announce(one, names[one.model.key], one.start, one.end, ordered)
        for one in verdicts
        if one.model and one.model.key in names and one.start and one.end and not one.nodes
    ]
    told += [
        _announce(one, (one.title,), one.start, one.end, ordered)
        for one in ordered.evicted
        if one.start and one.end
    ]
    known = {(one.names, one.start, one.end) for one in told}
    kept = (one for one in directory.announcements if (one.names, one.start, one.end) not in known)
    return directory.model_copy(
        update={
            "routes": tuple(one for one in directory.routes if one.model.key not in parked),
            "announcements": (*kept, *told),
        }
    )


def _announce(
    verdict: Verdict, names: tuple[str, ...], start: datetime, end: datetime, ordered: Ordered
) -> Announcement:
    return Announcement(
        names=names,
        start=start,
        end=end,
        refused=verdict.reason,
        private_to=ordered.private_to.get(verdict.event),
    )
