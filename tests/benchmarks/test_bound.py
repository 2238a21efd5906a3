"""Nothing that can be placed weighs more than the bound."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.placement.bound import priced, upper_bound
from benchmarks.placement.check import Overbooked, check
from benchmarks.placement.instance import WHOLE, Instance
from benchmarks.placement.measure import POLICIES
from benchmarks.placement.synthetic import synthetic_week
from benchmarks.placement.traces import openb, philly
from tests.benchmarks.small import Booking, instance, result
from tests.examples import examples

NODES = [(2, 80), (1, 40)]
bookings = st.builds(
    lambda start, length, gb, gpus, priority: Booking(start, start + length, gb, gpus, priority),
    st.integers(0, 6),
    st.integers(1, 6),
    st.sampled_from([10, 30, 39, 60, 100]),
    st.integers(0, 2),
    st.integers(1, 4),
)


def best(given: Instance) -> float:
    """The most weight there is, by trying everything."""
    seats: list[list[tuple[int, int] | None]] = []
    for number in range(len(given)):
        own: list[tuple[int, int] | None] = [None]
        for node, kind in enumerate(given.node_class.tolist()):
            if given.whole[number, kind]:
                own.append((node, WHOLE))
            if given.shared[number, kind]:
                own += [(node, lane) for lane in range(given.classes[kind].gpus)]
        seats.append(own)
    most = 0.0
    for tried in itertools.product(*seats):
        placed = result(given, *tried)
        weight = float(given.weight[placed.placed].sum())
        if weight > most:
            try:
                check(given, placed)
            except Overbooked:
                continue
            most = weight
    return most


@settings(max_examples=examples(15), deadline=None)
@given(st.lists(bookings, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_neither_the_bound_nor_any_prices_are_below_the_best(found: list[Booking], luck) -> None:
    tried = instance(NODES, *found)
    most = best(tried)
    assert upper_bound(tried) >= most * (1 - 1e-12)
    for scale in (0.1, 1.0, 10.0):
        prices = [[scale * luck.random() for _ in range(tried.slots)] for _ in tried.classes]
        assert priced(tried, np.array(prices)) >= most * (1 - 1e-12)


def test_the_bound_is_the_best_where_whole_gpus_fill_the_nodes() -> None:
    tried = instance([(2, 80)], *(Booking(0, 4, gpus=2, priority=p) for p in (1, 2, 3)), Booking(4, 8))
    assert best(tried) == 3 * 2 + 1
    assert upper_bound(tried) == pytest.approx(best(tried), rel=1e-4)


def test_negative_prices_count_as_none() -> None:
    tried = instance([(1, 80)], Booking(0, 4))
    assert priced(tried, np.full((1, 16), -1.0)) == pytest.approx(float(tried.weight.sum()))


def test_nothing_asked_for_weighs_nothing() -> None:
    assert upper_bound(instance([(1, 80)])) == 0


@pytest.mark.parametrize(
    ("family", "load"), [(synthetic_week, 0.7), (synthetic_week, 1.2), (openb, 1.2), (philly, 1.2)]
)
def test_no_policy_exceeds_the_bound_or_overbooks(family, load: float) -> None:
    nodes = 8 if family is synthetic_week else 2
    tried = family(nodes, load, 5)
    bound = upper_bound(tried)
    assert 0 < bound <= tried.weight.sum()
    for setting, policies in POLICIES.items():
        for name, policy in policies.items():
            placed = policy(tried, setting)
            check(tried, placed)
            assert 0.25 * bound < tried.weight[placed.placed].sum() <= bound, name
            assert (placed.moves, placed.withdrawn) == (0, 0), name
