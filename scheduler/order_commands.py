"""The operator's orders from a terminal: pause, resume, pin, evict, release, and those about nodes."""

from __future__ import annotations

import getpass
import socket
from datetime import UTC, datetime

import click
from rich.console import Console

from calendars.reservation import ModelRequest, Reservation
from scheduler.catalog import load_catalog
from scheduler.cluster.dashboard import ClusterUnavailable, Dashboard
from scheduler.cluster.observe import cluster_from
from scheduler.errors import OperatorError
from scheduler.moments import parse_moment
from scheduler.planning.targets import Refused, identify
from scheduler.render.operation import order_words, taken_back_words
from scheduler.render.plain import escape
from scheduler.render.sentences import sentence, stopped
from scheduler.settings import Settings, load_settings
from scheduler.store.orders import ON_MODELS, ON_NODES, Order, OrderBook, OrderKind, Orders

DEFAULT_EVICTION = "1h"
HOUR_AHEAD = "+1h"

out = Console(highlight=False, soft_wrap=True)
for_option = click.option("--for", "duration", metavar="TIME", help="How long: 90m, 2h, 3d.")
note_option = click.option("--note", default="", metavar="WORDS", help="Why; shown wherever it is seen.")


@click.command()
@for_option
@note_option
def pause(duration: str | None, note: str) -> None:
    """Change nothing any more, whatever is booked, until resume. What serves keeps serving."""
    _give(OrderKind.PAUSE, "", duration, note)


@click.command()
def resume() -> None:
    """Take the pause back."""
    _take_back("", frozenset({OrderKind.PAUSE}), "It was not paused.")


@click.command()
@click.argument("model")
@click.option("--for", "duration", metavar="TIME", required=True, help="How long: 90m, 2h, 3d.")
@click.option("--replicas", type=click.IntRange(1, 64), default=1, show_default=True)
@note_option
def pin(model: str, duration: str, replicas: int, note: str) -> None:
    """Have MODEL serve from now on as if it were booked. A booking by hand; plan shows what comes of it."""
    _require_known(load_settings(), model)
    _give(OrderKind.PIN, model, duration, note, replicas)


@click.command()
@click.argument("model")
@click.option("--for", "duration", metavar="TIME", default=DEFAULT_EVICTION, show_default=True)
@note_option
def evict(model: str, duration: str, note: str) -> None:
    """Take MODEL down though it is booked, and keep it down for a while. Its bookings are told."""
    _give(OrderKind.EVICT, model, duration, note)


@click.command()
@click.argument("model")
def release(model: str) -> None:
    """Take a pin or an eviction of MODEL back."""
    _take_back(model, ON_MODELS, f"{model} was neither pinned nor evicted.")


@click.group()
def node() -> None:
    """Nodes that shall take nothing new."""


@node.command()
@click.argument("name")
@for_option
@note_option
def cordon(name: str, duration: str | None, note: str) -> None:
    """Place nothing new on node NAME. What runs there stays until its bookings end."""
    _require_node(load_settings(), name)
    _give(OrderKind.CORDON, name, duration, note)


@node.command()
@click.argument("name")
@for_option
@note_option
def drain(name: str, duration: str | None, note: str) -> None:
    """Place nothing new on node NAME, and move what runs there elsewhere."""
    _require_node(load_settings(), name)
    _give(OrderKind.DRAIN, name, duration, note)


@node.command()
@click.argument("name")
def uncordon(name: str) -> None:
    """Let node NAME take models again."""
    _take_back(name, ON_NODES, f"{name} was neither cordoned nor drained.")


COMMANDS = (pause, resume, pin, evict, release, node)


def _give(kind: OrderKind, subject: str, duration: str | None, note: str, replicas: int = 1) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    until = parse_moment(f"+{duration.lstrip('+')}", now) if duration else None
    order = Order(kind=kind, subject=subject, since=now, until=until, replicas=replicas, by=_who(), note=note)
    _book().change(lambda orders: orders.still_of_use(now).with_order(order))
    out.print(escape(order_words(order, now)))


def _take_back(subject: str, kinds: frozenset[OrderKind], nothing: str) -> None:
    now = datetime.now(UTC)
    found: list[Order] = []

    def change(orders: Orders) -> Orders:
        after = orders.still_of_use(now).without(subject, kinds)
        found.extend(one for one in orders.orders if one not in after.orders and one.kind in kinds)
        return after

    _book().change(change)
    if not found:
        raise OperatorError(nothing, "Nothing was changed.")
    for one in found:
        out.print(escape(taken_back_words(one)))


def _book() -> OrderBook:
    settings = load_settings()
    return OrderBook(settings.path(settings.state_dir))


def _who() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):
        return socket.gethostname()


def _require_known(settings: Settings, model: str) -> None:
    """Make sure that a model can be pinned.

    Raises:
        OperatorError: no such model is known.
    """
    catalog = load_catalog(settings.path(settings.models.catalog))
    now = datetime.now(UTC)
    asked = Reservation(
        key="pin",
        calendar="operator",
        title=model,
        start=now,
        end=parse_moment(HOUR_AHEAD, now),
        booked_at=now,
        owner=None,
        request=ModelRequest(model=model),
    )
    open_to_all = tuple(one.model_copy(update={"bookable_by": ()}) for one in catalog.entries)
    found = identify(asked, catalog.model_copy(update={"entries": open_to_all}))
    if isinstance(found, Refused):
        said = sentence(found.reason)
        raise OperatorError(
            stopped(f"{said[0].upper()}{said[1:]}"), found.reason.remedy or "Name another model."
        )


def _require_node(settings: Settings, name: str) -> None:
    """Make sure that a node is not misspelt; where Ray cannot be asked, the name is believed.

    Raises:
        OperatorError: the cluster has no such node.
    """
    dashboard = Dashboard(settings.ray.dashboard, settings.token_file, settings.ray.timeout_seconds)
    try:
        cluster = cluster_from(dashboard.nodes(), (), settings.planning, ())
    except ClusterUnavailable as problem:
        out.print(f"[yellow]{escape(problem.reason)}[/] The name is taken as it is.")
        return
    finally:
        dashboard.close()
    if cluster.named(name) is None:
        names = ", ".join(one.name for one in cluster.nodes) or "none"
        raise OperatorError(f"The cluster has no node “{name}”.", f"Its nodes are: {names}.")
