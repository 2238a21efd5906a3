"""Which bookings of a model can share a replica, and which replicas can be on one node.

The replicas of a model on a node are one application, in which all take the same. So what is held of a model
on a node at one time is alike, and where bookings that share it ask for different things the stronger claim
decides.
"""

from __future__ import annotations

from collections.abc import Iterable

from scheduler.cluster.node import Node
from scheduler.planning.asked import Asked
from scheduler.planning.book import Book, Seat
from scheduler.planning.holds import Ask, Hold, alike, shared
from scheduler.planning.needs import Need, units_on


class Sharing(Asked):
    """A ledger that knows what can be shared.

    ``running`` is what each replica of a model that runs on a node takes, by the model's key and the node's
    number.
    """

    def __init__(self, book: Book, at: float = 0.0) -> None:
        super().__init__(book, at)
        self.running: dict[tuple[str, int], Need] = {}

    def decided(self, hold: Hold, ask: Ask) -> Need | None:
        """What a replica takes that serves a booking, too: as the strongest claim asks, if both can be.

        Nobody shares one that takes fewer GPUs than insisted on.
        """
        need, node = self._decided(hold, ask), self.book.nodes[hold.seat.node]
        if need is None or not _is_enough(node, need, (ask.need, *self.needs_of(hold.keys))):
            return None
        return need

    def is_enough(self, node: int, need: Need, asks: Iterable[Ask]) -> bool:
        """Whether a replica takes as many GPUs on a node as bookings insist on."""
        return _is_enough(self.book.nodes[node], need, (ask.need for ask in asks))

    def _decided(self, hold: Hold, ask: Ask) -> Need | None:
        """What runs is left as it is, unless the newcomer has a higher priority."""
        theirs, its, node = hold.need, ask.need, self.book.nodes[hold.seat.node]
        if theirs == its:
            return theirs
        if theirs.accelerator and its.accelerator and theirs.accelerator != its.accelerator:
            return None
        if hold.start >= ask.end or hold.end <= ask.start:
            # One after the other: each gets what it asks for.
            return theirs if alike(node, theirs, its) else None
        if not any(self.asks[key].claim <= ask.claim for key in hold.keys):
            runs = self.running.get((hold.model, hold.seat.node)) if hold.start <= self.at else None
            keeps = runs is not None and ask.priority <= hold.priority and alike(node, theirs, runs)
            if alike(node, theirs, its) or not keeps:
                return shared((its, theirs))
        return shared((theirs, its))

    def suits(self, hold: Hold, ask: Ask) -> bool:
        """Whether a booking can be served by a hold as it is."""
        if ask.need == hold.need:
            return True
        need, node = self.decided(hold, ask), self.book.nodes[hold.seat.node]
        return need is not None and alike(node, need, hold.need) and self.could_be(hold.seat.node, ask.need)

    def could_be(self, node: int, need: Need) -> bool:
        """Whether a node would have room for a replica if nothing was there."""
        whole, share = units_on(self.book.nodes[node], need)
        return share > 0 or 0 < whole <= len(self.book.nodes[node].devices)

    def agrees(self, hold: Hold, on: int | None = None) -> bool:
        """Whether something may be on a node, for what else is held there of its model in its window.

        That must take as much. And nobody shares on a node what would never be there for that one alone.
        """
        number = hold.seat.node if on is None else on
        for need in self.needs_of(hold.keys):
            if need is not hold.need and need != hold.need and not self.could_be(number, need):
                return False
        return all(
            alike(self.book.nodes[number], hold.need, other.need)
            for other in self.beside(hold.model, hold.start, hold.end)
            if other.seat.node == number
            and other.start < hold.end
            and other.end > hold.start
            and other.number != hold.number
        )

    def find(
        self, hold: Hold, start: float, near: Iterable[int] = (), end: float | None = None
    ) -> Seat | None:
        """The best seat for something where it may be.

        Args:
            start: from when on it must be free, and until which ``end``, if that is later than the hold's.
        """
        book, need, near = self.book, hold.need, list(near)
        end = hold.end if end is None else end
        seat = book.find(need, start, end, near)
        if seat is None or self.agrees(hold, seat.node):
            return seat
        nodes = (node for node in (*near, *book.nearly(need, start, end)) if book.open[node])
        rooms = (book.room_on(node, need, start, end) for node in nodes if self.agrees(hold, node))
        return next((room for room in rooms if room is not None), None)


def _is_enough(node: Node, need: Need, asked: Iterable[Need]) -> bool:
    insisted = max((one.gpus or 0 for one in asked), default=0)
    return not insisted or units_on(node, need)[0] >= insisted
