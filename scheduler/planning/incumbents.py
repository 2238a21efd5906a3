"""What was promised before and what runs already, put into the book before anything else.

A promise stays where it was; what runs stays where it is. Where both are known they agree, but for a
plan that was never carried out, a history that was lost, or a node that is gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scheduler.cluster.node import Node
from scheduler.planning.admission import Admission
from scheduler.planning.book import Need, units_on
from scheduler.planning.footprint import SHARE_STEPS
from scheduler.planning.holds import Ask, for_all, union
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
    running = _Running(admission, deployments, kept_until)
    parts = [part for stay in stays for part in _parts(stay, admission)]
    parts.sort(key=lambda part: (part.start > admission.at, part.order))
    placed = _where_they_run(parts, running.left, admission.at)
    promised = frozenset(ask.key for part in parts for ask in part.asks)
    others = [ask for ask in admission.asks.values() if ask.key not in promised]
    # What runs and needs no change is there, whatever the book says: it is written first.
    left = [(part, node) for part, node in placed if not _hold(admission, part, node, running, as_it_is=True)]
    _adopt(admission, others, running, as_it_is=True)
    for part, node in left:
        _hold(admission, part, node, running, as_it_is=False)
    _adopt(admission, admission.asks.values(), running, as_it_is=False)


class _Running:
    """Replicas that run, by model key and node: how many are not accounted for, and what each takes."""

    def __init__(
        self,
        admission: Admission,
        deployments: Iterable[Deployment],
        kept_until: Mapping[tuple[str, str], float],
    ) -> None:
        nodes, index = admission.book.nodes, admission.book.index
        deployments = tuple(deployments)
        self.left = Counter({one.identity: one.replicas for one in deployments})
        self.kept_until = kept_until
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


def _where_they_run(
    parts: list[_Part], running: Counter[tuple[str, str]], at: float
) -> list[tuple[_Part, str]]:
    """Each with its node; what has begun and runs elsewhere, with the one it runs on."""
    spare = running.copy()
    lost = []
    for number, part in enumerate(parts):
        if spare[part.model, part.node] > 0:
            spare[part.model, part.node] -= 1
        elif part.start <= at:
            lost.append(number)
    nodes = [part.node for part in parts]
    for number in lost:
        model = parts[number].model
        elsewhere = sorted(node for (key, node), left in spare.items() if key == model and left > 0)
        if elsewhere:
            nodes[number] = elsewhere[0]
            spare[model, elsewhere[0]] -= 1
    return list(zip(parts, nodes, strict=True))


def _hold(admission: Admission, part: _Part, name: str, running: _Running, *, as_it_is: bool) -> bool:
    """Hold a part of a stay on a node, if the node takes it still.

    ``as_it_is``: only if it runs there and need not change, but then though there is no room by the book.
    """
    number = admission.book.index.get(name)
    runs = running.left[part.model, name] > 0
    if number is None or not _may_stay(admission, number, part.start, runs):
        return False
    node, asks, end = admission.book.nodes[number], part.asks, part.end
    if node.cordoned:
        # Its next use is elsewhere.
        asks = tuple(ask for ask in asks if ask.start <= admission.at)
        end = min(end, max((ask.end for ask in asks), default=part.start))
    if not asks or part.start >= end:
        return False
    need = for_all(ask.need for ask in sorted(asks, key=lambda ask: ask.claim))
    if as_it_is and not (runs and running.takes.get((part.model, name)) == units_on(node, need)):
        return False
    keys = frozenset(ask.key for ask in asks)
    kept_until = running.kept_until.get((part.model, name), 0.0)
    held = admission.restore(
        part.model, need, number, keys, part.start, end, runs=runs, squeeze=as_it_is, kept_until=kept_until
    )
    if held and runs:
        running.left[part.model, name] -= 1
    return held


def _may_stay(admission: Admission, number: int, start: float, runs: bool) -> bool:
    node = admission.book.nodes[number]
    if node.draining:
        return False
    return not node.cordoned or (runs and start <= admission.at)


def _adopt(admission: Admission, asks: Iterable[Ask], running: _Running, *, as_it_is: bool) -> None:
    """Without a history, what runs tells where it was promised to be: hold it for its first bookings."""
    asks_of: dict[str, list[Ask]] = {}
    for ask in sorted(asks, key=lambda ask: ask.claim):
        if ask.start - ask.lead <= admission.at < ask.end:
            asks_of.setdefault(ask.model, []).append(ask)
    left_over = [(model, node) for model, node in running.left if model in asks_of]
    for model, node in sorted(left_over, key=lambda one: (asks_of[one[0]][0].claim, one)):
        for _ in range(running.left[model, node]):
            needy = next((ask for ask in asks_of[model] if _lacks(admission, ask)), None)
            if needy is None:
                break
            part = _Part(model, node, max(admission.at, needy.start), needy.end, (needy,))
            if not _hold(admission, part, node, running, as_it_is=as_it_is):
                break


def _lacks(admission: Admission, ask: Ask) -> bool:
    """Whether a booking has fewer replicas at its start than it asks for."""
    start = max(admission.at, ask.start)
    return sum(hold.start <= start < hold.end for hold in admission.of_booking(ask.key)) < ask.replicas
