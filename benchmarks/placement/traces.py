"""Bookings made of jobs that others ran; the choices are told in benchmarks/data/README.md."""

from __future__ import annotations

import csv
import gzip
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.placement.instance import SLOT_SECONDS, SLOTS_PER_HOUR, Instance, Ints, NodeClass
from benchmarks.placement.synthetic import GB, MEAN_LEAD_HOURS, cut_to_load

DATA = Path(__file__).resolve().parents[1] / "data"
FORTNIGHT_SLOTS = 14 * 24 * SLOTS_PER_HOUR
OPENB_GPU_BYTES = 16 * GB
PHILLY_GPUS = 8
PHILLY_GPU_BYTES = 24 * GB
PHILLY_TIME_SECONDS = 60


@cache
def _columns(name: str) -> dict[str, tuple[str, ...]]:
    with gzip.open(DATA / name, "rt") as file:
        header, *rows = csv.reader(file)
    return dict(zip(header, zip(*rows, strict=True), strict=True))


def _numbers(name: str, column: str) -> Ints:
    return np.array([int(float(value)) for value in _columns(name)[column]], dtype=np.int64)


def openb(nodes: int, load: float, seed: int, *, equal: bool = False) -> Instance:
    """Alibaba's GPU cluster: shares of a GPU, a few long stays among many short ones."""
    rng = np.random.default_rng((seed, nodes))
    listed = _columns("openb/nodes.csv.gz")
    kinds = list(zip(listed["model"], map(int, listed["gpu"]), strict=True))
    drawn = [kinds[number] for number in rng.choice(len(kinds), nodes, replace=False)]
    known = sorted(set(drawn))
    pods = "openb/pods.csv.gz"
    since = _numbers(pods, "deletion_time").max() - FORTNIGHT_SLOTS * SLOT_SECONDS
    start = (_numbers(pods, "scheduled_time") - since) // SLOT_SECONDS
    end = -(-(_numbers(pods, "deletion_time") - since) // SLOT_SECONDS)
    there = np.flatnonzero(end > np.maximum(start, 0))
    wanted = load * sum(gpus for _, gpus in drawn) * FORTNIGHT_SLOTS
    lasts = np.minimum(end, FORTNIGHT_SLOTS) - np.maximum(start, 0)
    count = 1000 + int(3 * wanted / lasts[there].mean())
    which = rng.choice(there, count)
    gpus, thousandths = _numbers(pods, "num_gpu")[which], _numbers(pods, "gpu_milli")[which]
    sensitive = np.array([one == "LS" for one in _columns(pods)["qos"]])[which]
    everything = Instance(
        name="openb",
        slots=FORTNIGHT_SLOTS,
        classes=tuple(NodeClass(model, gpus, OPENB_GPU_BYTES) for model, gpus in known),
        node_class=np.array([known.index(one) for one in drawn], dtype=np.int64),
        start=np.maximum(start[which], 0),
        end=np.minimum(end[which], FORTNIGHT_SLOTS),
        footprint=gpus * thousandths * OPENB_GPU_BYTES // 1000,
        asked=np.where(thousandths < 1000, 0, gpus),
        accelerator=("",) * count,
        priority=np.ones(count, dtype=np.int64) if equal else np.where(sensitive, 2, 1),
        booked=start[which] * float(SLOT_SECONDS) - rng.exponential(MEAN_LEAD_HOURS * 3600, count),
    )
    return cut_to_load(everything, load, np.flatnonzero(everything.fraction.max(axis=1)))


def philly(nodes: int, load: float, seed: int, *, equal: bool = False) -> Instance:
    """Microsoft's Philly cluster, with deadlines: whole GPUs, on nodes that are all alike.

    ``equal`` changes nothing: all its priorities are.
    """
    del equal
    rng = np.random.default_rng((seed, nodes))
    jobs = "philly/jobs.csv.gz"
    count = len(_columns(jobs)["job_id"])
    shuffled = np.concatenate([rng.permutation(count) for _ in range(1 + nodes // 80)])
    gpus, submitted, duration, expected = (
        _numbers(jobs, column)[shuffled]
        for column in ("num_gpu", "submit_time", "duration", "expect_time_list")
    )
    last = (submitted + expected) * PHILLY_TIME_SECONDS
    start = (last - duration * PHILLY_TIME_SECONDS) // SLOT_SECONDS
    end = np.minimum(-(-last // SLOT_SECONDS), FORTNIGHT_SLOTS)
    everything = Instance(
        name="philly",
        slots=FORTNIGHT_SLOTS,
        classes=(NodeClass("P40", PHILLY_GPUS, PHILLY_GPU_BYTES),),
        node_class=np.zeros(nodes, dtype=np.int64),
        start=start,
        end=end,
        footprint=gpus * PHILLY_GPU_BYTES,
        asked=gpus,
        accelerator=("",) * len(gpus),
        priority=np.ones(len(gpus), dtype=np.int64),
        booked=np.minimum(submitted * PHILLY_TIME_SECONDS, start * SLOT_SECONDS).astype(np.float64),
    )
    return cut_to_load(everything, load, np.flatnonzero((gpus > 0) & (gpus <= PHILLY_GPUS) & (end > start)))
