"""What the tests of ``ndif-ray calendar`` have in common."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

NOW = datetime.now(UTC).replace(microsecond=0)


def hours(count: float) -> datetime:
    """So many hours from the start of this run, in UTC."""
    return NOW + timedelta(hours=count)


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]
