"""Large modules that are imported when a test first uses them: collecting the tests is to be quick."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Lazily:
    """Stands for the module of that name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)
