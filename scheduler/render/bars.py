"""What a plan puts on which node and when: the bars of a timeline; how they are drawn is another matter."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from scheduler.render.plain import visible
from scheduler.types import ActionKind, Plan, VerdictState

NO_ROOM = "cannot be met"
NO_NODE_YET = "no node yet"


class BarKind(StrEnum):
    """What is drawn."""

    LOADING = "loading"
    BOOKED = "booked"
    REFUSED = "refused"


@dataclass(frozen=True)
class Bar:
    """A label in a row during ``[start, end)``; where loading is planned, ``loads_from`` is before that."""

    row: str
    start: datetime
    end: datetime
    label: str
    kind: BarKind = BarKind.BOOKED
    loads_from: datetime | None = None


def bars(plan: Plan, until: datetime) -> tuple[Bar, ...]:
    """Everything of a plan that lies between its instant and another, in the order of rows and starts."""
    found = [*_stays(plan), *_unpromised(plan), *_refused(plan)]
    drawn = [
        replace(bar, label=visible(bar.label))
        for bar in found
        if bar.end > plan.at and (bar.loads_from or bar.start) < until
    ]
    return tuple(sorted(drawn, key=lambda bar: (bar.row, bar.start, bar.end, bar.label)))


def _stays(plan: Plan) -> Iterator[Bar]:
    names = {one.model.key: one.model.name for one in plan.verdicts if one.model}
    loading, begun = _loading(plan), _begun(plan)
    together = Counter(
        (stay.model, stay.node, begun.get((stay.model, stay.node, *stay.events), stay.start), stay.end)
        for stay in plan.promises.stays
    )
    for (model, node, start, end), replicas in together.items():
        begins, late = loading.get((model, node, start), (None, 0.0))
        ready = min(end, start + timedelta(seconds=late))
        label = _label(names.get(model) or _named(model), replicas)
        yield Bar(node, ready, end, label, BarKind.BOOKED, begins if begins and begins < ready else None)


def _begun(plan: Plan) -> Mapping[tuple[str, ...], datetime]:
    """When the stays that serve already began, by model, node and events: promises begin with their plan."""
    starts = {one.event: one.start for one in plan.verdicts if one.start}
    coming = {
        (one.model.key, one.node) for one in plan.actions if one.kind is ActionKind.DEPLOY and one.model
    }
    found = {}
    for stay in plan.promises.stays:
        if stay.start <= plan.at and (stay.model, stay.node) not in coming:
            begins = [starts[event] for event in stay.events if event in starts]
            found[stay.model, stay.node, *stay.events] = min([stay.start, *begins])
    return found


def _loading(plan: Plan) -> Mapping[tuple[str, str, datetime], tuple[datetime, float]]:
    """When the loading for a stay begins and how late it will be done, by model, node and start."""
    found = {
        (step.model.key, step.node, step.done_by): (step.at, step.late_seconds)
        for step in plan.upcoming
        if step.kind is not ActionKind.UNDEPLOY
    }
    for action in plan.actions:
        if action.kind is ActionKind.DEPLOY and action.model and action.node and action.done_by:
            key = (action.model.key, action.node, action.done_by)
            found[key] = (max(plan.at, action.not_before or plan.at), action.late_seconds)
    return found


def _unpromised(plan: Plan) -> Iterator[Bar]:
    """What runs or comes without a promise: what lingers, and everything in plans that promise nothing."""
    promised = {(stay.model, stay.node) for stay in plan.promises.stays}
    told = {event for stay in plan.promises.stays for event in stay.events}
    placed = {one.identity: one for one in plan.placements if one.identity not in promised}
    for (_, node), one in placed.items():
        yield Bar(
            node,
            min(one.target.start, plan.at),
            one.target.until,
            _label(one.target.model.name, one.replicas),
        )
    for verdict in plan.verdicts:
        if verdict.state is VerdictState.COMING and verdict.model and verdict.start and verdict.end:
            for node in verdict.nodes or (() if verdict.event in told else (NO_NODE_YET,)):
                if (verdict.model.key, node) not in promised | placed.keys():
                    yield Bar(node, verdict.start, verdict.end, _label(verdict.model.name, 1))


def _refused(plan: Plan) -> Iterator[Bar]:
    for verdict in plan.refused:
        if verdict.start and verdict.end:
            yield Bar(NO_ROOM, verdict.start, verdict.end, verdict.title, BarKind.REFUSED)


def _label(name: str, replicas: int) -> str:
    """A model's name without its organisation, which takes too much room."""
    short = name.rpartition("/")[2]
    return f"{short} x{replicas}" if replicas > 1 else short


def _named(key: str) -> str:
    """The name in a model key."""
    try:
        return str(json.loads(key.partition(":")[2])["repo_id"])
    except (ValueError, KeyError, TypeError):
        return key
