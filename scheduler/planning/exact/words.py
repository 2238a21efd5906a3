"""What a question and its answer are made of; all frozen, all picklable."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from scheduler.planning.book import WHOLE


class OpinionState(StrEnum):
    """What became of a question."""

    FOUND = "found"
    PROVEN = "proven"
    NOT_FOUND = "not found"


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a question may be, which bounds the work of asking and of answering it.

    On a cluster of more than ``nodes`` only so many are looked at. What has not started may move if
    it overlaps the time from ``reach_seconds`` before the window until as long after it; with more
    than ``pieces`` of them, or a model of more than ``terms``, less time around the window is looked at.
    """

    nodes: int = 10
    reach_seconds: float = 86_400.0
    pieces: int = 160
    terms: int = 60_000


@dataclass(frozen=True, slots=True)
class StayName:
    """What tells one stay from another, whatever plan it is in: seconds since the epoch, and events."""

    model: str
    start: float
    end: float
    events: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LaneName:
    """A lane, by what can be found again: the how manieth ``fixed`` one of its node, the lane of the
    stay it is ``beside``, or a ``new`` one that everything with the same number shares.
    """

    fixed: int | None = None
    beside: StayName | None = None
    new: int | None = None


@dataclass(frozen=True, slots=True)
class Option:
    """A room a piece may be in: by its number, and what it takes there.

    ``far``: only if something moved that is too far from the window to be looked at.
    """

    room: int
    units: int
    shared: bool
    far: bool = False

    @property
    def gpus(self) -> float:
        """GPUs it takes, a share below 1 or a whole number."""
        return self.units / WHOLE if self.shared else self.units


@dataclass(frozen=True, slots=True)
class Piece:
    """Something that needs a seat: a stay that may move, or (``asked``) a part of what was refused.

    ``home`` is the room it is in, or next to which it would best be. ``yields``: it is of a lower
    priority than the booking. ``elsewhere``: there are nodes outside the question that could take it.
    """

    stay: StayName
    options: tuple[Option, ...]
    home: int | None = None
    asked: bool = False
    yields: bool = False
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """What is left in a room, from an instant on, for the pieces that overlap there.

    ``gpus`` whole GPUs; ``lanes`` free units by lane, None where it must draw one of the GPUs first.
    ``core``: nothing but what is settled is missing from it.
    """

    instant: float
    core: bool
    pieces: tuple[int, ...]
    gpus: int
    lanes: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Room:
    """A node, and all that must hold on it. ``new_lanes`` may be opened beside the ``lanes``."""

    node: str
    lanes: tuple[LaneName, ...]
    new_lanes: int
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Question:
    """Whether everything in ``pieces`` finds a seat.

    ``complete``: if there is no room even when whatever yields or could be elsewhere is left out, and
    only the ``core`` rows are looked at, then there is none at all. ``hopeless``: that is known
    already; ``full_at`` is the instant at which more is needed than there is, where there is such.
    """

    event: str
    start: float
    end: float
    pieces: tuple[Piece, ...]
    rooms: tuple[Room, ...]
    complete: bool
    hopeless: bool = False
    full_at: float | None = None

    @cached_property
    def digest(self) -> str:
        """The same for the same question, in any process."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Move:
    """Where a stay is to be; ``home`` is the node it is on, None for what has no seat yet."""

    stay: StayName
    node: str
    lane: LaneName | None = None
    home: str | None = None


@dataclass(frozen=True, slots=True)
class Opinion:
    """What is known of a question, by its ``digest``.

    ``moves`` are stays that move, and those that share a device anew where others come; ``seats`` is
    where the booking goes. ``seconds`` is how long the solver was allowed to look.
    """

    event: str
    digest: str
    state: OpinionState
    seconds: float = 0.0
    full_at: float | None = None
    moves: tuple[Move, ...] = ()
    seats: tuple[Move, ...] = field(default=())
