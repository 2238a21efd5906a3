"""Work during which Python does not look for cycles among what it makes."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Plans are tens of thousands of values that stay: to search them for cycles while they are made
    costs a fifth of the time, and finds none. Where it is off already it stays so.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
