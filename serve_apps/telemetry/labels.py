"""Labels and tags with few values: people can name any model, and each name costs memory for good."""

from __future__ import annotations

MOST_MODELS = 200
OTHER = "other"
UNKNOWN = "unknown"
"""The label of whatever is asked for and is not there."""


class Bounded:
    """Lets the first so many different values pass, and calls every later one ``other``."""

    def __init__(self, most: int = MOST_MODELS) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        if value in self._known:
            return value
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(value)
        return value
