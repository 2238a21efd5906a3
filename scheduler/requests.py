"""What other services ask for through the ``Controller`` actor, made into the operator's kind of orders."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta

from loguru import logger

from calendars.reservation import MODEL_CLASS
from scheduler.errors import OperatorError
from scheduler.front import Request
from scheduler.settings_loop import ControllerSettings
from scheduler.store.orders import Order, OrderBook, OrderKind, Orders

KINDS = {"deploy": OrderKind.PIN, "evict": OrderKind.EVICT}


def ordered(requests: Iterable[Request], book: OrderBook, settings: ControllerSettings, at: datetime) -> None:
    """Keep what was asked for: ``deploy`` pins a model, ``evict`` takes it down though it may be booked.

    Both hold for the shortest deployment's time, or until the other is asked for.
    """
    until = at + timedelta(seconds=settings.minimum_deployment_seconds)
    for request in requests:
        names = [name for key in request.model_keys if (name := model_name(key))]
        try:
            book.change(lambda orders, r=request, n=names: _changed(orders, r, n, at, until))  # type: ignore[misc]
        except OperatorError as problem:
            logger.error("{} {}", problem.reason, problem.remedy)


def _changed(orders: Orders, request: Request, names: Iterable[str], at: datetime, until: datetime) -> Orders:
    for name in names:
        if kind := KINDS.get(request.verb):
            order = Order(kind=kind, subject=name, since=at, until=until, by=request.by)
            orders = orders.with_order(order)
    return orders.still_of_use(at)


def model_name(key: str) -> str | None:
    """The repo id in a model key, or a plain name; None for what is neither."""
    kind, colon, data = key.partition(":")
    if not colon:
        return key or None
    try:
        found = json.loads(data)
    except ValueError:
        return None
    repo_id = found.get("repo_id") if isinstance(found, dict) and kind == MODEL_CLASS else None
    return repo_id if isinstance(repo_id, str) else None
