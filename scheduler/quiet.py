"""Work during which Python does not look for cycles among what it makes."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Plans are tens of thousands of values that stay: to search them for cycles while they are made
    costs a fifth of the time, and finds none. What was made is searched with all that is old, some time
    later. Where it is off already it stays so.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        # makes all that is young old, without a search
        gc.freeze()
        gc.unfreeze()
        gc.enable()
