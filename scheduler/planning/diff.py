"""The difference between what shall run and what runs, as ordered actions with reasons."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from scheduler.types import (
    Action,
    ActionKind,
    Deployment,
    Directory,
    Observed,
    Placement,
    Reason,
    ReasonCode,
)


def diff(
    placements: Iterable[Placement],
    running: Mapping[tuple[str, str], Deployment],
    booked: Collection[str],
    directory: Directory,
    observed: Observed,
) -> tuple[Action, ...]:
    """The actions that turn what was observed into the placements, removals first.

    Args:
        running: what was observed of ours, by model key and node.
        booked: keys of the models that are wanted, placed or not: tells an end from a displacement.
    """
    wanted = {placement.identity: placement for placement in placements}
    actions = [
        _undeploy(deployment, wanted, booked, running, observed)
        for identity, deployment in running.items()
        if identity not in wanted
    ]
    for identity, placement in wanted.items():
        action = _deploy(placement) if identity not in running else _change(placement, running[identity])
        if action is not None:
            actions.append(action)
    if observed.directory_version is None:
        actions.append(Action(kind=ActionKind.ROUTE, reason=Reason(code=ReasonCode.GATEWAY_MISSING)))
    elif observed.directory_version != directory.version:
        actions.append(Action(kind=ActionKind.ROUTE, reason=Reason(code=ReasonCode.ROUTES_CHANGED)))
    order = list(ActionKind)
    return tuple(
        sorted(actions, key=lambda a: (order.index(a.kind), a.model.key if a.model else "", a.node or ""))
    )


def _undeploy(
    deployment: Deployment,
    wanted: dict[tuple[str, str], Placement],
    booked: Collection[str],
    running: Mapping[tuple[str, str], Deployment],
    observed: Observed,
) -> Action:
    elsewhere = [one for one in wanted.values() if one.target.model.key == deployment.model.key]
    gaining = [one.node for one in elsewhere if one.replicas > _replicas(running.get(one.identity))]
    node = observed.cluster.named(deployment.node)
    if deployment.model.key not in booked:
        reason = Reason(code=ReasonCode.NO_BOOKING, node=deployment.node)
    elif node is None:
        reason = Reason(code=ReasonCode.NODE_LOST, node=deployment.node)
    elif node.draining:
        reason = Reason(code=ReasonCode.NODE_DRAINED, node=deployment.node)
    elif gaining:
        reason = Reason(code=ReasonCode.MOVED, node=gaining[0])
    elif elsewhere:
        # one of several bookings of the model has ended, and the others have all they asked for
        reason = Reason(code=ReasonCode.NO_BOOKING, node=deployment.node)
    else:
        here = [one for identity, one in wanted.items() if identity[1] == deployment.node]
        new = [one for one in here if one.identity not in running]
        by = tuple(dict.fromkeys(one.target.model.name for one in new or here))
        reason = Reason(code=ReasonCode.DISPLACED, node=deployment.node, by=by)
    return Action(
        kind=ActionKind.UNDEPLOY,
        model=deployment.model,
        node=deployment.node,
        replicas_before=deployment.replicas,
        footprint_bytes=deployment.footprint_bytes,
        num_gpus=deployment.num_gpus,
        reason=reason,
    )


def _replicas(deployment: Deployment | None) -> int:
    return deployment.replicas if deployment else 0


def _deploy(placement: Placement) -> Action:
    return _action(ActionKind.DEPLOY, placement, 0, placement.reason)


def _change(placement: Placement, deployment: Deployment) -> Action | None:
    kind, code = ActionKind.REBUILD, None
    if not deployment.contract_current:
        code = ReasonCode.CONTRACT_CHANGED
    elif (
        placement.num_gpus != deployment.num_gpus
        or placement.memory_bytes != deployment.memory_bytes
        or placement.footprint_bytes != deployment.footprint_bytes
        or placement.target.dtype != deployment.dtype
    ):
        code = ReasonCode.NEEDS_CHANGED
    elif placement.replicas != deployment.replicas:
        kind, code = ActionKind.SCALE, ReasonCode.REPLICAS_CHANGED
    elif placement.target.reservations != deployment.reservations:
        kind, code = ActionKind.UPDATE, ReasonCode.BOOKING_CHANGED
    if code is None:
        return None
    return _action(kind, placement, deployment.replicas, Reason(code=code, node=placement.node))


def _action(kind: ActionKind, placement: Placement, before: int, reason: Reason) -> Action:
    return Action(
        kind=kind,
        model=placement.target.model,
        node=placement.node,
        replicas_before=before,
        replicas=placement.replicas,
        footprint_bytes=placement.footprint_bytes,
        num_gpus=placement.num_gpus,
        until=placement.target.until,
        titles=placement.target.titles,
        reason=reason,
        done_by=placement.target.start,
    )
