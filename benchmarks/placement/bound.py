"""More weight than any policy can place: the linear relaxation, proven by its prices.

Nodes that are alike are taken as one heap of GPUs, and bookings may be cut into parts. The linear
program is solved by HiGHS; what is returned is not its optimum but the value of its dual solution,
summed up anew here: for whatever prices >= 0 a GPU of each class has in each slot,

    sum of capacity x price  +  sum over bookings of max(0, weight - the cheapest price of its window)

is at least what can be placed (weak duality). So a solver that is inexact, or gives up early, makes the
bound looser and never wrong.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse  # type: ignore[import-untyped]
from scipy.optimize import linprog  # type: ignore[import-untyped]

from benchmarks.placement.instance import Floats, Instance, Ints

JITTER = 1e-4


def upper_bound(instance: Instance) -> float:
    """No placement has more weight than this."""
    if not len(instance):
        return 0.0
    return min(priced(instance, prices(instance)), float(instance.weight.sum()))


def priced(instance: Instance, price: Floats) -> float:
    """The bound that prices prove: GPUs of each class in each slot, classes by slots."""
    price = np.maximum(price, 0.0)
    until = np.concatenate((np.zeros((len(price), 1)), np.cumsum(price, axis=1)), axis=1)
    window = (until[:, instance.end] - until[:, instance.start]).T
    cheapest = np.where(instance.fraction > 0, instance.fraction * window, np.inf).min(axis=1)
    gained = np.maximum(instance.weight - cheapest, 0.0).sum()
    return float((capacity(instance)[:, None] * price).sum() + gained)


def capacity(instance: Instance) -> Ints:
    """GPUs of each class."""
    count = np.bincount(instance.node_class, minlength=len(instance.classes))
    gpus: Ints = count * np.array([one.gpus for one in instance.classes])
    return gpus


def prices(instance: Instance) -> Floats:
    """What a GPU of each class is worth in each slot, from the dual solution of the relaxation.

    Variables are the part of each booking on each class where it fits, and the GPUs of each class in
    use in each slot. The latter change only by what starts and what ends, so that a booking stands in
    three rows, however long it is.
    """
    classes, slots = len(instance.classes), instance.slots
    booking, where = np.nonzero(instance.fraction)
    taken = instance.fraction[booking, where]
    parts = len(booking)
    first = where * slots + instance.start[booking]
    last = where * slots + instance.end[booking]
    ends = instance.end[booking] < slots
    part = np.arange(parts)
    rows = classes * slots
    use = np.arange(rows)
    follows = use[use % slots > 0]
    # use[c, t] - use[c, t - 1] - what starts at t + what ends at t = 0
    change = sparse.csr_array(
        (
            np.concatenate((-taken, taken[ends], np.ones(rows), -np.ones(len(follows)))),
            (
                np.concatenate((first, last[ends], use, follows)),
                np.concatenate((part, part[ends], parts + use, parts + follows - 1)),
            ),
        ),
        shape=(rows, parts + rows),
    )
    once = sparse.csr_array((np.ones(parts), (booking, part)), shape=(len(instance), parts + rows))
    # Of many optima of equal worth one is made the best: the solver takes longest to find a corner of them.
    jitter = 1 + JITTER * np.random.default_rng(0).random(parts)
    solved = linprog(
        np.concatenate((-instance.weight[booking] * jitter, np.zeros(rows))),
        A_ub=once,
        b_ub=np.ones(len(instance)),
        A_eq=change,
        b_eq=np.zeros(rows),
        bounds=np.stack(
            (
                np.zeros(parts + rows),
                np.concatenate((np.full(parts, np.inf), np.repeat(capacity(instance), slots))),
            ),
            axis=1,
        ),
        method="highs-ipm",
    )
    if solved.status != 0:
        raise RuntimeError(f"{instance.name}: the relaxation was not solved: {solved.message}")
    dual: Floats = -solved.upper.marginals[parts:].reshape(classes, slots)
    return dual
