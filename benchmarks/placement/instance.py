"""What is to be placed: nodes, bookings, and what a policy answers.

Bookings are arrays with one entry each; time is in quarter-hours since the beginning, windows are
half-open. What a booking takes on a node follows the product's rule (`scheduler.planning.footprint`):
a share of one GPU by memory if the model fits in it and no whole GPUs are asked for, else whole GPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SLOT_SECONDS = 900
SLOTS_PER_HOUR = 4
REFUSED = -1
WHOLE = -1


class Setting(StrEnum):
    """What a policy knows, and when it must answer.

    *Free*: all bookings are known at once, and as much weight as possible is to be placed. *Promised*:
    they come in the order in which they were booked, each is answered at once, and no answer is taken back.
    """

    FREE = "free"
    PROMISED = "promised"


@dataclass(frozen=True, slots=True)
class NodeClass:
    """Nodes that are alike: so many GPUs of one kind."""

    accelerator: str
    gpus: int
    gpu_bytes: int


@dataclass(frozen=True, eq=False)
class Instance:
    """Nodes, and bookings for them.

    ``node_class`` indexes ``classes``, one entry a node. One entry a booking: ``start`` and ``end`` in
    slots; ``footprint`` in bytes; ``asked`` whole GPUs, 0 where none are asked for; ``accelerator``
    the only kind of GPU that will do, "" for any; ``priority`` above 0; ``booked`` in seconds since
    the beginning, below 0 before it.
    """

    name: str
    slots: int
    classes: tuple[NodeClass, ...]
    node_class: Ints
    start: Ints
    end: Ints
    footprint: Ints
    asked: Ints
    accelerator: tuple[str, ...]
    priority: Ints
    booked: Floats
    offered_load: float = 0.0

    def __len__(self) -> int:
        return len(self.start)

    @property
    def nodes(self) -> int:
        """How many there are."""
        return len(self.node_class)

    @cached_property
    def node_gpus(self) -> Ints:
        """GPUs of each node."""
        return np.array([one.gpus for one in self.classes], dtype=np.int64)[self.node_class]

    @cached_property
    def node_gpu_bytes(self) -> Ints:
        """Memory of one GPU, by node."""
        return np.array([one.gpu_bytes for one in self.classes], dtype=np.int64)[self.node_class]

    @cached_property
    def shared(self) -> Bools:
        """Whether a booking takes a share of one GPU: bookings by classes."""
        columns = [
            (self.asked == 0) & (self.footprint < one.gpu_bytes) & self._kind_will_do(one)
            for one in self.classes
        ]
        return np.stack(columns, axis=1)

    @cached_property
    def whole(self) -> Ints:
        """Whole GPUs a booking takes: bookings by classes; 0 where it shares one, or cannot be."""
        taken = np.zeros((len(self), len(self.classes)), dtype=np.int64)
        for number, one in enumerate(self.classes):
            gpus = np.maximum(np.maximum(self.asked, 1), -(-self.footprint // one.gpu_bytes))
            taken[:, number] = np.where(self._kind_will_do(one) & (gpus <= one.gpus), gpus, 0)
        taken[self.shared] = 0
        return taken

    @cached_property
    def fraction(self) -> Floats:
        """GPUs a booking takes, a share below 1: bookings by classes; 0 where it cannot be."""
        memory = np.array([one.gpu_bytes for one in self.classes], dtype=np.float64)
        return np.where(self.shared, self.footprint[:, None] / memory, self.whole.astype(np.float64))

    @cached_property
    def gpu_hours(self) -> Floats:
        """GPUs times hours, wherever it is placed: those asked for, else its part of an average GPU."""
        part = self.footprint / (self.node_gpus * self.node_gpu_bytes).sum() * self.node_gpus.sum()
        gpus: Floats = np.where(self.asked > 0, self.asked.astype(np.float64), part)
        return gpus * (self.end - self.start) / SLOTS_PER_HOUR

    @cached_property
    def weight(self) -> Floats:
        """Priority times GPU-hours: what is to be placed as much of as possible."""
        return self.priority * self.gpu_hours

    def only(self, which: Ints, offered_load: float) -> Instance:
        """The same nodes with some of the bookings."""
        return replace(
            self,
            start=self.start[which],
            end=self.end[which],
            footprint=self.footprint[which],
            asked=self.asked[which],
            accelerator=tuple(self.accelerator[number] for number in which.tolist()),
            priority=self.priority[which],
            booked=self.booked[which],
            offered_load=offered_load,
        )

    def _kind_will_do(self, one: NodeClass) -> Bools:
        return np.array([name in ("", one.accelerator) for name in self.accelerator], dtype=np.bool_)


@dataclass(eq=False)
class Result:
    """Where a policy put each booking.

    ``node`` is ``REFUSED`` where it was. ``lane`` is ``WHOLE`` for whole GPUs, which are counted and not
    named: as many as the booking takes there. Bookings that share a GPU name the same lane of a node, any
    number from 0; a lane draws one GPU of its node while anything is on it.

    ``decided_at_start``: nothing could be loaded ahead. ``verdict_seconds`` is the processor time of
    each answer, in the order of booking; ``moves`` counts running bookings that were moved,
    ``withdrawn`` promises not kept. ``figures`` are others, by their names.
    """

    node: Ints
    lane: Ints
    decided_at_start: bool = False
    verdict_seconds: Floats | None = None
    moves: int = 0
    withdrawn: int = 0
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def placed(self) -> Bools:
        """Which bookings have a place."""
        placed: Bools = self.node != REFUSED
        return placed


Policy = Callable[[Instance, Setting], Result]


def nothing_placed(instance: Instance) -> Result:
    """Every booking refused, to be filled in."""
    return Result(
        node=np.full(len(instance), REFUSED, dtype=np.int64),
        lane=np.full(len(instance), WHOLE, dtype=np.int64),
    )
