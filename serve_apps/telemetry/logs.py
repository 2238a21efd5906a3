"""The log of a Serve replica, shipped to Loki: the fields of Ray's own JSON, and the node's name."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

from serve_apps.contract import NODE_LABEL
from serve_apps.telemetry.loki import LokiShipper

LOKI_VARIABLE = "LOKI_URL"
"""In the environment of each node, and so of its replicas."""
SERVE_LOGGER = "ray.serve"
NOT_SHIPPED = {"skip_loki": True}
"""``extra`` of a line about shipping itself, which would come back for ever."""

CALLS = "CALL "
"""How Serve's line about a call between applications begins, of which not all are marked."""

NOISE = frozenset({"log_to_stderr", "task_name", "task_func_name", "actor_name", "serve_access_log"})
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"} | NOISE


class LokiHandler(logging.Handler):
    """Gives records to a shipper, but for Serve's line about each single request."""

    def __init__(self, shipper: LokiShipper, component: str, node: str) -> None:
        super().__init__(logging.INFO)
        self._shipper = shipper
        self._about = {"component_name": component, "node": node}

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "serve_access_log", False) or getattr(record, "skip_loki", False):
            return
        if record.filename == "replica.py" and record.getMessage().startswith(CALLS):
            return
        self._shipper.put(int(record.created * 1e9), record.levelname, self._line(record))

    def _line(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "asctime": logging.Formatter().formatTime(record),
            "levelname": record.levelname,
            "message": record.getMessage(),
            "filename": record.filename,
            "lineno": record.lineno,
            "process": record.process,
        }
        if record.exc_info:
            fields["exc_text"] = logging.Formatter().formatException(record.exc_info)
        fields |= {
            name: value
            for name, value in vars(record).items()
            if name not in _STANDARD and isinstance(value, str | int | float | bool)
        }
        return json.dumps(fields | self._about, ensure_ascii=False, default=str)


def ship_logs(component: str) -> LokiShipper | None:
    """From now on, ship what this replica logs, where its node names a Loki.

    Args:
        component: gateway or model.
    """
    url = os.environ.get(LOKI_VARIABLE)
    logger = logging.getLogger(SERVE_LOGGER)
    if not url or any(isinstance(one, LokiHandler) for one in logger.handlers):
        return None
    node = _node_name()
    shipper = LokiShipper(url, component, node, on_problem=_tell)
    logger.addHandler(LokiHandler(shipper, component, node))
    return shipper


def _node_name() -> str:
    import ray

    labels: dict[str, str] = ray.get_runtime_context().get_node_labels()
    return labels.get(NODE_LABEL, "unknown")


def _tell(problem: str) -> None:
    logger = logging.getLogger(SERVE_LOGGER)
    if problem:
        text = "the log cannot be shipped (%s); nothing waits for it"
        logger.warning(text, problem, extra=NOT_SHIPPED)
    else:
        logger.info("the log is shipped again", extra=NOT_SHIPPED)
