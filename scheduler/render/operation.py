"""How the daemon is and what the operator ordered, in words."""

from __future__ import annotations

from datetime import datetime, tzinfo

from rich.console import Console

from scheduler.heartbeat import Heartbeat, OnItsWay
from scheduler.render.plain import escape
from scheduler.render.sentences import moment
from scheduler.store.orders import Order, OrderKind
from scheduler.store.records import Parked

ORDERED = {
    OrderKind.PAUSE: "Paused: nothing is changed",
    OrderKind.PIN: "{} is pinned",
    OrderKind.EVICT: "{} is taken down",
    OrderKind.CORDON: "{} takes nothing new",
    OrderKind.DRAIN: "{} takes nothing new, and is emptied",
}
TAKEN_BACK = {
    OrderKind.PAUSE: "No longer paused: what is booked is carried out again",
    OrderKind.PIN: "{} is no longer pinned, and serves only while it is booked",
    OrderKind.EVICT: "{} is no longer kept down, and serves again while it is booked",
    OrderKind.CORDON: "{} takes models again",
    OrderKind.DRAIN: "{} is no longer emptied, and takes models again",
}
BAR = 20


def order_words(order: Order, at: datetime, zone: tzinfo | None = None) -> str:
    """One order in a sentence."""
    until = f" until {moment(order.until, at, zone)}" if order.until else " until it is taken back"
    by = f" ({_ordered_by(order, 'by')})" if order.by or order.note else ""
    return f"{ORDERED[order.kind].format(order.subject)}{until}{by}."


def taken_back_words(order: Order) -> str:
    """What holds instead of an order that was taken back, in a sentence."""
    by = f" ({_ordered_by(order, 'it was ordered by')})" if order.by else ""
    return f"{TAKEN_BACK[order.kind].format(order.subject)}{by}."


def _ordered_by(order: Order, lead: str) -> str:
    who = f"{lead} {order.by}" if order.by else ""
    return ": ".join(filter(None, (who, order.note)))


def parked_words(parked: Parked, name: str, at: datetime, zone: tzinfo | None = None) -> str:
    """A model that is left alone, in a sentence."""
    lines = [line.strip() for line in parked.error.strip().splitlines() if line.strip()]
    times = "once" if parked.tries == 1 else f"{parked.tries} times"
    return (
        f"{name} failed to load {times} ({lines[-1] if lines else 'no reason given'}); "
        f"tried again at {moment(parked.retry_at, at, zone)}."
    )


def show_orders(console: Console, orders: tuple[Order, ...], at: datetime) -> None:
    """Print the orders that hold; nothing where there are none."""
    for order in orders:
        style = "bold yellow" if order.kind is OrderKind.PAUSE else "yellow"
        console.print(f"[{style}]{escape(order_words(order, at))}[/]")


def show_heartbeat(console: Console, beat: Heartbeat, at: datetime) -> None:
    """Print what keeps the daemon from doing what is planned, and what it is doing."""
    for words in (beat.problem, beat.held, beat.in_use):
        if words:
            console.print(f"[yellow]! {escape(words)}[/]")
    if beat.waits_for:
        console.print(f"[yellow]! Waiting for {escape(beat.waits_for)}, which works on this cluster.[/]")
    for name, seconds in beat.stuck.items():
        console.print(f"[red]! {escape(name)} is stuck[/], for {seconds:.0f} s")
    for one in beat.away:
        console.print(f"[yellow]! node {escape(one)} is gone[/]; it is waited for")
    for parked in beat.parked:
        console.print(f"[yellow]! {escape(parked_words(parked, _name(parked.model_key), at))}[/]")
    for application, why in beat.unreadable.items():
        console.print(f"[yellow]! {escape(application)} cannot be read[/]: {escape(why)}")
    if beat.lost_records:
        console.print(f"[yellow]! {beat.lost_records} records of the history could not be written[/]")
    for coming in beat.on_its_way:
        console.print(f"  {escape(on_its_way_words(coming))}")


def on_its_way_words(one: OnItsWay) -> str:
    """How far a model is."""
    done = ""
    if one.fraction is not None:
        filled = round(one.fraction * BAR)
        done = f" {'█' * filled}{'░' * (BAR - filled)} {one.fraction:.0%}"
    return f"{one.model} on {one.node}: {one.step}{done}, for {one.seconds:.0f} s"


def _name(model_key: str) -> str:
    """The repo id in a model key."""
    _, _, rest = model_key.partition('"repo_id": "')
    return rest.partition('"')[0] or model_key
