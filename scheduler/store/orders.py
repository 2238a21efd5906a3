"""What the operator wants until told otherwise: pause, pin, evict, cordon, drain.

Kept in a small file of their own and not in the history, which may be deleted: a hand brake must not
come off because a database was damaged. Written by the commands and by the ``Controller`` actor's front,
read by every pass of the daemon.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from calendars.reservation import Frozen, UtcDatetime
from scheduler.errors import OperatorError

FILE = "orders.json"
LOCK_SECONDS = 5.0


class OrderKind(StrEnum):
    """What can be ordered."""

    PAUSE = "pause"  # nothing is changed at all
    PIN = "pin"  # a model serves as if it were booked
    EVICT = "evict"  # a model does not serve though it is booked
    CORDON = "cordon"  # a node takes nothing new
    DRAIN = "drain"  # a node takes nothing new, and what is there moves


class Order(Frozen):
    """One order, from ``since`` on, until ``until`` or until it is taken back.

    ``subject`` is a model's name, a node's name, or empty for a pause. ``by`` says who gave it and
    ``note`` why, in their own words.
    """

    kind: OrderKind
    subject: str = ""
    since: UtcDatetime
    until: UtcDatetime | None = None
    replicas: int = Field(default=1, ge=1)
    by: str = ""
    note: str = ""

    @property
    def key(self) -> str:
        """Names it in plans and in the history."""
        return f"{self.kind}-{self.subject}-{self.since:%Y%m%dT%H%M%S}".replace("/", "-")

    def holds(self, at: datetime) -> bool:
        """Whether it is in force at an instant."""
        return self.since <= at and (self.until is None or at < self.until)


class Orders(Frozen):
    """Every order that was given and not taken back, those that have run out included."""

    orders: tuple[Order, ...] = ()

    def of(self, kind: OrderKind, at: datetime) -> tuple[Order, ...]:
        """Those of a kind that hold at an instant."""
        return tuple(one for one in self.orders if one.kind is kind and one.holds(at))

    def paused(self, at: datetime) -> Order | None:
        """The pause that holds, if one does."""
        return next(iter(self.of(OrderKind.PAUSE, at)), None)

    def on(self, kind: OrderKind, subject: str, at: datetime) -> Order | None:
        """The order of a kind about a model or a node that holds, if one does; case does not matter."""
        wanted = subject.lower()
        return next((one for one in self.of(kind, at) if one.subject.lower() == wanted), None)

    def with_order(self, order: Order) -> Orders:
        """The same with one more, in place of any about the same thing that it contradicts."""
        return Orders(orders=(*self.without(order.subject, CONTRADICTS[order.kind]).orders, order))

    def without(self, subject: str, kinds: frozenset[OrderKind]) -> Orders:
        """The same without the orders of these kinds about a model or a node."""
        wanted = subject.lower()
        kept = (one for one in self.orders if one.kind not in kinds or one.subject.lower() != wanted)
        return Orders(orders=tuple(kept))

    def still_of_use(self, at: datetime) -> Orders:
        """The same without those that have run out."""
        return Orders(orders=tuple(one for one in self.orders if one.until is None or one.until > at))

    @property
    def boundaries(self) -> tuple[datetime, ...]:
        """When orders run out."""
        return tuple(one.until for one in self.orders if one.until is not None)


ON_MODELS = frozenset({OrderKind.PIN, OrderKind.EVICT})
ON_NODES = frozenset({OrderKind.CORDON, OrderKind.DRAIN})
CONTRADICTS = {
    OrderKind.PAUSE: frozenset({OrderKind.PAUSE}),
    OrderKind.PIN: ON_MODELS,
    OrderKind.EVICT: ON_MODELS,
    OrderKind.CORDON: ON_NODES,
    OrderKind.DRAIN: ON_NODES,
}


class OrderBook:
    """The orders of a state directory, shared by all its processes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def read(self) -> Orders:
        """What is ordered; nothing where there is no file.

        Raises:
            OperatorError: the file cannot be read or understood, so what is ordered is not known.
        """
        try:
            return Orders.model_validate_json(self.path.read_text())
        except FileNotFoundError:
            return Orders()
        except (OSError, UnicodeDecodeError, ValidationError) as error:
            first = str(error).splitlines()[0]
            raise OperatorError(
                f"The operator's orders in {self.path} cannot be read ({first}).",
                "Correct the file, or delete it and give the orders again. Until then nothing is changed.",
            ) from error

    def change(self, change: Callable[[Orders], Orders]) -> Orders:
        """Replace the orders by what ``change`` makes of them; returns that.

        Raises:
            OperatorError: they cannot be read or written; they are as they were.
        """
        with self._locked():
            after = change(self.read())
            self._write(after)
        return after

    @property
    def changed_at(self) -> int:
        """Differs after every change."""
        try:
            return self.path.stat().st_mtime_ns
        except OSError:
            return 0

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_suffix(".lock"), timeout=LOCK_SECONDS):
                yield
        except Timeout as error:
            raise OperatorError(
                f"Another process holds {self.path} for more than {LOCK_SECONDS:.0f} s.", "Try again."
            ) from error
        except OSError as error:
            raise OperatorError(
                f"The order cannot be written to {self.path} ({error}).",
                "Nothing was changed. Make room, or correct the folder's permissions.",
            ) from error

    def _write(self, orders: Orders) -> None:
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{FILE}.")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(orders.model_dump_json(indent=1))
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
