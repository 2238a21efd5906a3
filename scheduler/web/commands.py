"""The operator's orders by way of the API; each is written into the same book as those of the terminal."""

from __future__ import annotations

from datetime import UTC, timedelta

from calendars.event_values import read_model
from scheduler.errors import OperatorError
from scheduler.render.operation import order_words, taken_back_words
from scheduler.store.orders import Order, OrderKind, Orders
from scheduler.web.desk import Desk
from scheduler.web.models import Done, ModelOrder, NodeOrder, OrderGiven

BY = "the operator, on the page"


class Unknown(OperatorError):
    """What an order is about does not exist."""


def give(desk: Desk, kind: OrderKind, order: OrderGiven) -> Done:
    """Keep an order, in place of any about the same thing that it contradicts.

    Raises:
        Unknown: there is no such model or node.
        OperatorError: it cannot be kept.
    """
    now = desk.clock().replace(microsecond=0)
    replicas = order.replicas if isinstance(order, ModelOrder) and kind is OrderKind.PIN else 1
    given = Order(
        kind=kind,
        subject=_subject(desk, order),
        since=now,
        until=None if order.hours is None else now + timedelta(hours=order.hours),
        replicas=replicas,
        by=BY,
        note=" ".join(order.note.split()),
    )
    desk.orders.change(lambda orders: orders.still_of_use(now).with_order(given))
    return Done(words=(order_words(given, now, UTC),))


def take_back(desk: Desk, subject: str, kinds: frozenset[OrderKind]) -> Done:
    """Take orders about something back; says which there were.

    Raises:
        OperatorError: they cannot be read or written.
    """
    now = desk.clock()
    found: list[Order] = []

    def change(orders: Orders) -> Orders:
        useful = orders.still_of_use(now)
        after = useful.without(subject, kinds)
        found.extend(one for one in useful.orders if one not in after.orders)
        return after

    desk.orders.change(change)
    return Done(words=tuple(taken_back_words(one) for one in found))


def _subject(desk: Desk, order: OrderGiven) -> str:
    if isinstance(order, ModelOrder):
        return _known_model(desk, order.model)
    if isinstance(order, NodeOrder):
        return _known_node(desk, order.node)
    return ""


def _known_model(desk: Desk, written: str) -> str:
    name = read_model(written.strip())
    known = {one.lower() for one in desk.models()}
    if name is None or ("/" not in name and known and name.lower() not in known):
        raise Unknown(f"No model is called “{written[:80]}”.", "Write an alias of the catalog, or a repo id.")
    return name


def _known_node(desk: Desk, name: str) -> str:
    view, _ = desk.view()
    nodes = [one.name for one in view.observed.cluster.nodes] if view.observed else []
    if name not in nodes:
        there = ", ".join(nodes[:20]) or "none"
        raise Unknown(f"The cluster has no node “{name}”.", f"Its nodes are: {there}.")
    return name
