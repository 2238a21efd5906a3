"""What was promised before and what runs already, put into the book before anything else.

A promise stays where it was; what runs stays where it is. Where both are known they agree, but for a
plan that was never carried out, a history that was lost, or a node that is gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scheduler.cluster.node import Node
from scheduler.planning.admission import Admission, Ask, union
from scheduler.planning.book import Need, units_on
from scheduler.planning.footprint import SHARE_STEPS
from scheduler.types import Deployment, Stay


@dataclass(frozen=True)
class _Part:
    """What is left of an earlier stay: a window in which some of its bookings are still wanted."""

    model: str
    node: str
    start: float
    end: float
    asks: tuple[Ask, ...]

    @property
    def order(self) -> tuple[object, ...]:
        return (min(ask.claim for ask in self.asks), self.start, self.node)


def restore(
    admission: Admission,
    asks: Iterable[Ask],
    stays: Iterable[Stay],
    deployments: Iterable[Deployment],
    kept_until: Mapping[tuple[str, str], float],
) -> None:
    """Hold again what was promised and what runs, the strongest claim first, what has begun before all.

    Args:
        asks: all bookings there are now; promises to others are forgotten.
        kept_until: by model key and node, until when what runs may not be displaced.
    """
    admission.asks |= {ask.key: ask for ask in asks}
    running = _Running(admission, deployments)
    parts = [part for stay in stays for part in _parts(stay, admission)]
    begun = sorted((part for part in parts if part.start <= admission.at), key=lambda part: part.order)
    later = sorted((part for part in parts if part.start > admission.at), key=lambda part: part.order)
    for part, node in _where_they_run(begun, running.left):
        _hold(admission, part, node, running, kept_until)
    for part in [part for part in later if running.left[part.model, part.node] > 0]:
        _hold(admission, part, part.node, running, kept_until)
        later.remove(part)
    # Without a history, what runs tells where it was promised to be.
    asks_of: dict[str, list[Ask]] = {}
    for ask in sorted(admission.asks.values(), key=lambda ask: ask.claim):
        asks_of.setdefault(ask.model, []).append(ask)
    left_over = [(model, node) for model, node in running.left if model in asks_of]
    for model, node in sorted(left_over, key=lambda one: (asks_of[one[0]][0].claim, one)):
        for _ in range(running.left[model, node]):
            if not _adopt(admission, asks_of[model], node, running, kept_until):
                break
    for part in later:
        _hold(admission, part, part.node, running, kept_until)


class _Running:
    """Replicas that run, by model key and node: how many are not accounted for, and what each takes."""

    def __init__(self, admission: Admission, deployments: Iterable[Deployment]) -> None:
        nodes, index = admission.book.nodes, admission.book.index
        deployments = tuple(deployments)
        self.left = Counter({one.identity: one.replicas for one in deployments})
        self.takes: dict[tuple[str, str], tuple[int, int]] = {}
        for one in deployments:
            if one.node in index and nodes[index[one.node]].devices:
                self.takes[one.identity] = _units(one, nodes[index[one.node]])


def _units(one: Deployment, node: Node) -> tuple[int, int]:
    """What a replica takes of its node: whole GPUs, or ten-thousandths of one device."""
    if one.num_gpus >= 1:
        return round(one.num_gpus), 0
    if one.num_gpus:
        return 0, round(one.num_gpus * SHARE_STEPS)
    return units_on(node, Need(one.memory_bytes))


def _parts(stay: Stay, admission: Admission) -> Iterable[_Part]:
    asks = [
        ask for key in stay.events if (ask := admission.asks.get(key)) is not None and ask.model == stay.model
    ]
    first, last = max(stay.start.timestamp(), admission.at), stay.end.timestamp()
    windows = [(max(ask.start, first), min(ask.end, last)) for ask in asks]
    for start, end in union([window for window in windows if window[0] < window[1]]):
        within = tuple(ask for ask in asks if ask.start < end and ask.end > start)
        yield _Part(stay.model, stay.node, start, end, within)


def _where_they_run(parts: list[_Part], running: Counter[tuple[str, str]]) -> list[tuple[_Part, str]]:
    """What has begun, with the node it really runs on: its own, else one no other stay accounts for."""
    spare = running.copy()
    at_home = []
    for part in parts:
        at_home.append(spare[part.model, part.node] > 0)
        if at_home[-1]:
            spare[part.model, part.node] -= 1
    placed = []
    for part, home in zip(parts, at_home, strict=True):
        elsewhere = sorted(node for (model, node), left in spare.items() if model == part.model and left > 0)
        node = part.node if home or not elsewhere else elsewhere[0]
        if node != part.node:
            spare[part.model, node] -= 1
        placed.append((part, node))
    return placed


def _hold(
    admission: Admission,
    part: _Part,
    name: str,
    running: _Running,
    kept_until: Mapping[tuple[str, str], float],
) -> bool:
    """Hold a part of a stay on a node, if the node takes it still."""
    number = admission.book.index.get(name)
    runs = running.left[part.model, name] > 0
    if number is None or not _may_stay(admission, number, part.start, runs):
        return False
    node, asks = admission.book.nodes[number], part.asks
    end = part.end
    if node.cordoned:
        # Its next use is elsewhere.
        asks = tuple(ask for ask in asks if ask.start <= admission.at)
        end = min(end, max((ask.end for ask in asks), default=part.start))
    if not asks or part.start >= end:
        return False
    held = admission.restore(
        part.model,
        tuple(ask.need for ask in sorted(asks, key=lambda ask: ask.claim)),
        number,
        (ask.key for ask in asks),
        part.start,
        end,
        runs=runs,
        as_it_is=running.takes.get((part.model, name)),
        kept_until=kept_until.get((part.model, name), 0.0),
    )
    if held and runs:
        running.left[part.model, name] -= 1
    return held


def _may_stay(admission: Admission, number: int, start: float, runs: bool) -> bool:
    node = admission.book.nodes[number]
    if node.draining:
        return False
    return not node.cordoned or (runs and start <= admission.at)


def _adopt(
    admission: Admission,
    asks: Iterable[Ask],
    name: str,
    running: _Running,
    kept_until: Mapping[tuple[str, str], float],
) -> bool:
    """Hold a replica that runs for the first booking of its model that needs one more."""
    now = admission.at
    for ask in asks:
        if ask.start - ask.lead <= now < ask.end:
            start = max(now, ask.start)
            have = sum(hold.start <= start < hold.end for hold in admission.of_booking(ask.key))
            if have < ask.replicas:
                part = _Part(ask.model, name, start, ask.end, (ask,))
                return _hold(admission, part, name, running, kept_until)
    return False
