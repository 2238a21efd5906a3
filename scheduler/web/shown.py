"""From what the daemon knows to what a reader is shown of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from calendars.reservation import ModelRequest, Reservation
from scheduler.board import View
from scheduler.cluster.node import DeviceKind, Node
from scheduler.render.calendar import options
from scheduler.render.memory import held
from scheduler.render.operation import order_words, parked_words
from scheduler.render.refusals import NODES_SHOWN, around
from scheduler.render.sentences import answer, sentence
from scheduler.render.text import first_line, summary
from scheduler.store.orders import ON_MODELS, Order
from scheduler.types import Deployment, DeploymentStatus, Plan, ReasonCode, Verdict, VerdictState
from scheduler.web.google_link import new_event
from scheduler.web.models import (
    ActionShown,
    BookingShown,
    BookingState,
    CalendarShown,
    Counts,
    DaemonShown,
    GatewayShown,
    ModelShown,
    NodeShown,
    Offer,
    OrderShown,
    PlanShown,
    StateShown,
    StepShown,
    Why,
)
from scheduler.web.veil import PRIVATE_MODEL, Veil

FAR_FUTURE = datetime.max.replace(tzinfo=UTC)
UP = frozenset({BookingState.SERVING, BookingState.LOADING, BookingState.BOOKED, BookingState.LATE})
DOWN = frozenset({BookingState.REFUSED, BookingState.MISUNDERSTOOD})
LATE_SECONDS = 1.0
"""What is later than this is told to be late."""


def name_of(*parts: object) -> str:
    """A short name that stays the same, and gives nothing away."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:10]


def booking_id(verdict: Verdict) -> str:
    """What a booking is called in links."""
    return f"b-{name_of(verdict.calendar, verdict.event, verdict.start)}"


