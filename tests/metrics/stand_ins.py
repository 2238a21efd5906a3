"""Servers of Loki's and InfluxDB's write protocols, as strict as the real ones about what comes in."""

from __future__ import annotations

import gzip
import json
import queue
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
WAIT_SECONDS = 30.0


@dataclass
class StandIn:
    """``answers`` is what it says next, status and headers, instead of taking what comes; then it takes all.

    ``taken`` has what was accepted, in order; ``refused`` why something was not.
    """

    url: str = ""
    answers: queue.SimpleQueue[tuple[int, dict[str, str]]] = field(default_factory=queue.SimpleQueue)
    taken: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    refused: list[str] = field(default_factory=list)
    asked: queue.SimpleQueue[int] = field(default_factory=queue.SimpleQueue)

    def take(self) -> Any:
        """The next thing that was accepted; waits for it."""
        return self.taken.get(timeout=WAIT_SECONDS)

    def wait_asked(self) -> int:
        """The status of the next answer that was given."""
        return self.asked.get(timeout=WAIT_SECONDS)

    def receive(self, handler: BaseHTTPRequestHandler, body: bytes) -> Any:
        """What a request holds. Raises ``ValueError`` for what the protocol does not allow."""
        raise NotImplementedError


class LokiServer(StandIn):
    """Takes ``POST /loki/api/v1/push``."""

    def receive(self, handler: BaseHTTPRequestHandler, body: bytes) -> Any:
        if handler.path != "/loki/api/v1/push" or handler.headers["Content-Type"] != "application/json":
            raise ValueError(f"{handler.path} {handler.headers['Content-Type']}")
        pushed = json.loads(body)
        if set(pushed) != {"streams"} or not pushed["streams"]:
            raise ValueError(f"keys {sorted(pushed)}")
        for one in pushed["streams"]:
            labels, values = one["stream"], one["values"]
            if not labels or not all(LABEL_NAME.fullmatch(name) for name in labels):
                raise ValueError(f"labels {labels}")
            if not all(isinstance(value, str) and value for value in labels.values()):
                raise ValueError(f"labels {labels}")
            for at, line in values:
                if not (isinstance(at, str) and re.fullmatch(r"\d{19}", at) and isinstance(line, str)):
                    raise ValueError(f"entry {at!r} {line!r}")
        return pushed["streams"]


@dataclass
class InfluxServerStandIn(StandIn):
    """Takes ``POST /api/v2/write`` for one bucket and token; ``taken`` gets parsed points."""

    token: str = "t0ken-of-the-tests"
    org: str = "ndif"
    bucket: str = "ndif"

    def receive(self, handler: BaseHTTPRequestHandler, body: bytes) -> Any:
        parts = urlsplit(handler.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path != "/api/v2/write":
            raise ValueError(handler.path)
        if handler.headers["Authorization"] != f"Token {self.token}":
            raise PermissionError("unauthorized access")
        if query != {"org": self.org, "bucket": self.bucket, "precision": "ns"}:
            raise LookupError(f"bucket not found: {query}")
        return [parse_point(line) for line in body.decode().splitlines()]


@dataclass(frozen=True)
class Point:
    """One line of the line protocol, read back."""

    measurement: str
    tags: dict[str, str]
    fields: dict[str, float | int | str]
    at_ns: int


def parse_point(line: str) -> Point:
    """Reads one line by the rules of InfluxDB's line protocol. Raises ``ValueError``."""
    key, fields, at = _split(line, " ", 2)
    measurement, *tags = _split(key, ",")
    pairs = [_split(tag, "=", 1) for tag in tags]
    if any(not name or not value for name, value in pairs):
        raise ValueError(f"an empty tag in {line!r}")
    found = {}
    for one in _split(fields, ","):
        name, text = _split(one, "=", 1)
        found[_plain(name)] = _value(text)
    if not found:
        raise ValueError(f"no field in {line!r}")
    return Point(_plain(measurement), {_plain(name): _plain(value) for name, value in pairs}, found, int(at))


def _value(text: str) -> float | int | str:
    if text.startswith('"'):
        if not (len(text) >= 2 and text.endswith('"')):
            raise ValueError(f"the string {text!r}")
        return text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if text.endswith("i"):
        return int(text[:-1])
    return float(text)


def _plain(text: str) -> str:
    return re.sub(r"\\([,= ])", r"\1", text)


def _split(text: str, by: str, most: int = -1) -> list[str]:
    """Split where a character is neither escaped nor inside a quoted string."""
    parts, current, quoted, escaped = [], "", False, False
    for character in text:
        if character == by and not quoted and not escaped and (most < 0 or len(parts) < most):
            parts.append(current)
            current = ""
            continue
        if character == '"' and not escaped:
            quoted = not quoted
        escaped = character == "\\" and not escaped
        current += character
    return [*parts, current]


def judge(stand_in: StandIn, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], str]:
    """What to answer: status, headers, and why."""
    if not stand_in.answers.empty():
        status, headers = stand_in.answers.get()
        return status, headers, "not now"
    try:
        stand_in.taken.put(stand_in.receive(handler, body))
    except PermissionError as error:
        return 401, {}, str(error)
    except LookupError as error:
        return 404, {}, str(error)
    except ValueError as error:
        stand_in.refused.append(str(error))
        return 400, {}, str(error)
    return 204, {}, ""


@contextmanager
def serving(stand_in: StandIn) -> Iterator[Any]:
    """The stand-in listens inside, at its ``url``."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            self._answer(*judge(stand_in, self, body))

        def _answer(self, status: int, headers: dict[str, str], text: str) -> None:
            content = json.dumps({"code": "said", "message": text}).encode() if text else b""
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            stand_in.asked.put(status)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    stand_in.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
