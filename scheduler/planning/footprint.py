"""How much memory a model takes, and how much of a node that is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from calendars.reservation import Dtype
from scheduler.cluster.node import Node
from scheduler.types import DTYPE_BYTES, Checkpoint, Tier

MIB = 1024**2
SHARE_STEPS = 10_000
"""Ray keeps resources in ten-thousandths; a share is rounded up to one."""


MAX_LEAD_SECONDS = 86_400.0
"""Nothing is loaded more than a day ahead."""


@dataclass(frozen=True)
class Sizing:
    """How sizes and loading times are reckoned; the defaults are those of the settings.

    ``padding_fraction`` of the weights and ``padding_bytes`` are added for activations, buffers and
    the runtime itself: 15 % and 500 MiB are what NDIF's service has found to hold.
    """

    padding_fraction: float = 0.15
    padding_bytes: int = 500 * MIB
    lead_base_seconds: float = 30.0
    load_bytes_per_second: float = 200.0 * MIB
    download_bytes_per_second: float = 200.0 * MIB

    def footprint_bytes(self, checkpoint: Checkpoint, dtype: Dtype) -> int:
        """Memory one replica needs: parameters at their dtype, and the padding.

        The padding of int8 is that of 16 bits, in which it is reckoned with and keeps what is no matrix
        of a layer: embeddings and the output.
        """
        weights = checkpoint.parameters * DTYPE_BYTES[dtype]
        padded = checkpoint.parameters * max(DTYPE_BYTES[dtype], DTYPE_BYTES["bfloat16"])
        return math.ceil(weights + padded * self.padding_fraction) + self.padding_bytes

    def lead_seconds(self, footprint_bytes: int, tier: Tier = Tier.REMOTE) -> float:
        """Time from the decision to deploy until the model serves, as far as can be known."""
        seconds = self.lead_base_seconds + footprint_bytes / self.load_bytes_per_second
        if tier is Tier.REMOTE:
            seconds += footprint_bytes / self.download_bytes_per_second
        return min(seconds, MAX_LEAD_SECONDS)


@dataclass(frozen=True)
class Loads:
    """How long loading takes: as measured where it was, else as reckoned from sizes and bandwidths.

    ``measured`` is the 95th percentile in seconds by model key, kind of node (its ``kind_name``) and
    where the weights came from. ``on_disk`` are the pairs of model key and node name whose weights are
    known to be on that node; elsewhere they are taken to come from afar.
    """

    sizing: Sizing = field(default_factory=Sizing)
    measured: Mapping[tuple[str, str, Tier], float] = field(default_factory=dict)
    on_disk: frozenset[tuple[str, str]] = frozenset()

    def lead_seconds(self, model: str, node: Node, footprint_bytes: int) -> float:
        """How long before its start a model must begin to load on a node."""
        tier = Tier.COLD if (model, node.name) in self.on_disk else Tier.REMOTE
        measured = self.measured.get((model, node.kind_name, tier))
        if measured is None or math.isnan(measured):
            return self.sizing.lead_seconds(footprint_bytes, tier)
        return _capped(measured)

    def longest_seconds(self, model: str, footprint_bytes: int) -> float:
        """The longest that can be expected on any node."""
        return _capped(self._longest.get(model, 0.0)) or self.sizing.lead_seconds(footprint_bytes)

    @cached_property
    def _longest(self) -> Mapping[str, float]:
        """The longest that was measured of each model."""
        longest: dict[str, float] = {}
        for (model, _, _), seconds in self.measured.items():
            longest[model] = max(longest.get(model, 0.0), seconds)
        return longest


def _capped(seconds: float) -> float:
    return min(seconds, MAX_LEAD_SECONDS)


def gpus_needed(footprint_bytes: int, gpu_bytes: int, asked: int | None) -> float:
    """GPUs of a kind one replica takes: a share below 1, or a whole number.

    Args:
        footprint_bytes: what the replica needs in all.
        gpu_bytes: memory of one GPU, above 0.
        asked: whole GPUs the booking insists on; more are taken if these are too small.
    """
    if asked is None and footprint_bytes < gpu_bytes:
        return math.ceil(footprint_bytes / gpu_bytes * SHARE_STEPS) / SHARE_STEPS
    return float(max(asked or 1, math.ceil(footprint_bytes / gpu_bytes)))
