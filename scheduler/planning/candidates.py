"""Why a replica is on its node and not on another: every node of the cluster is told something."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from scheduler.cluster.node import DeviceKind
from scheduler.planning.admission import Admission
from scheduler.planning.book import WHOLE, Book, Need
from scheduler.types import Candidacy, NodeAnswer, NodeCount

ORDER = tuple(Candidacy)
WITH_ROOM = (Candidacy.AS_GOOD, Candidacy.EMPTIER, Candidacy.TAKES_MORE, Candidacy.ONLY_CPU)


def candidacies(
    admission: Admission, model: str, need: Need, chosen: int, start: float, end: float
) -> tuple[Candidacy, ...]:
    """What each node is beside the ``chosen`` one, to a replica of a model throughout a window."""
    book = admission.book
    nodes = range(len(book.nodes))
    fit = book.fit(need)
    first, last = book.span(start, end)
    pool = book.pool.least(first, last)
    takes = np.where(fit.whole > 0, fit.whole, fit.share > 0)
    memory = np.array([node.devices[0].memory_bytes if node.devices else 0 for node in book.nodes])
    device = np.array([len(node.devices) for node in book.nodes])
    room = np.where(
        fit.whole > 0, pool >= fit.whole, (pool > 0) | _room_on_lanes(book, fit.share, first, last)
    )
    more = (takes > takes[chosen]) | ((takes == takes[chosen]) & (memory > memory[chosen]))
    # what it takes itself was free before
    emptier = pool > pool[chosen] + takes[chosen]
    found = np.full(len(nodes), ORDER.index(Candidacy.AS_GOOD))
    found[emptier] = ORDER.index(Candidacy.EMPTIER)
    found[more] = ORDER.index(Candidacy.TAKES_MORE)
    if book.nodes[chosen].kind is not DeviceKind.CPU:
        cpus = [number for number in nodes if book.nodes[number].kind is DeviceKind.CPU]
        found[cpus] = ORDER.index(Candidacy.ONLY_CPU)
    found[~room] = ORDER.index(Candidacy.FULL)
    found[(takes == 0) | (takes > device)] = ORDER.index(Candidacy.NEVER)
    found[[number for number in nodes if book.nodes[number].closed]] = ORDER.index(Candidacy.CLOSED)
    theirs = [hold for hold in admission.of_model(model) if hold.start < end and hold.end > start]
    found[[hold.seat.node for hold in theirs]] = ORDER.index(Candidacy.HAS_ONE)
    found[chosen] = ORDER.index(Candidacy.CHOSEN)
    return tuple(ORDER[code] for code in found.tolist())


def _room_on_lanes(book: Book, share: NDArray[np.int32], first: int, last: int) -> NDArray[np.bool_]:
    """The nodes where a GPU that is shared already has room for a share."""
    found = np.zeros(len(book.nodes), dtype=np.bool_)
    least = book.lanes.least(first, last)
    for number, lanes in book.lanes_of.items():
        found[number] = any(
            least[lane] >= share[number] > 0 and (lane < book.fixed or least[lane] < WHOLE) for lane in lanes
        )
    return found


def with_candidacies(
    answers: Iterable[NodeAnswer], book: Book, found: tuple[Candidacy, ...]
) -> tuple[tuple[NodeAnswer, ...], tuple[NodeCount, ...]]:
    """The answers with what each node is, the chosen one first; and how many of all are what."""
    every, told = list(found), list[NodeAnswer]()
    for one in answers:
        number = book.index[one.node]
        if not one.fits and every[number] in WITH_ROOM:
            # a shared GPU that has room, but at some instant none to draw
            every[number] = Candidacy.FULL
        told.append(one.model_copy(update={"candidacy": every[number]}))
    told.sort(key=lambda one: ORDER.index(one.candidacy or ORDER[-1]))
    counted = Counter(every)
    return tuple(told), tuple(NodeCount(candidacy=one, nodes=counted[one]) for one in ORDER if counted[one])
