"""Packings of everything at once: that they can be, how good they are, that they are the same again."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from benchmarks.placement import packing
from benchmarks.placement.packing import FULL, NOWHERE, WHOLE_GPUS, Offer, Packing, Wanted, pack

SMALL, LARGE = 0, 1
"""Kinds of nodes: GPUs of 24 and of 80 GB."""


def offer(*kinds: int, gpus: tuple[int, int] = (4, 4)) -> Offer:
    return Offer(np.array(kinds), np.array(gpus), np.array([24.0, 80.0]))


def wanted(*bookings: tuple[int, int, float, tuple[int, int], tuple[int, int]]) -> Wanted:
    """Each as first slot, last slot, weight, whole GPUs by kind and share by kind."""
    first, last, weight, whole, share = zip(*bookings, strict=True)
    return Wanted(np.array(first), np.array(last), np.array(weight), np.array(whole), np.array(share))


def gpus(
    first: int, last: int, weight: float, whole: int
) -> tuple[int, int, float, tuple[int, int], tuple[int, int]]:
    """Whole GPUs, of any kind."""
    return first, last, weight, (whole, whole), (0, 0)


def part(first: int, last: int, share: int) -> tuple[int, int, float, tuple[int, int], tuple[int, int]]:
    """A share of a GPU, of any kind; its weight is what it takes."""
    return first, last, share / FULL * (last - first), (0, 0), (share, share)


def at_random(seed: int) -> tuple[Offer, Wanted]:
    rng = np.random.default_rng(seed)
    bookings = []
    for _ in range(40):
        first = int(rng.integers(20))
        last = first + int(rng.integers(1, 12))
        if rng.random() < 0.5:
            bookings.append(part(first, last, int(rng.integers(1, FULL))))
        else:
            bookings.append(gpus(first, last, float(rng.random() * 9), int(rng.integers(1, 5))))
    return offer(SMALL, LARGE, LARGE), wanted(*bookings)


def check(there: Offer, asked: Wanted, found: Packing) -> None:
    """Count every GPU in every slot anew."""
    for node, kind in enumerate(there.kind.tolist()):
        for slot in range(int(asked.last.max())):
            on = (found.node == node) & (asked.first <= slot) & (slot < asked.last)
            alone, shared = on & (found.lane == WHOLE_GPUS), on & (found.lane != WHOLE_GPUS)
            assert (asked.whole[alone, kind] > 0).all() and (asked.share[shared, kind] > 0).all()
            lanes = set(found.lane[shared].tolist())
            assert asked.whole[alone, kind].sum() + len(lanes) <= there.gpus[kind]
            for lane in lanes:
                assert asked.share[shared & (found.lane == lane), kind].sum() <= FULL


@pytest.mark.parametrize("seed", range(20))
def test_no_gpu_is_taken_twice(seed: int) -> None:
    there, asked = at_random(seed)
    found = pack(there, asked, tried_seats=400)
    assert (found.node != NOWHERE).any()
    check(there, asked, found)


def test_the_same_input_gives_the_same_packing() -> None:
    one, other = (pack(*at_random(7), tried_seats=800) for _ in range(2))
    assert (one.node == other.node).all() and (one.lane == other.lane).all()


def test_more_tries_never_lose_weight() -> None:
    there, asked = at_random(3)
    weights = [
        asked.weight[pack(there, asked, tried_seats=seats).node != NOWHERE].sum() for seats in (1, 400, 4000)
    ]
    assert weights == sorted(weights) and weights[-1] > weights[0]


@pytest.mark.parametrize("seed", range(8))
def test_small_packings_are_the_best_there_are(seed: int) -> None:
    rng = np.random.default_rng(seed)
    starts = rng.integers(6, size=7).tolist()
    bookings = [
        gpus(first, first + int(rng.integers(1, 5)), float(rng.integers(1, 9)), 1) for first in starts
    ]
    there, asked = offer(LARGE, gpus=(4, 2)), wanted(*bookings)
    found = pack(there, asked, tried_seats=1500)
    assert asked.weight[found.node != NOWHERE].sum() == _most(asked, room=2)


def _most(asked: Wanted, room: int) -> float:
    """Of all sets of bookings that take a GPU each and fit, the most weight."""
    slots = np.arange(asked.last.max())[:, None]
    busy = (asked.first <= slots) & (slots < asked.last)
    chosen = (np.array(which, dtype=bool) for which in product((0, 1), repeat=len(asked)))
    return float(
        max(asked.weight[which].sum() for which in chosen if busy[:, which].sum(axis=1).max() <= room)
    )


def test_the_fewest_gpus_are_taken() -> None:
    big = (0, 4, 8.0, (4, 1), (0, 0))
    found = pack(offer(SMALL, LARGE), wanted(big, gpus(0, 4, 4.0, 4)))
    assert found.node.tolist() == [1, 0]


def test_small_ones_share_a_gpu() -> None:
    asked = wanted(part(0, 8, 5000), part(4, 12, 5000), gpus(0, 12, 36.0, 3))
    found = pack(offer(LARGE), asked)
    assert found.node.tolist() == [0, 0, 0]
    assert found.lane[0] == found.lane[1] != WHOLE_GPUS


def test_windows_that_meet_stand_on_one_gpu() -> None:
    asked = wanted(gpus(0, 4, 4.0, 1), gpus(4, 8, 4.0, 1), gpus(0, 8, 8.0, 1))
    found = pack(offer(LARGE, gpus=(4, 2)), asked)
    assert (found.node == 0).all()


def test_what_fits_nowhere_has_no_seat() -> None:
    asked = wanted((0, 4, 9.0, (0, 0), (0, 0)), gpus(0, 4, 1.0, 1))
    assert pack(offer(LARGE), asked).node.tolist() == [NOWHERE, 0]


def test_no_nodes_and_no_bookings() -> None:
    nobody = wanted(gpus(0, 1, 1.0, 1))
    assert pack(offer(), nobody).node.tolist() == [NOWHERE]
    none = Wanted(*(nobody.__dict__[name][:0] for name in ("first", "last", "weight", "whole", "share")))
    assert pack(offer(LARGE), none).node.tolist() == []


def test_the_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, seat = list[int](), packing._Table.seat

    def counting(table: packing._Table, booking: int) -> bool:
        looked.append(booking)
        return seat(table, booking)

    monkeypatch.setattr(packing._Table, "seat", counting)
    pack(*at_random(0), tried_seats=130)
    assert len(looked) == 120
    looked.clear()
    pack(*at_random(0), tried_seats=1)
    assert len(looked) == 40
