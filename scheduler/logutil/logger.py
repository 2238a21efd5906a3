"""Sets loguru up: short lines for people on a terminal, full ones with date and zone elsewhere."""

from __future__ import annotations

import logging
import sys

from loguru import logger

TERMINAL = "<dim>{time:HH:mm:ss}</dim> <level>{message}</level>"
FILE = "{time:YYYY-MM-DDTHH:mm:ssZ} {level: <7} {message}"


def set_up_logging(level: str) -> None:
    """Log to standard error from now on, with colour only on a terminal."""
    logger.remove()
    # A pass that takes longer than the time between two is nothing to be told of each second.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    on_terminal = sys.stderr.isatty()
    logger.add(
        lambda message: print(message, end="", file=sys.stderr),  # noqa: T201  whatever it is by then
        level=level,
        format=TERMINAL if on_terminal else FILE,
        colorize=on_terminal,
        backtrace=False,
        diagnose=False,
    )
