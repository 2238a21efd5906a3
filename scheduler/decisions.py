"""What a plan decides, apart from its times and figures; pure. Tells whether a saved plan still holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from scheduler.types import ActionKind, Model, Placement, Plan


class DecisionKind(StrEnum):
    """What can be decided."""

    GOES = "goes"  # it is taken down
    REBUILT = "rebuilt"  # it is taken down and deployed anew
    RUNS = "runs"
    REFUSED = "refused"


@dataclass(frozen=True)
class Decision:
    """One decision: a model on a node with what it takes, or a booking (by its title) that cannot be met."""

    kind: DecisionKind
    subject: str
    node: str = ""
    replicas: int = 0
    num_gpus: float = 0
    footprint_bytes: int = 0


@dataclass(frozen=True)
class Difference:
    """A decision that is only in the plan of then, or (``now``) only in that of now."""

    now: bool
    decision: Decision


def differences(then: Plan, now: Plan) -> tuple[Difference, ...]:
    """The decisions that changed from one plan to a later one; what goes first, then what was first.

    What counts: which models run on which node with how many replicas and GPUs, what is taken down or
    rebuilt, and which bookings known to both plans cannot be met. What does not: times, what is free
    where, reasons, routes, the bookings behind a model, and whatever was carried out in the meantime.
    """
    before, after = dict(_running(then)), dict(_running(now))
    found = [
        *(Difference(False, one) for key, one in before.items() if after.get(key) != one),
        *(Difference(True, one) for key, one in after.items() if before.get(key) != one),
    ]
    done = set(_taken_down(then))
    found += [Difference(True, one) for one in _taken_down(now) if one not in done]
    found += _refusals(then, now)
    order = list(DecisionKind)
    return tuple(
        sorted(
            found,
            key=lambda one: (
                order.index(one.decision.kind),
                one.decision.subject,
                one.now,
                one.decision.node,
            ),
        )
    )


def _running(plan: Plan) -> Iterator[tuple[tuple[str, str], Decision]]:
    for one in plan.placements:
        yield one.identity, _runs(one)


def _runs(one: Placement) -> Decision:
    return Decision(
        DecisionKind.RUNS, one.target.model.name, one.node, one.replicas, one.num_gpus, one.footprint_bytes
    )


def _taken_down(plan: Plan) -> Iterator[Decision]:
    kinds = {ActionKind.UNDEPLOY: DecisionKind.GOES, ActionKind.REBUILD: DecisionKind.REBUILT}
    for action in plan.actions:
        if action.kind in kinds and isinstance(action.model, Model):
            yield Decision(kinds[action.kind], action.model.name, action.node or "")


def _refusals(then: Plan, now: Plan) -> Iterator[Difference]:
    """Bookings that both plans speak of and of which only one says that they cannot be met."""
    known = {(one.calendar, one.event) for one in then.verdicts}
    known &= {(one.calendar, one.event) for one in now.verdicts}
    before, after = ({(one.calendar, one.event): one for one in plan.refused} for plan in (then, now))
    for key in sorted(known & (before.keys() ^ after.keys())):
        one = after.get(key) or before[key]
        yield Difference(key in after, Decision(DecisionKind.REFUSED, one.title))
