"""Keeping a node up while it is wanted, and taking it down when it is not."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from loguru import logger
from rich.console import Console

from scheduler.errors import OperatorError
from scheduler.launch.ray_node import RayNode

FIRST_PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 60.0
LOOK_SECONDS = 1.0
JOIN_SECONDS = 1.0


@contextmanager
def running(node: RayNode, console: Console) -> Iterator[None]:
    """The node runs inside; if it dies it is started again; afterwards it is stopped for sure.

    Raises:
        OperatorError: it cannot be started the first time.
    """
    keeper = threading.Thread(target=_keep_up, args=(node,), name="ray-keeper", daemon=True)
    try:
        node.start()
        keeper.start()
        yield
    finally:
        # What follows is bounded by a deadline, and half of it would leave processes behind
        with undisturbed():
            node.give_up()
            if keeper.is_alive():
                keeper.join(JOIN_SECONDS)
            if node.process_id is not None:
                console.print("Stopping Ray.")
            node.stop()


def _keep_up(node: RayNode) -> None:
    pause = FIRST_PAUSE_SECONDS
    while not node.given_up:
        if not node.wait(LOOK_SECONDS) or node.given_up:
            continue
        logger.error("Ray ended by itself: {}. Starting it again.", node.last_words())
        try:
            node.stop()
            node.start()
            pause = FIRST_PAUSE_SECONDS
        except OperatorError as problem:
            if not node.given_up:
                logger.error("{} Trying again in {:.0f} s.", problem, pause)
            node.pause(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM, and the end of the terminal, end what is inside as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def hang_up(number: int, frame: FrameType | None) -> None:
        # to whoever handles SIGTERM by then, which is the daemon once it runs
        os.kill(os.getpid(), signal.SIGTERM)

    before = {
        signal.SIGINT: signal.getsignal(signal.SIGINT),
        signal.SIGTERM: signal.getsignal(signal.SIGTERM),
    }
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    # under nohup it is ignored, and stays so
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, hang_up)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Signals that ask for an end do nothing inside."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
