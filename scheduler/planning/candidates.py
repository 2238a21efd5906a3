"""Why a replica is on its node and not on another: every node of the cluster is told something."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from scheduler.planning.admission import Admission
from scheduler.planning.book import WHOLE
from scheduler.planning.needs import Need
from scheduler.types import Candidacy, NodeAnswer, NodeCount

ORDER = tuple(Candidacy)
CODE = {one: code for code, one in enumerate(ORDER)}
WITH_ROOM = [CODE[one] for one in (Candidacy.AS_GOOD, Candidacy.EMPTIER, Candidacy.TAKES_MORE)]
WITH_ROOM.append(CODE[Candidacy.ONLY_CPU])
Codes = NDArray[np.intp]


class Candidates:
    """The nodes of an admission beside those that were chosen."""

    def __init__(self, admission: Admission) -> None:
        self._admission, self._book = admission, admission.book

    def beside(self, chosen: int, model: str, need: Need, start: float, end: float) -> Codes:
        """What each node is beside the ``chosen`` one, to a replica of a model throughout a window."""
        fit = self._book.fit(need)
        first, last = self._book.span(start, end)
        pool = self._book.pool.least(first, last)
        takes = np.where(fit.whole > 0, fit.whole, fit.share > 0)
        room = (pool >= np.maximum(fit.whole, 1)) | self._on_lanes(fit.share, first, last)
        same, memory = takes == takes[chosen], self._book.memory
        found = np.full(len(pool), CODE[Candidacy.AS_GOOD])
        # what it takes itself was free before
        found[pool > pool[chosen] + takes[chosen]] = CODE[Candidacy.EMPTIER]
        found[(takes > takes[chosen]) | (same & (memory > memory[chosen]))] = CODE[Candidacy.TAKES_MORE]
        if not self._book.cpu[chosen]:
            found[self._book.cpu] = CODE[Candidacy.ONLY_CPU]
        found[~room] = CODE[Candidacy.FULL]
        found[(takes == 0) | (takes > self._book.devices)] = CODE[Candidacy.NEVER]
        found[~self._book.open] = CODE[Candidacy.CLOSED]
        found[self._with_one(model, start, end)] = CODE[Candidacy.HAS_ONE]
        found[chosen] = CODE[Candidacy.CHOSEN]
        return found

    def refusing(self, model: str, need: Need, start: float, end: float) -> tuple[NodeCount, ...]:
        """How many nodes are what to a replica of a model that none has room for throughout a window."""
        fit = self._book.fit(need)
        found = np.full(len(fit.whole), CODE[Candidacy.FULL])
        takes = np.where(fit.whole > 0, fit.whole, fit.share > 0)
        found[(takes == 0) | (takes > self._book.devices)] = CODE[Candidacy.NEVER]
        found[~self._book.open] = CODE[Candidacy.CLOSED]
        found[self._with_one(model, start, end)] = CODE[Candidacy.HAS_ONE]
        return _counted(found)

    def _with_one(self, model: str, start: float, end: float) -> list[int]:
        """The nodes on which a model has a replica at some time in a window."""
        theirs = self._admission.of_model(model)
        return [hold.seat.node for hold in theirs if hold.start < end and hold.end > start]

    def _on_lanes(self, share: NDArray[np.int32], first: int, last: int) -> NDArray[np.bool_]:
        """The nodes where a GPU that is shared already, or a CPU, has room for a share."""
        book = self._book
        found = np.zeros(len(book.nodes), dtype=np.bool_)
        if not book.lanes_of:
            return found
        least = book.lanes.least(first, last)
        numbers = np.repeat(list(book.lanes_of), [len(lanes) for lanes in book.lanes_of.values()])
        lanes = np.fromiter(chain.from_iterable(book.lanes_of.values()), dtype=np.intp)
        room, needed = least[lanes], share[numbers]
        found[numbers[(needed > 0) & (room >= needed) & ((lanes < book.fixed) | (room < WHOLE))]] = True
        return found

    def told(
        self, answers: Iterable[NodeAnswer], found: Codes
    ) -> tuple[tuple[NodeAnswer, ...], tuple[NodeCount, ...]]:
        """The answers with what each node is, the chosen one first; and how many of all are what."""
        every, told = found.copy(), list[NodeAnswer]()
        for one in answers:
            number = self._book.index[one.node]
            if not one.fits and every[number] in WITH_ROOM:
                # a shared GPU that has room, but at some instant none to draw
                every[number] = CODE[Candidacy.FULL]
            told.append(one.model_copy(update={"candidacy": ORDER[every[number]]}))
        told.sort(key=lambda one: CODE[one.candidacy or ORDER[-1]])
        return tuple(told), _counted(every)


def _counted(found: Codes) -> tuple[NodeCount, ...]:
    counted = np.bincount(found, minlength=len(ORDER)).tolist()
    return tuple(NodeCount(candidacy=one, nodes=n) for one, n in zip(ORDER, counted, strict=True) if n)
