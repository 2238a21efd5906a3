"""What the operator's orders do to what planning reads: pins become bookings, evictions hide some. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from calendars.reservation import ModelRequest, Reading, Reservation
from scheduler.cluster.node import Cluster
from scheduler.store.orders import Order, OrderKind, Orders
from scheduler.types import (
    Catalog,
    Reason,
    ReasonCode,
    ReasonKind,
    Rules,
    Verdict,
    VerdictState,
)

CALENDAR = "operator"
"""What the calendar of pins is called in plans."""

OPERATOR = "operator@pins.invalid"
"""Of whom planning takes pins to be: every rule about persons lets this one pass, and nobody's event has such
an address (RFC 2606). People are told who gave the order."""

THE_OPERATOR = "the operator"
"""Who gave an order that does not say."""

NO_END = timedelta(days=366)
"""How long a pin without an end is planned for."""


@dataclass(frozen=True)
class Ordered:
    """What planning is to read, and the bookings that were taken out of it.

    An evicted booking that outlasts the order is read from the order's end on. ``private_to`` says by event
    who may know of the private ones, evicted or not; ``ordered_by`` who ordered a pin. ``catalog`` is that by
    which names of models were compared.
    """

    readings: tuple[Reading, ...]
    catalog: Catalog = field(default_factory=Catalog)
    evicted: tuple[Verdict, ...] = ()
    private_to: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ordered_by: Mapping[str, str] = field(default_factory=dict)
    evicted_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By event, what clients may call the model."""

    def names(self, events: Collection[str]) -> dict[str, tuple[str, ...]]:
        """What clients may call the models that these events ask for."""
        read = {
            one.key: names_of(one, self.catalog)
            for reading in self.readings
            for one in reading.reservations
            if one.key in events
        }
        return read | {event: names for event, names in self.evicted_names.items() if event in events}


def names_of(one: Reservation, catalog: Catalog) -> tuple[str, ...]:
    """What clients may call the model that a reservation asks for: its repo id first, then its aliases."""
    entry = catalog.find(one.request.model)
    return (entry.repo_id, *entry.aliases) if entry else (one.request.model,)


def with_orders(
    readings: Iterable[Reading], orders: Orders, catalog: Catalog, at: datetime, until: datetime
) -> Ordered:
    """The readings with what was pinned, and without what was evicted for as long as that holds.

    Args:
        until: the end of the horizon; an order beyond it makes no difference.
    """
    evicted: list[Verdict] = []
    readings = tuple(readings)
    private_to = {
        one.key: one.private_to or ()
        for reading in readings
        for one in reading.reservations
        if one.request.private
    }
    kept = tuple(_without_evicted(one, orders, catalog, at, until, evicted) for one in readings)
    given = orders.of(OrderKind.PIN, at)
    pins = tuple(_pin(one, at) for one in given)
    pinned = (Reading(calendar=CALENDAR, reservations=pins),) if pins else ()
    ordered_by = {one.key: one.by or THE_OPERATOR for one in given}
    gone = {one.event for one in evicted}
    names = {
        one.key: names_of(one, catalog)
        for reading in readings
        for one in reading.reservations
        if one.key in gone
    }
    return Ordered((*kept, *pinned), catalog, tuple(evicted), private_to, ordered_by, names)


def _pin(order: Order, at: datetime) -> Reservation:
    return Reservation(
        key=order.key,
        calendar=CALENDAR,
        title=f"pin {order.subject}",
        start=order.since,
        end=order.until or max(at, order.since) + NO_END,
        booked_at=order.since,
        owner=OPERATOR,
        request=ModelRequest(model=order.subject, replicas=order.replicas),
    )


def _without_evicted(
    reading: Reading,
    orders: Orders,
    catalog: Catalog,
    at: datetime,
    until: datetime,
    evicted: list[Verdict],
) -> Reading:
    kept: list[Reservation] = []
    for one in reading.reservations:
        order = next(
            (o for o in orders.of(OrderKind.EVICT, at) if _same(one.request.model, o.subject, catalog)), None
        )
        ends = (order.until or until) if order else at
        if order is None or one.start >= ends or one.end <= at:
            kept.append(one)
            continue
        evicted.append(_evicted(one, order.until))
        if one.end > ends:
            kept.append(one.model_copy(update={"start": ends}))
    return reading.model_copy(update={"reservations": tuple(kept)})


def _same(model: str, subject: str, catalog: Catalog) -> bool:
    """Whether two names, aliases or repo ids, are of one model."""
    known, wanted = catalog.find(model), catalog.find(subject)
    one = known.repo_id if known else model
    other = wanted.repo_id if wanted else subject
    return one.lower() == other.partition("@")[0].lower()


def _evicted(one: Reservation, until: datetime | None) -> Verdict:
    detail = f"until {until:%Y-%m-%d %H:%M} UTC" if until else "until further notice"
    return Verdict(
        event=one.key,
        calendar=one.calendar,
        title=one.title,
        start=one.start,
        end=one.end,
        owner=one.owner,
        state=VerdictState.REFUSED,
        reason=Reason(
            code=ReasonCode.EVICTED, kind=ReasonKind.LATER, detail=detail, remedy="Ask the operator."
        ),
        private=one.request.private,
    )


def closed_by(cluster: Cluster, orders: Orders, at: datetime) -> Cluster:
    """The cluster with the nodes marked that the operator has cordoned or drains."""
    nodes = []
    for node in cluster.nodes:
        cordoned = node.cordoned or orders.on(OrderKind.CORDON, node.name, at) is not None
        draining = orders.on(OrderKind.DRAIN, node.name, at) is not None
        nodes.append(node.model_copy(update={"cordoned": cordoned, "draining": draining}))
    return Cluster(nodes=tuple(nodes))


def letting_the_operator_pass(rules: Rules, catalog: Catalog) -> tuple[Rules, Catalog]:
    """The same rules, which do not keep the operator from pinning."""
    if rules.organisers:
        rules = rules.model_copy(update={"organisers": (*rules.organisers, OPERATOR)})
    entries = tuple(
        one.model_copy(update={"bookable_by": (*one.bookable_by, OPERATOR)}) if one.bookable_by else one
        for one in catalog.entries
    )
    return rules, Catalog(entries=entries)
