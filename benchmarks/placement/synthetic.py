"""Weeks that never were: the same for the same seed."""

from __future__ import annotations

import numpy as np

from benchmarks.placement.instance import (
    SLOT_SECONDS,
    SLOTS_PER_HOUR,
    Floats,
    Instance,
    Ints,
    NodeClass,
)

GB = 10**9
WEEK_SLOTS = 7 * 24 * SLOTS_PER_HOUR
KINDS = (("L4", 24 * GB), ("A100-40G", 40 * GB), ("H100", 80 * GB), ("H200", 141 * GB))
KIND_SHARES = (0.25, 0.25, 0.35, 0.15)
GPU_COUNTS = (1, 2, 4, 8)
COUNT_SHARES = (0.1, 0.2, 0.3, 0.4)

MODEL_BILLIONS = (
    *(0.5, 1, 1.5, 3, 4, 7, 8, 9, 12, 13, 14, 20, 22, 24, 27, 32, 34),
    *(49, 65, 70, 72, 104, 110, 123, 141, 180, 235, 405),
)
FOOTPRINTS = np.array([round(billions * 2 * 1.15 * GB) + 500 * 2**20 for billions in MODEL_BILLIONS])
"""Models as they are published, in bfloat16, with the padding that the product adds."""

SMALL = 0.4
"""Of all bookings, those that share a GPU with others."""
BIG_SHARES = (0.3, 0.25, 0.25, 0.2)
"""Of those that ask for whole GPUs, how many ask for 1, 2, 4 and 8 (fewer where their node has fewer)."""
ONE_KIND_ONLY = 0.15
MEDIAN_HOURS, SPREAD, LONGEST_HOURS = 36.0, 1.2, 168.0
MEAN_LEAD_HOURS = 72.0
PRIORITIES = (1, 2, 4)
PRIORITY_SHARES = (0.7, 0.2, 0.1)


def synthetic_week(nodes: int, load: float, seed: int, *, equal: bool = False) -> Instance:
    """A week of bookings that ask for ``load`` times the GPU-hours there are.

    Each booking is drawn for one GPU of the cluster taken at random, so that what is asked of each
    kind is in proportion to what there is of it; it may go wherever it fits.

    Args:
        nodes: how many, of 1 to 8 GPUs with 24 to 141 GB.
        load: GPU-hours asked for over GPU-hours there are.
        seed: same seed, same week.
        equal: all priorities are 1; otherwise 1, 2 and 4.
    """
    rng = np.random.default_rng((seed, nodes))
    classes, node_class = cluster(nodes, rng)
    gpus = np.array([one.gpus for one in classes])[node_class]
    wanted = load * gpus.sum() * WEEK_SLOTS / SLOTS_PER_HOUR
    count = 64 + int(wanted / 20)
    home = rng.choice(nodes, size=count, p=gpus / gpus.sum())
    start, end, booked = windows(count, WEEK_SLOTS, rng)
    footprint, asked, kinds = sizes(classes, node_class[home], rng)
    priority = np.ones(count, dtype=np.int64) if equal else rng.choice(PRIORITIES, count, p=PRIORITY_SHARES)
    everything = Instance(
        name="synthetic",
        slots=WEEK_SLOTS,
        classes=classes,
        node_class=node_class,
        start=start,
        end=end,
        footprint=footprint,
        asked=asked,
        accelerator=kinds,
        priority=priority,
        booked=booked,
    )
    return cut_to_load(everything, load, np.flatnonzero(end - start >= SLOTS_PER_HOUR))


def cluster(nodes: int, rng: np.random.Generator) -> tuple[tuple[NodeClass, ...], Ints]:
    """Classes, and the class of each node; GPU counts and kinds in their shares, combined at random."""
    counts = _apportioned(nodes, COUNT_SHARES)
    kinds = rng.permutation(_apportioned(nodes, KIND_SHARES))
    pairs = sorted(zip(counts.tolist(), kinds.tolist(), strict=True))
    known = sorted(set(pairs))
    classes = tuple(NodeClass(KINDS[kind][0], GPU_COUNTS[count], KINDS[kind][1]) for count, kind in known)
    return classes, rng.permutation(np.array([known.index(pair) for pair in pairs], dtype=np.int64))


def _apportioned(nodes: int, shares: tuple[float, ...]) -> Ints:
    """The index of a share for each node, as near to the shares as whole nodes can be."""
    edges = np.round(np.cumsum(shares) * nodes).astype(np.int64)
    return np.searchsorted(edges, np.arange(nodes), side="right").astype(np.int64)


def windows(count: int, slots: int, rng: np.random.Generator) -> tuple[Ints, Ints, Floats]:
    """Starts and ends in slots, cut to the week, and when each was booked.

    Starts are drawn from before the week on, so that its first hours are as busy as any other.
    """
    hours = np.clip(MEDIAN_HOURS * np.exp(SPREAD * rng.standard_normal(count)), 1, LONGEST_HOURS)
    length = np.ceil(hours * SLOTS_PER_HOUR).astype(np.int64)
    start = np.floor(rng.random(count) * (slots + length)).astype(np.int64) - length
    booked = start * float(SLOT_SECONDS) - rng.exponential(MEAN_LEAD_HOURS * 3600, count)
    return np.maximum(start, 0), np.minimum(start + length, slots), booked


def sizes(
    classes: tuple[NodeClass, ...], home: Ints, rng: np.random.Generator
) -> tuple[Ints, Ints, tuple[str, ...]]:
    """Footprints, GPUs asked for and kinds insisted on, each for the class of node a booking is drawn for."""
    count = len(home)
    small = rng.random(count) < SMALL
    gpus = np.array(GPU_COUNTS)[rng.choice(len(GPU_COUNTS), count, p=BIG_SHARES)]
    insists = rng.random(count) < ONE_KIND_ONLY
    luck = rng.random(count)
    footprint, asked = np.zeros((2, count), dtype=np.int64)
    for number, one in enumerate(home.tolist()):
        node = classes[one]
        if small[number]:
            fitting = FOOTPRINTS[node.gpu_bytes / 2 >= FOOTPRINTS]
        else:
            asked[number] = min(gpus[number], node.gpus)
            room = asked[number] * node.gpu_bytes
            fitting = FOOTPRINTS[(0.4 * room < FOOTPRINTS) & (room >= FOOTPRINTS)]
        footprint[number] = fitting[int(luck[number] * len(fitting))]
    kinds = tuple(
        classes[one].accelerator if insisted else ""
        for one, insisted in zip(home.tolist(), insists.tolist(), strict=True)
    )
    return footprint, asked, kinds


def cut_to_load(everything: Instance, load: float, eligible: Ints) -> Instance:
    """The first of the eligible bookings that together ask for so much of the GPU-hours there are.

    Raises:
        ValueError: there are not enough bookings.
    """
    there_are = everything.node_gpus.sum() * everything.slots / SLOTS_PER_HOUR
    loads = np.cumsum(everything.gpu_hours[eligible]) / there_are
    if not len(loads) or loads[-1] < load:
        most = loads[-1] if len(loads) else 0.0
        raise ValueError(
            f"{everything.name}: all its bookings are a load of {most:.2f}, {load} was asked for"
        )
    last = int(np.searchsorted(loads, load))
    return everything.only(eligible[: last + 1], float(loads[last]))
