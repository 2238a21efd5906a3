"""The difference between what shall run and what runs, as ordered actions with reasons."""

from __future__ import annotations

from collections.abc import Collection, Mapping

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
    """Compares what shall run with what runs; what was found alike the last time is not compared again."""

    def __init__(self) -> None:
        self._alike: dict[Identity, tuple[Placement, Deployment]] = {}

    def actions(
        self,
        wanted: Mapping[Identity, Placement],
        running: Mapping[Identity, Deployment],
        booked: Collection[str],
        directory: Directory,
        observed: Observed,
    ) -> tuple[Action, ...]:
        """The actions that turn what was observed into the placements, removals first.

        Args:
            wanted: what shall run, by model key and node.
            running: what was observed of ours.
            booked: keys of the models that are wanted, placed or not: tells an end from a displacement.
        """
        going = [one for identity, one in running.items() if identity not in wanted]
        actions = [_undeploy(one, wanted, booked, running, observed) for one in going]
        actions += self._changes(wanted, running)
        if observed.directory_version is None:
            actions.append(Action(kind=ActionKind.ROUTE, reason=Reason(code=ReasonCode.GATEWAY_MISSING)))
        elif observed.directory_version != directory.version:
            actions.append(Action(kind=ActionKind.ROUTE, reason=Reason(code=ReasonCode.ROUTES_CHANGED)))
        order = list(ActionKind)
        return tuple(
            sorted(actions, key=lambda a: (order.index(a.kind), a.model.key if a.model else "", a.node or ""))
        )

    def _changes(
        self, wanted: Mapping[Identity, Placement], running: Mapping[Identity, Deployment]
    ) -> list[Action]:
        """What is deployed, or another than it runs."""
        before, alike = self._alike, dict[Identity, tuple[Placement, Deployment]]()
        actions = []
        for identity, placement in wanted.items():
            there, known = running.get(identity), before.get(identity)
            if known is not None and known[0] is placement and known[1] is there:
                alike[identity] = known
            elif action := _deploy(placement) if there is None else _change(placement, there):
                actions.append(action)
            elif there is not None:
                alike[identity] = (placement, there)
        self._alike = alike
        return actions


def _undeploy(
    deployment: Deployment,
    wanted: Mapping[Identity, Placement],
    booked: Collection[str],
    running: Mapping[Identity, Deployment],
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
