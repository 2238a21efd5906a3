"""What the daemon tells other processes about itself: a small file in the state directory, written often."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from calendars.reservation import Frozen, UtcDatetime
from scheduler.store.orders import Order
from scheduler.store.records import Parked

FILE = "daemon.json"


class OnItsWay(Frozen):
    """A model that is being brought up: ``fraction`` of ``step`` is done, where that is known."""

    application: str
    model: str
    node: str
    step: str
    seconds: float
    fraction: float | None = None


class Heartbeat(Frozen):
    """How the daemon is. ``at`` is when it last looked at the cluster; ``problem`` what hinders it.

    ``waits_for`` names the daemon that holds the cluster's lease, where that is another one. ``held`` says
    why a plan waits for a second reading, ``in_use`` which GPUs are in use that should be free. ``stuck``
    has the steps that did not end, and for how long.
    ``lost_records`` counts what could not be written into the history.
    """

    pid: int
    started: UtcDatetime
    at: UtcDatetime
    passes: int = 0
    problem: str = ""
    waits_for: str = ""
    held: str = ""
    pause: Order | None = None
    orders: tuple[Order, ...] = ()
    parked: tuple[Parked, ...] = ()
    away: tuple[str, ...] = ()
    in_use: str = ""
    stuck: dict[str, float] = Field(default_factory=dict)
    on_its_way: tuple[OnItsWay, ...] = ()
    unreadable: dict[str, str] = Field(default_factory=dict)
    lost_records: int = 0


def beat(folder: Path, heartbeat: Heartbeat) -> str:
    """Write it; returns why it could not be, empty where it could."""
    path = folder / FILE
    partial = path.with_suffix(".partial")
    try:
        partial.write_text(heartbeat.model_dump_json(indent=1))
        partial.replace(path)
    except OSError as error:
        return str(error)
    return ""


def last_beat(folder: Path) -> Heartbeat | None:
    """What the daemon of a state directory last said of itself; None where nothing can be understood."""
    try:
        return Heartbeat.model_validate_json((folder / FILE).read_text())
    except (OSError, UnicodeDecodeError, ValidationError):
        return None
