"""What the history remembers, as a reader may see it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from scheduler.render.operation import order_words
from scheduler.store.history import reading
from scheduler.store.orders import Order, OrderKind
from scheduler.store.records import Change, LoadTime, ManualRecord, PlanRecord, PromiseRecord
from scheduler.web.models import (
    HistoryShown,
    LoadShown,
    OrderShown,
    PastChange,
    PastPlan,
    PromiseShown,
    PromisesShown,
)
from scheduler.web.shown import name_of
from scheduler.web.veil import Veil

PLANS_READ = 500
LINGERING = timedelta(days=1)
"""So long after its end what a private booking left behind is still private."""
DUE = ("kept", "late", "broken")
P95 = 0.95


@dataclass(frozen=True)
class Past:
    """What is known of the time since ``since``.

    ``private`` are the records of private bookings, also of those that ended some time before that.
    """

    since: datetime
    promises: tuple[PromiseRecord, ...] = ()
    changes: tuple[Change, ...] = ()
    plans: tuple[PlanRecord, ...] = ()
    manual: tuple[ManualRecord, ...] = ()
    loads: tuple[LoadTime, ...] = ()
    private: tuple[PromiseRecord | Change, ...] = ()


def read_past(path: Path, since: datetime) -> Past:
    """What the history knows.

    Raises:
        OperatorError: it cannot be read.
    """
    with reading(path) as found:
        promises, changes = found.promises(since - LINGERING), found.changes(since - LINGERING)
        return Past(
            since=since,
            private=(
                *(one for one in promises if one.private),
                *(one for one in changes if one.private),
            ),
            promises=tuple(one for one in promises if one.end >= since),
            changes=tuple(one for one in changes if one.at >= since),
            plans=tuple(found.plans(since, PLANS_READ)),
            manual=tuple(found.manual(since)),
            loads=tuple(found.load_times().values()),
        )


def promises_shown(past: Past, veil: Veil, at: datetime) -> PromisesShown:
    """What came of those that were promised, the latest first."""
    due = [one for one in past.promises if one.state in DUE and one.start <= at]
    states = [one.state for one in due]
    lateness = sorted(one.lateness_seconds or 0.0 for one in due if one.state in ("kept", "late"))
    kept = states.count("kept")
    return PromisesShown(
        since=past.since,
        due=len(due),
        kept=kept,
        late=states.count("late"),
        broken=states.count("broken"),
        share_kept=kept / len(due) if due else None,
        lateness_seconds_p95=_quantile(lateness, P95) if lateness else None,
        promises=tuple(_promise(one, veil) for one in reversed(past.promises)),
    )


def promise_id(one: PromiseRecord) -> str:
    """What a promise is called in links."""
    return f"p-{name_of(one.calendar, one.event, one.start)}"


def _promise(one: PromiseRecord, veil: Veil) -> PromiseShown:
    hidden = veil.hides(one.event, one.private)
    why = one.broken_why and veil.words(one.broken_why)
    return PromiseShown(
        id=promise_id(one),
        title=veil.title(one.event, one.title, one.model, one.private),
        model=veil.model(one.event, one.model, one.private),
        owner=None if hidden else veil.person(one.owner),
        start=one.start,
        end=one.end,
        state=one.state,
        ready_at=one.ready_at,
        lateness_seconds=one.lateness_seconds,
        broken_why="The reason is told to who booked it." if hidden and why else why,
        private=one.private,
    )


def plans_shown(past: Past, veil: Veil) -> tuple[PastPlan, ...]:
    """The plans that changed something, the latest first."""
    return tuple(
        PastPlan(
            number=one.number,
            at=one.at,
            summary=one.summary,
            actions=tuple(veil.words(each) for each in one.actions),
            outcome=one.outcome,
            detail=veil.words(one.detail),
            seconds=one.seconds,
        )
        for one in reversed(past.plans)
    )


def history_shown(past: Past, veil: Veil) -> HistoryShown:
    """What was done and said, the latest first; how long loading takes, of models that others than the people
    of private bookings know of."""
    public = {one.model for one in past.promises if not one.private}
    public |= {one.model for one in past.changes if not one.private}
    return HistoryShown(
        since=past.since,
        plans=plans_shown(past, veil),
        changes=tuple(_changes(past.changes, veil)),
        orders=tuple(_order(one, veil) for one in reversed(past.manual)),
        load_times=tuple(
            LoadShown(
                model=veil.words(_repo(one.model_key)),
                **one.model_dump(exclude={"model_key"}),
            )
            for one in past.loads
            if veil.sight.everything or _repo(one.model_key) in public
        ),
    )


def _changes(changes: Iterable[Change], veil: Veil) -> Iterable[PastChange]:
    for one in reversed(tuple(changes)):
        hidden = veil.hides(one.event, one.private)
        # what is said to a booking is meant for who booked it
        text = veil.words(one.text) if veil.sight.people and not hidden else ""
        yield PastChange(
            at=one.at,
            title=veil.title(one.event, one.title, one.model, one.private),
            model=veil.model(one.event, one.model, one.private),
            state=one.state,
            text=text,
        )


def _order(one: ManualRecord, veil: Veil) -> OrderShown:
    subject = veil.words(one.subject)
    by = one.by if veil.sight.people else ""
    order = Order(kind=OrderKind(one.kind), subject=subject, since=one.at, until=one.until, by=by)
    words = order_words(order, one.at, UTC)
    return OrderShown(kind=one.kind, subject=subject, since=one.at, until=one.until, words=words)


def _repo(model_key: str) -> str:
    _, _, rest = model_key.partition('"repo_id": "')
    return rest.partition('"')[0] or model_key


def _quantile(ordered: list[float], share: float) -> float:
    """The smallest that at least ``share`` of them do not exceed."""
    rank = -(-len(ordered) * share // 1)
    return ordered[max(0, int(rank) - 1)]
