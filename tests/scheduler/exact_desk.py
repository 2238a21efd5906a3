"""What tests of second opinions need: bookings in hours, stays where a test wants them, and checks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from scheduler.cluster.node import Cluster, Node
from scheduler.planning.admission import Admission
from scheduler.planning.book import WHOLE, Book
from scheduler.planning.holds import Ask, Hold
from scheduler.planning.needs import Need
from tests.scheduler.builders import GIB, cluster, gpus

SECONDS = 20.0
HOUR = 3600.0


def at(hour: float) -> float:
    return (24 + hour) * HOUR


def booked(
    name: str,
    gib: float,
    start: float,
    end: float,
    *,
    gpus: int | None = 1,
    replicas: int = 1,
    priority: int = 0,
    model: str | None = None,
) -> Ask:
    """A booking; times in hours."""
    need = Need(int(gib * GIB), gpus)
    return Ask(name, model or name, need, replicas, at(start), at(end), priority=priority)


def admission(*nodes: Node, now: float = -1.0) -> Admission:
    """One that moves nothing by itself: what the solver finds here is the solver's."""
    made = Admission(Book(cluster(*nodes)), at(now))
    made.moves_left = 0
    return made


def kept(there: Admission, ask: Ask, node: str, *, settled: bool = False) -> None:
    """What was promised before, on a node."""
    there.asks[ask.key] = ask
    seat = there.book.room_on(there.book.index[node], ask.need, ask.start, ask.end)
    assert seat is not None
    own = frozenset({ask.key})
    there.put(Hold(-1, ask.model, ask.need, seat, ask.start, ask.end, own, ask.priority, settled))
    there.keep()


def places(there: Admission) -> dict[str, str]:
    """The node of each stay, by model."""
    return {hold.model: there.book.nodes[hold.seat.node].name for hold in there.holds.values()}


def chain() -> tuple[Admission, Ask]:
    """What has to move can only move if what is there moves, too."""
    there = admission(gpus("large", 1, 80), gpus("middle", 1, 40), gpus("small", 1, 24))
    kept(there, booked("a", 35, 0, 4), "large")
    kept(there, booked("b", 20, 0, 4), "middle")
    return there, booked("c", 70, 1, 3)


def instants(holds: Iterable[Hold]) -> list[float]:
    return sorted({hold.start for hold in holds})


def overbooked(nodes: Iterable[Node], holds: Iterable[Hold]) -> bool:
    """Whether at some instant a node has more on it than it has."""
    held = list(holds)
    for instant in instants(held):
        for number, node in enumerate(nodes):
            there = [h for h in held if h.seat.node == number and h.start <= instant < h.end]
            lanes: dict[int, int] = {}
            for hold in there:
                if hold.seat.lane is not None:
                    lanes[hold.seat.lane] = lanes.get(hold.seat.lane, 0) + hold.seat.units
            whole = sum(hold.seat.units for hold in there if hold.seat.lane is None)
            if any(units > WHOLE for units in lanes.values()) or whole + len(lanes) > len(node.devices):
                return True
    return False


def assert_kept(there: Admission, before: Iterable[Hold]) -> None:
    """Nothing is overbooked, what had started stands where it stood, and nothing is lost."""
    now = list(there.holds.values())
    assert not overbooked(there.book.nodes, now)
    assert as_booked(there)
    for old in before:
        same = [hold for hold in now if hold.model == old.model and old.keys <= hold.keys]
        assert any(hold.start <= old.start and hold.end >= old.end for hold in same)
        if old.settled:
            assert any(hold.seat == old.seat and hold.settled for hold in same)


def as_booked(there: Admission) -> bool:
    """Whether the book says what the holds do."""
    book = there.book
    again = Book(Cluster(nodes=book.nodes), book.edges, book.at)
    for lane in range(book.fixed, book.lane_count):
        again.lanes_of.setdefault(int(book._lane_node[lane]), []).append(lane)
    again.lanes.widen(np.full(book.lanes.columns - book.fixed, WHOLE, dtype=np.int32))
    again._lane_node, again.lane_count = book._lane_node, book.lane_count
    for hold in there.holds.values():
        again.take(hold.seat, hold.start, hold.end)
    return all(
        np.array_equal(mine.rows(0), theirs.rows(0))
        for mine, theirs in ((book.pool, again.pool), (book.lanes, again.lanes))
    )
