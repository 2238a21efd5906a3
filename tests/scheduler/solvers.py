"""Solvers to stand in for the exact one: the event names a folder in which they leave traces.

In a module of their own, because the other process imports it, and need not import pytest with it.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from scheduler.planning.exact import Opinion, OpinionState, Question


def notes(one: Question, seconds: float) -> Opinion:
    with (Path(one.event).parent / "order").open("a") as order:
        order.write(f"{Path(one.event).name} {os.getpid()}\n")
    return Opinion(one.event, one.digest, OpinionState.NOT_FOUND, seconds)


def dies_once(one: Question, seconds: float) -> Opinion:
    trace = Path(one.event)
    if not trace.exists():
        trace.touch()
        os._exit(7)
    return notes(one, seconds)


def dies_of_poison(one: Question, seconds: float) -> Opinion:
    opinion = notes(one, seconds)
    if "poison" in one.event:
        raise ValueError("as it happens")
    return opinion


def says_so_and_hangs(one: Question, seconds: float) -> Opinion:
    """Tells its process id to whoever opens the pipe, which is when it is known to be at it."""
    Path(one.event).write_text(str(os.getpid()))
    threading.Event().wait()
    return notes(one, seconds)
