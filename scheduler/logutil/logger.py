"""Sets loguru up: short lines for people on a terminal, JSON with Ray's names of fields elsewhere, Loki."""

from __future__ import annotations

import io
import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from loguru import logger
from rich.console import Console

from scheduler.render.secrets import without_secrets
from scheduler.settings_telemetry import LogSettings
from serve_apps.telemetry.loki import LokiShipper

if TYPE_CHECKING:
    from loguru import Message, Record

TERMINAL = "<dim>{time:HH:mm:ss}</dim> <level>{message}</level>"
FILE = "{time:YYYY-MM-DDTHH:mm:ssZ} {level: <7} {message}"

SHIPPED = "shipped"
"""Bound to False for what is about shipping itself: it would come back for ever."""
DECISION = "decision"
"""Bound to True for what a terminal shows as a plan: such lines are for programs."""
OWN = frozenset({SHIPPED, DECISION})

Format = Literal["auto", "text", "json"]


class _Sinks:
    """The one sink that ``set_up_logging`` replaces, and what this process is."""

    number: int | None = None
    component = "command"


def set_up_logging(level: str, form: Format = "text") -> None:
    """Log to standard error from now on: as text, with colour on a terminal, or as JSON.

    ``auto`` is text on a terminal and JSON elsewhere.
    """
    if _Sinks.number is None:
        logger.remove()  # loguru's own
    else:
        logger.remove(_Sinks.number)
    # A pass that takes longer than the time between two is nothing to be told of each second.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    on_terminal = sys.stderr.isatty()
    if is_json(form):
        _Sinks.number = logger.add(_write_json, level=level, format="{message}", colorize=False)
        return
    _Sinks.number = logger.add(
        _write,
        level=level,
        format=TERMINAL if on_terminal else FILE,
        filter=lambda record: not record["extra"].get(DECISION),
        colorize=on_terminal,
        backtrace=False,
        diagnose=False,
    )


def is_json(form: Format) -> bool:
    """Whether the log is JSON now."""
    return form == "json" or (form == "auto" and not sys.stderr.isatty())


def json_line(record: Record) -> str:
    """One line of JSON with the names that Ray and Serve give their fields, and ours beside them."""
    when = record["time"]
    fields: dict[str, Any] = {
        "asctime": f"{when:%Y-%m-%d %H:%M:%S},{when.microsecond // 1000:03}",
        "levelname": record["level"].name,
        "message": record["message"],
        "filename": record["file"].name,
        "lineno": record["line"],
        "process": record["process"].id,
        "component_name": _Sinks.component,
        "timestamp_ns": nanoseconds(record),
    }
    if (error := record["exception"]) is not None:
        fields["exc_text"] = "".join(traceback.format_exception(error.type, error.value, error.traceback))
    extra = {name: value for name, value in record["extra"].items() if name not in OWN}
    # Loki's JSON parser passes lists over
    texts = {name: " ".join(value) if isinstance(value, tuple) else value for name, value in extra.items()}
    own = {name: value for name, value in texts.items() if value != ""}
    # hidden here, too: the text says what others' servers answered
    return without_secrets(json.dumps(fields | own, ensure_ascii=False, default=str))


def nanoseconds(record: Record) -> int:
    """When a line was written, in nanoseconds of Unix time."""
    return int(record["time"].timestamp() * 1_000_000) * 1000


def console_of_the_service(log: LogSettings) -> Console:
    """Where a launcher tells what it does: standard error, or the log where that is JSON."""
    if not is_json(log.format):
        return Console(stderr=True, highlight=False, soft_wrap=True)
    _Sinks.component = "launcher"
    set_up_logging(log.level, log.format)
    return Console(file=_Lines(), highlight=False, soft_wrap=True, width=1000)


class _Lines(io.StringIO):
    """A file of which every line is logged."""

    def write(self, text: str) -> int:
        for line in text.splitlines():
            if line.strip():
                logger.info("{}", line.rstrip())
        return len(text)


@contextmanager
def logging_of_the_service(log: LogSettings, component: str, node: str) -> Iterator[LokiShipper | None]:
    """Inside, the log is in the form of the settings, and shipped to Loki where they name one.

    Args:
        component: what this process is, such as daemon. ``node`` is the name of the one it is on.
    """
    _Sinks.component = component
    set_up_logging(log.level, log.format)
    if log.loki_url is None:
        yield None
        return
    shipper = LokiShipper(log.loki_url, component, node, on_problem=_tell_of_loki)

    def ship(message: Message) -> None:
        record = message.record
        shipper.put(nanoseconds(record), record["level"].name, json_line(record))

    number = logger.add(
        ship, level=log.level, format="{message}", filter=lambda record: record["extra"].get(SHIPPED, True)
    )
    try:
        yield shipper
    finally:
        logger.remove(number)
        shipper.close()


def _tell_of_loki(problem: str) -> None:
    about = logger.bind(**{SHIPPED: False})
    if problem:
        about.warning("The log cannot be shipped ({}); nothing waits for it.", problem)
    else:
        about.success("The log is shipped again.")


def _write(message: Message) -> None:
    print(message, end="", file=sys.stderr)  # noqa: T201  whatever it is by then


def _write_json(message: Message) -> None:
    print(json_line(message.record), file=sys.stderr)  # noqa: T201