@dataclass(frozen=True)
class Shown:
    """One view for one reader.

    Args:
        gateway_url: where people ask models.
        google_calendar: what new events are put in; None where no Google calendar is read.
    """

    view: View
    veil: Veil
    version: int
    gateway_url: str
    google_calendar: str | None = None
    _requests: Mapping[tuple[str, str], Reservation] = field(init=False)

    def __post_init__(self) -> None:
        found = {
            (reading.calendar, one.key): one for reading in self.view.readings for one in reading.reservations
        }
        object.__setattr__(self, "_requests", found)

    @property
    def plan(self) -> Plan | None:
        """The last plan there was."""
        return self.view.plan

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        """What runs."""
        return self.view.observed.deployments if self.view.observed else ()

    @property
    def nodes_there(self) -> tuple[Node, ...]:
        """The nodes, as they were seen last."""
        return self.view.observed.cluster.nodes if self.view.observed else ()

    # --- at a glance ------------------------------------------------------------------------------------

    def state(self) -> StateShown:
        """Everything at a glance."""
        view, plan = self.view, self.plan
        return StateShown(
            at=view.at,
            version=self.version,
            summary=summary(plan) if plan else "The daemon has not planned yet.",
            daemon=DaemonShown(
                started=view.beat.started,
                passes=view.passes,
                next_pass=view.next_pass,
                leads=view.lease.ours,
                problems=tuple(self._problems()),
                paused=view.beat.pause is not None,
            ),
            gateway=GatewayShown(url=self.gateway_url, status=view.gateway[0] if view.gateway else ""),
            counts=self._counts(),
            calendars=tuple(self._calendars()),
            orders=tuple(self.order(one) for one in view.beat.orders),
            parked=tuple(
                self.veil.words(parked_words(one, _repo(one.model_key), view.at, UTC))
                for one in view.beat.parked
            ),
            away=view.beat.away,
        )

    def _problems(self) -> Iterator[str]:
        beat = self.view.beat
        if beat.problem:
            yield self.veil.words(beat.problem)
        if beat.waits_for:
            yield f"It waits for {beat.waits_for}, which works on this cluster."
        for words in (beat.held, beat.in_use):
            if words:
                yield self.veil.words(words)
        for name, seconds in beat.stuck.items():
            yield f"{name[0].upper()}{name[1:]} is stuck, for {seconds:.0f} s."
        for application, why in beat.unreadable.items():
            yield f"{application} cannot be read: {self.veil.words(why)}"
        if beat.lost_records:
            yield f"{beat.lost_records} records of the history could not be written."

    def _calendars(self) -> Iterator[CalendarShown]:
        for one in self.view.calendars:
            age = one.age(self.view.at)
            yield CalendarShown(
                name=self.veil.words(one.name),
                readable=not one.failing,
                read_at=one.read_at,
                age_seconds=age.total_seconds() if age is not None else None,
                problem=self.veil.words(f"{one.reason} {one.remedy}".strip()),
            )

    def _counts(self) -> Counts:
        status = [one.status for one in self.deployments]
        states = [self._booking_state(one) for one in self.plan.verdicts] if self.plan else []
        return Counts(
            serving=status.count(DeploymentStatus.SERVING),
            loading=status.count(DeploymentStatus.LOADING),
            failed=status.count(DeploymentStatus.FAILED),
            booked=sum(one in UP for one in states),
            late=states.count(BookingState.LATE),
            refused=sum(one in DOWN for one in states),
            nodes=len(self.nodes_there),
            devices=sum(len(one.devices) for one in self.nodes_there),
        )

    def order(self, order: Order) -> OrderShown:
        """An order, as the reader may know of it."""
        subject = self.veil.words(order.subject) if order.kind in ON_MODELS else order.subject
        by, note = (order.by, order.note) if self.veil.sight.people else ("", "")
        told = order.model_copy(update={"subject": subject, "by": by, "note": note})
        words = order_words(told, self.view.at, UTC)
        return OrderShown(kind=order.kind, subject=subject, since=order.since, until=order.until, words=words)

    # --- bookings ---------------------------------------------------------------------------------------

    def bookings(self) -> tuple[BookingShown, ...]:
        """Every booking there is, in the order of their starts."""
        if self.plan is None:
            return ()
        found = [self.booking(one) for one in self.plan.verdicts]
        return tuple(sorted(found, key=lambda one: (one.start or FAR_FUTURE, one.end or FAR_FUTURE, one.id)))

    def booking(self, verdict: Verdict, request: ModelRequest | None = None) -> BookingShown:
        """One booking; ``request`` is what it asks for, where no calendar has it."""
        told, hidden = self.veil.verdict(verdict), self.veil.hides(verdict.event, verdict.private)
        known = self._requests.get((verdict.calendar, verdict.event))
        request = request or (known.request if known else None)
        asks_for = "" if hidden or request is None else options(request)
        model = self.veil.model(
            verdict.event, verdict.model.name if verdict.model else request.model if request else "", hidden
        )
        return BookingShown(
            id=booking_id(verdict),
            title=told.title,
            model=model,
            asks_for=asks_for,
            owner=told.owner,
            calendar="" if hidden else self.veil.words(verdict.calendar),
            start=told.start,
            end=told.end,
            state=self._booking_state(verdict),
            private=verdict.private,
            nodes=told.nodes,
            ready_by=told.ready_by,
            late_seconds=told.late_seconds,
            earliest=(told.refusal and told.refusal.earliest) or told.earliest,
            why=self.why(told),
            book=None if hidden or request is None else self._book(told, request),
        )

    def why(self, told: Verdict) -> Why:
        """Why a booking stands as it does; the verdict is what the reader may hear."""
        at = self.view.at
        refused = told.state is VerdictState.REFUSED
        return Why(
            code=told.reason.code,
            kind=told.reason.kind,
            words=sentence(told.reason),
            remedy=told.reason.remedy,
            more=tuple(around(told, at, self.veil.sight.zone)) if refused else (),
            proof=told.refusal.proof if told.refusal and refused else None,
            offers=tuple(
                Offer(node=one.node, words=answer(one, at, self.veil.sight.zone))
                for one in (told.considered[:NODES_SHOWN] if refused else ())
            ),
        )

    def _book(self, told: Verdict, request: ModelRequest) -> str | None:
        """The form with a refused booking at the first time it fits."""
        earliest = (told.refusal and told.refusal.earliest) or told.earliest
        if self.google_calendar is None or not earliest or not told.start or not told.end:
            return None
        return new_event(request, earliest, earliest + (told.end - told.start), self.google_calendar)

    def _booking_state(self, one: Verdict) -> BookingState:
        if one.state is VerdictState.MISUNDERSTOOD:
            return BookingState.MISUNDERSTOOD
        if one.state is VerdictState.REFUSED:
            return BookingState.REFUSED
        if one.reason.code is ReasonCode.LOOKING_UP:
            return BookingState.PENDING
        status = {
            there.status
            for there in self.deployments
            if one.model and there.model.key == one.model.key and there.node in one.nodes
        }
        if DeploymentStatus.SERVING in status and (one.start is None or one.start <= self.view.at):
            return BookingState.SERVING
        if one.late_seconds > LATE_SECONDS:
            return BookingState.LATE
        if DeploymentStatus.LOADING in status or one.state is VerdictState.PLACED:
            return BookingState.LOADING
        return BookingState.BOOKED

    # --- what runs --------------------------------------------------------------------------------------

    def models(self) -> tuple[ModelShown, ...]:
        """What runs, by name."""
        until = {one.identity: one.target.until for one in self.plan.placements} if self.plan else {}
        found = [self._model(one, until.get(one.identity)) for one in self.deployments]
        return tuple(sorted(found, key=lambda one: (one.name, one.node)))

    def _model(self, one: Deployment, until: datetime | None) -> ModelShown:
        name, coming = self.veil.deployment(one), self.view.progress.get(one.application)
        private = name == PRIVATE_MODEL
        failed = one.status is DeploymentStatus.FAILED
        message = self.veil.words(first_line(one.message)) if failed and not private else ""
        return ModelShown(
            application="" if private else one.application,
            name=name,
            node=one.node,
            status=one.status,
            replicas=one.replicas,
            ready_replicas=one.ready_replicas,
            devices=one.num_gpus,
            memory_bytes=one.footprint_bytes * one.replicas,
            since=one.since,
            until=until,
            step=coming.step if coming else "",
            fraction=coming.fraction if coming else None,
            seconds=coming.seconds if coming else None,
            message=message,
        )

    def nodes(self) -> tuple[NodeShown, ...]:
        """The nodes, and who holds what of them."""
        return tuple(self._node(one) for one in self.nodes_there)

    def _node(self, node: Node) -> NodeShown:
        here = [one for one in self.deployments if one.node == node.name]
        memory = held(node, here)
        note = node.no_devices_because or ""
        if node.closed:
            note = "is being emptied" if node.draining else "takes nothing new"
        if node.name in self.view.beat.away:
            note = "is gone; it is waited for"
        return NodeShown(
            name=node.name,
            kind=node.kind_name,
            devices=len(node.devices),
            is_gpu=node.kind is DeviceKind.GPU,
            head=node.is_head,
            total_bytes=memory.total,
            ours_bytes=memory.ours,
            others_bytes=memory.others,
            free_bytes=memory.free,
            open=bool(node.devices) and not node.closed and node.name not in self.view.beat.away,
            note=note,
            models=tuple(sorted(self.veil.deployment(one) for one in here)),
        )

    # --- the plan ---------------------------------------------------------------------------------------

    def plan_shown(self) -> PlanShown:
        """What is done now and later."""
        plan = self.plan
        if plan is None:
            return PlanShown(at=self.view.at, summary="The daemon has not planned yet.")
        return PlanShown(
            at=plan.at,
            summary=summary(plan),
            next_boundary=plan.next_boundary,
            actions=tuple(
                ActionShown(
                    kind=one.kind,
                    model=self.veil.words(one.model.name) if one.model else "",
                    node=one.node,
                    replicas_before=one.replicas_before,
                    replicas=one.replicas,
                    until=one.until,
                    done_by=one.done_by,
                    late_seconds=one.late_seconds,
                    why=self.veil.words(sentence(one.reason)),
                )
                for one in plan.actions
            ),
            upcoming=tuple(
                StepShown(
                    kind=one.kind,
                    model=self.veil.words(one.model.name),
                    node=one.node,
                    replicas=one.replicas,
                    at=one.at,
                    done_by=one.done_by,
                    until=one.until,
                    late_seconds=one.late_seconds,
                )
                for one in plan.upcoming
            ),
        )


def wanted(bookings: Iterable[BookingShown], *states: BookingState) -> tuple[BookingShown, ...]:
    """Those in one of these states."""
    return tuple(one for one in bookings if one.state in states)


def _repo(model_key: str) -> str:
    _, _, rest = model_key.partition('"repo_id": "')
    return rest.partition('"')[0] or model_key
