"""The difference between what shall run and what runs, as ordered actions with reasons."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from scheduler.planning.running import Identity
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


class Differences:
    """Compares what shall run with what runs, where one of them is another than the last time."""

    def __init__(self) -> None:
        self._unlike: set[Identity] = set()

    def going(
        self,
        wanted: Mapping[Identity, Placement],
        running: Mapping[Identity, Deployment],
        others: Iterable[Identity],
    ) -> list[Deployment]:
        """What runs and shall not.

        Args:
            wanted: what shall run, by model key and node.
            running: what was observed of ours.
            others: the identities of what is another than the last time in one of both, came or went.
        """
        self._unlike.update(others)
        return [running[one] for one in sorted(self._unlike) if one in running and one not in wanted]

    def actions(
        self,
        wanted: Mapping[Identity, Placement],
        running: Mapping[Identity, Deployment],
        going: Iterable[Deployment],
        booked: Collection[str],
        directory: Directory,
        observed: Observed,
    ) -> tuple[Action, ...]:
        """The actions that turn what was observed into the placements, removals first.

        Args:
            wanted: what shall run, by model key and node.
            running: what was observed of ours.
            going: what of that shall not run.
            booked: keys of the models that are wanted, placed or not: tells an end from a displacement.
        """
        actions = [_undeploy(one, wanted, booked, running, observed) for one in going]
        for identity in self._unlike & wanted.keys():
            there = running.get(identity)
            action = _change(wanted[identity], there) if there else _deploy(wanted[identity])
            if action is not None:
                actions.append(action)
        self._unlike = {(one.model.key, one.node) for one in actions if one.model and one.node}
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
    wanted: Mapping[Identity, Placement],
    booked: Collection[str],
    running: Mapping[Identity, Deployment],
    observed: Observed,
) -> Action:
    elsewhere = [one for identity, one in wanted.items() if identity[0] == deployment.model.key]
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
