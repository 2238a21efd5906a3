"""Log lines for Loki: its push protocol, with few labels."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from typing import NamedTuple

import httpx

from serve_apps.telemetry.outbox import LaterError, Outbox, RefusedError, retry_after

PUSH_PATH = "/loki/api/v1/push"
SERVICE = "ndif-ray"
MOST_LINE_BYTES = 64 * 1024
"""Loki refuses longer lines than 256 KiB, and the whole batch with them."""
POST_SECONDS = 10.0
LABELS = ("service", "component", "level", "node")
"""All there are: each combination of their values is a stream, and Loki keeps few streams best."""


class Line(NamedTuple):
    """One line, when it was written (nanoseconds of Unix time), and how bad it is."""

    at_ns: int
    level: str
    text: str


class LokiShipper:
    """Ships lines of one component of one node.

    Args:
        url: of Loki, with or without the path of its push protocol.
        component: such as daemon, gateway or model.
        on_problem: as of ``Outbox``; what it logs must not come back here.
    """

    def __init__(
        self,
        url: str,
        component: str,
        node: str,
        *,
        every_seconds: float = 2.0,
        on_problem: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.url = url if "/loki/api/" in url else url.rstrip("/") + PUSH_PATH
        self._labels = {"service": SERVICE, "component": component, "node": node}
        self._client = httpx.Client(timeout=POST_SECONDS)
        self.outbox: Outbox[Line] = Outbox(
            "loki", self._push, _size, every_seconds=every_seconds, on_problem=on_problem
        )

    def put(self, at_ns: int, level: str, text: str) -> None:
        """Have a line shipped; a very long one loses its end."""
        if len(text) > MOST_LINE_BYTES:
            text = text[:MOST_LINE_BYTES] + " …"
        self.outbox.put(Line(at_ns, level.lower(), text))

    def close(self, seconds: float = 2.0) -> None:
        """Ship what waits, as far as that goes."""
        self.outbox.close(seconds)
        self._client.close()

    def _push(self, lines: list[Line]) -> None:
        body = gzip.compress(json.dumps(push_body(lines, self._labels)).encode())
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        try:
            answer = self._client.post(self.url, content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise LaterError(f"{self.url}: {type(error).__name__}: {error}") from error
        if answer.is_success:
            return
        said = f"{self.url} answered {answer.status_code}: {answer.text[:200]}"
        if answer.status_code == 429 or answer.status_code >= 500:
            raise LaterError(said, retry_after(answer.headers.get("Retry-After")))
        raise RefusedError(said)


def push_body(lines: list[Line], labels: Mapping[str, str]) -> dict[str, object]:
    """Lines as Loki's push protocol has them: a stream for each level."""
    streams: dict[str, list[list[str]]] = {}
    for line in lines:
        streams.setdefault(line.level, []).append([str(line.at_ns), line.text])
    named = [({**labels, "level": level}, values) for level, values in streams.items()]
    return {"streams": [{"stream": stream, "values": values} for stream, values in named]}


def _size(line: Line) -> int:
    return len(line.text) + 64
