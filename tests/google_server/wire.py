"""HTTP on loopback: reads requests, meets them with faults, hands them on, and logs them."""

from __future__ import annotations

import json
import socket
import struct
import threading
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from tests.google_server.api import PREFIX, Call
from tests.google_server.errors import NAMED, ApiError, TokenError, not_found
from tests.google_server.faults import Fault
from tests.google_server.request_log import Request

if TYPE_CHECKING:
    from tests.google_server.server import GoogleServer

HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Sign in to the network</body></html>"


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json; charset=UTF-8"

    def on_the_wire(self, at: datetime) -> bytes:
        """The whole answer; ``at`` is what its ``Date`` says."""
        lines = [f"HTTP/1.1 {self.status} {responses.get(self.status, '')}"]
        lines.append(f"Date: {format_datetime(at, usegmt=True)}")
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.status != 204:
            lines += [f"Content-Type: {self.content_type}", f"Content-Length: {len(self.body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


class Wire(ThreadingHTTPServer):
    """The listening socket; one thread per connection."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, google: GoogleServer, port: int) -> None:
        self.google = google
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(("127.0.0.1", port), Handler)

    def track(self, connection: socket.socket, is_open: bool) -> None:
        with self._guard:
            (self._open.add if is_open else self._open.discard)(connection)

    def drop_all(self) -> None:
        """Ends every connection, as a stopped server does."""
        with self._guard:
            for connection in self._open:
                drop(connection)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


def drop(connection: socket.socket) -> None:
    """Resets a connection: the other side sees it break, not end."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


class Handler(BaseHTTPRequestHandler):
    """One connection, kept open between requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Wire

    def setup(self) -> None:
        super().setup()
        self.server.track(self.connection, True)

    def finish(self) -> None:
        self.server.track(self.connection, False)
        try:
            super().finish()
        except OSError:
            return

    def log_message(self, format: str, *args: object) -> None:
        """The request log is the only log."""

    def do_GET(self) -> None:
        call = self._read()
        at = self.server.google.log.now()
        if call.path.startswith("/control"):
            self._send(self.server.google.control.answer(call))
            return
        fault = self.server.google.faults.strike(call.method, call.path)
        answer = self._faulted(call, fault) if fault else self._served(call)
        # the log is written first: whoever has an answer finds its request there
        self._log(at, call, answer, fault)
        if answer is None or (fault and fault.kind == "drop_after"):
            self._drop()
        elif fault and fault.kind == "truncated":
            whole = answer.on_the_wire(self._clock())
            self.wfile.write(whole[: len(whole) - len(answer.body) // 2 - 1])
            self.close_connection = True
        else:
            self._send(answer)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _read(self) -> Call:
        """The request; a POST with ``X-HTTP-Method-Override: GET`` carries its query as its body."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        url = urlsplit(self.path)
        method, query = self.command, url.query
        if method == "POST" and "x-http-method-override" in headers:
            method = headers["x-http-method-override"].upper()
            if method == "GET":
                query, body = "&".join(part for part in (query, body.decode()) if part), b""
        return Call(method, url.path, parse_qs(query, keep_blank_values=True), headers, body)

    def _served(self, call: Call) -> Answer:
        try:
            if call.path == "/token" and call.method == "POST":
                return json_answer(self.server.google.grant(call.body))
            if not call.path.startswith(PREFIX):
                raise not_found()
            result = self.server.google.api.answer(call)
            return Answer(204) if result is None else json_answer(result)
        except ApiError as error:
            return Answer(error.code, error.body(), error.headers)
        except TokenError as error:
            return Answer(error.code, error.body())

    def _faulted(self, call: Call, fault: Fault) -> Answer | None:
        """What a faulty request is answered; None drops the connection without doing anything."""
        if fault.kind in ("hang", "slow"):
            fault.released.wait(fault.seconds if fault.kind == "slow" else None)
        if fault.kind in ("hang", "drop_before"):
            return None
        if fault.kind == "error":
            error = NAMED[fault.error]()
            return Answer(error.code, error.body(), getattr(error, "headers", {}))
        if fault.kind == "html":
            return Answer(200, HTML, content_type="text/html; charset=UTF-8")
        if fault.kind == "empty":
            return Answer(200)
        return self._served(call)

    def _send(self, answer: Answer) -> None:
        self.wfile.write(answer.on_the_wire(self._clock()))

    def _clock(self) -> datetime:
        """The clock that tokens are judged by: how far off the client's is shows in both."""
        return self.server.google.accounts.now()

    def _drop(self) -> None:
        self.close_connection = True
        drop(self.connection)

    def _log(self, at: datetime, call: Call, answer: Answer | None, fault: Fault | None) -> None:
        log = self.server.google.log
        lost = answer is None or (fault is not None and fault.kind == "drop_after")
        log.add(
            Request(
                at,
                call.method,
                call.path,
                call.query,
                call.headers,
                call.body.decode(errors="replace"),
                call.actor.email if call.actor else None,
                0 if lost or answer is None else answer.status,
                fault.name if fault else None,
            )
        )


def json_answer(content: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(content, indent=1).encode())
