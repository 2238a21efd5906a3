"""How metrics and points are described, before anything is counted or written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["gauge", "counter", "histogram"]


@dataclass(frozen=True)
class Measurement:
    """Points of one kind in InfluxDB: tags have few values each, fields any."""

    name: str
    help: str
    tags: tuple[str, ...]
    fields: tuple[str, ...]


@dataclass(frozen=True)
class Metric:
    """One metric. ``name`` is what is scraped, with a counter's ``_total``; ``buckets`` are upper bounds."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
