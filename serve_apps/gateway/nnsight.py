"""The protocol of nnsight's own client (``remote=True``), thin: jobs live in this process's memory.

A traced block is code, and running it is trusting its sender: it is taken only while the gateway
listens on loopback, and not from a web page. Payloads and results pass through as bytes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import secrets
import sys
import time
import uuid
from collections import OrderedDict
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, File, Form, Request, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.exceptions import HTTPException
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serve_apps.gateway.backend import BackendError, GoneError
from serve_apps.gateway.routing import AppState, Serving, parse_model_key, state_of
from serve_apps.messages import BlockRequest, Frame, FrameKind

if TYPE_CHECKING:
    from serve_apps.gateway.http import Gateway

INLINE_LIMIT_BYTES = 16 * 1024**2
"""Larger results go by URL, which is faster above about this size."""
MAX_JOBS = 1000
MAX_SESSIONS = 1000
RESULT_SECONDS = 3600
ATTENTION = frozenset({"eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"})
"""Implementations a client may choose; any other name could be fetched as code from the Hub."""


class Envelope(BaseModel):
    """The JSON beside a payload."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    model_key: str = Field(min_length=1, max_length=2000)
    session_id: str = Field(default="", max_length=200)
    compress: bool = False
    env: dict[str, Any] = Field(default_factory=dict, max_length=16)


class Session:
    """An open websocket: what is to be sent, and the jobs that end with it."""

    def __init__(self) -> None:
        self.outgoing: asyncio.Queue[str | bytes] = asyncio.Queue()
        self.jobs: set[asyncio.Task[None]] = set()


class Held:
    """Results waiting to be fetched, by unguessable name; the oldest go when room is needed."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._items: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    def put(self, data: bytes) -> str:
        """Raises ``BackendError`` for a result larger than everything that may be held."""
        if len(data) > self._max_bytes:
            text = f"The result has {len(data)} bytes; at most {self._max_bytes} can be held. Save less."
            raise BackendError(413, "result_too_large", text)
        held = sum(len(item) for _, item in self._items.values())
        old = time.monotonic() - RESULT_SECONDS
        while self._items:
            name, (stored_at, item) = next(iter(self._items.items()))
            if stored_at > old and held + len(data) <= self._max_bytes:
                break
            held -= len(item)
            del self._items[name]
        name = secrets.token_urlsafe(32)
        self._items[name] = (time.monotonic(), data)
        return name

    def get(self, name: str) -> bytes | None:
        stored_at, data = self._items.get(name, (0.0, None))
        return data if time.monotonic() - stored_at < RESULT_SECONDS else None


class JobBoard:
    """All jobs of this gateway. Their ids are made here, never taken from a client."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.sessions: dict[str, Session] = {}
        self.answers: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.held = Held(gateway.args.max_held_bytes)
        self._polled: set[asyncio.Task[None]] = set()

    def start(self, envelope: Envelope, payload: bytes, serving: Serving, base_url: str) -> dict[str, Any]:
        """Begins a job and returns its RECEIVED status."""
        session = self.sessions.get(envelope.session_id)
        if envelope.session_id and session is None:
            raise HTTPException(400, "This session is not open here: subscribe first, then send.")
        job = Job(self, session, base_url)
        received = job.status("RECEIVED", "Your job has been received.")
        request = BlockRequest(
            job_id=job.id,
            payload=payload,
            compress=envelope.compress,
            env=envelope.env,
            inline_limit=INLINE_LIMIT_BYTES if session is not None else 0,
        )
        task = asyncio.create_task(job.run(self._gateway, serving, request))
        tasks = session.jobs if session is not None else self._polled
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return received

    def note(self, job_id: str, answer: dict[str, Any]) -> None:
        self.answers[job_id] = answer
        while len(self.answers) > MAX_JOBS:
            self.answers.popitem(last=False)


class Job:
    def __init__(self, board: JobBoard, session: Session | None, base_url: str) -> None:
        self.id = str(uuid.uuid4())
        self._board = board
        self._session = session
        self._base_url = base_url
        self._meta: dict[str, Any] | None = None

    def status(self, status: str, description: str = "", data: str | None = None) -> dict[str, Any]:
        """A status in the client's shape; kept for polling where no websocket waits for it."""
        ends = status in ("COMPLETED", "ERROR")
        meta = self._meta if ends else None
        answer = {"id": self.id, "status": status, "description": description, "data": data, "meta": meta}
        # a printed line is not a state: a client that polls would take it for the latest
        if self._session is None and status != "LOG":
            self._board.note(self.id, answer)
        return answer

    def tell(self, status: str, description: str = "", data: str | None = None) -> None:
        answer = self.status(status, description, data)
        if self._session is not None:
            self._session.outgoing.put_nowait(json.dumps(answer))

    async def run(self, gateway: Gateway, serving: Serving, request: BlockRequest) -> None:
        """Runs to the last frame; whatever goes wrong is told as ERROR, before anything closes."""
        self.tell("QUEUED", "Waiting for its turn.")
        try:
            for application in serving.applications:
                try:
                    async for frame in gateway.backend.run_block(application, request):
                        self._take(frame)
                    return
                except GoneError as error:
                    if application == serving.applications[-1]:
                        raise error
        except BackendError as error:
            self.tell("ERROR", error.message)

    def _take(self, frame: Frame) -> None:
        match frame.kind:
            case FrameKind.RUNNING:
                self.tell("RUNNING", "Your job is running.")
            case FrameKind.LOG:
                self.tell("LOG", frame.data.decode(errors="replace"))
            case FrameKind.META:
                self._meta = json.loads(frame.data)
            case FrameKind.ERROR:
                self.tell("ERROR", frame.data.decode(errors="replace"))
            case FrameKind.COMPLETED if self._session is not None:
                self._session.outgoing.put_nowait(frame.data)
            case FrameKind.RESULT:
                name = self._board.held.put(frame.data)
                self.tell("COMPLETED", "Your job has been completed.", f"{self._base_url}results/{name}")


def nnsight_routes(gateway: Gateway) -> APIRouter:
    router = APIRouter()
    board = JobBoard(gateway)

    @router.websocket("/subscribe")
    async def subscribe(socket: WebSocket) -> None:
        await socket.accept()
        if len(board.sessions) >= MAX_SESSIONS:
            await socket.close(1013, "too many open sessions")
            return
        await _serve_session(board, socket)

    @router.post("/request")
    async def request(
        http: Request, data: Annotated[str, Form()], blob: Annotated[UploadFile, File()]
    ) -> JSONResponse:
        refuse_untrusted(http, gateway.args.loopback_only)
        try:
            envelope = Envelope.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            raise HTTPException(422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        refuse_env(envelope.env)
        if parse_model_key(envelope.model_key) is None:
            raise HTTPException(422, 'model_key must be "import.path.Class:{json}".')
        serving = await gateway.find(envelope.model_key)
        return JSONResponse(board.start(envelope, await blob.read(), serving, str(http.base_url)))

    @router.get("/response/{job_id}")
    async def response(job_id: str) -> JSONResponse:
        answer = board.answers.get(job_id)
        if answer is None:
            raise HTTPException(404, "There is no such job, or nothing is known of it yet.")
        return JSONResponse(answer)

    @router.get("/results/{name}")
    async def result(name: str) -> Response:
        data = board.held.get(name)
        if data is None:
            raise HTTPException(404, "This result is not held any more.")
        return Response(data, media_type="application/octet-stream")

    _plain_routes(router, gateway)
    return router


def _plain_routes(router: APIRouter, gateway: Gateway) -> None:
    @router.get("/ping")
    async def ping() -> str:
        return "pong"

    @router.get("/connected")
    async def connected() -> dict[str, str]:
        return {"status": "connected"}

    @router.get("/whoami")
    async def whoami() -> dict[str, Any]:
        return {"email": None, "tags": []}

    @router.get("/env")
    async def env() -> dict[str, Any]:
        return {"python_version": sys.version, "packages": await asyncio.to_thread(installed_packages)}

    @router.get("/status")
    async def status() -> dict[str, Any]:
        statuses = await gateway.backend.statuses()
        states = {
            AppState.SERVING: "RUNNING",
            AppState.LOADING: "DEPLOYING",
            AppState.FAILED: "UNHEALTHY",
        }
        deployments = {}
        for route in gateway.table.routes:
            named = json.loads(route.model_key.partition(":")[2])
            for application in route.applications:
                deployments[application] = {
                    "application_state": states[state_of(application, statuses)],
                    "deployment_level": "HOT",
                    "model_key": route.model_key,
                    "replica_id": application,
                    "repo_id": named.get("repo_id"),
                    "task": named.get("task"),
                    "revision": named.get("revision") or "main",
                    "trust_remote_code": named.get("trust_remote_code", False),
                }
        return {"deployments": deployments, "cluster": {}}


async def _serve_session(board: JobBoard, socket: WebSocket) -> None:
    """Tells the client its session, then passes on what its jobs say, until it leaves."""
    session_id, session = secrets.token_urlsafe(24), Session()
    board.sessions[session_id] = session

    async def send() -> None:
        await socket.send_text(json.dumps({"session_id": session_id}))
        while True:
            item = await session.outgoing.get()
            await (socket.send_bytes(item) if isinstance(item, bytes) else socket.send_text(item))

    async def listen() -> None:
        # the client sends nothing; reading is how its leaving is noticed
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass

    tasks = [asyncio.create_task(send()), asyncio.create_task(listen())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if not isinstance(task.exception(), WebSocketDisconnect | RuntimeError | None):
                task.result()
    finally:
        del board.sessions[session_id]
        for task in [*tasks, *session.jobs]:
            task.cancel()


def refuse_untrusted(http: Request, loopback_only: bool) -> None:
    """Raises 403 for whoever may not run code here.

    On loopback that is anyone on this machine, except through a browser: any web page can make it
    post a form to 127.0.0.1, directly or by a name that resolves to it. The first shows by its
    ``Origin``, the second by a ``Host`` that is not a loopback name.
    """
    if not loopback_only:
        raise HTTPException(
            403, "Traced blocks run code, and this gateway listens beyond loopback: they are refused."
        )
    if not _is_loopback(http.url.hostname):
        raise HTTPException(403, f"Traced blocks are taken on 127.0.0.1 only, not on {http.url.hostname}.")
    origin = http.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != http.headers.get("host"):
        raise HTTPException(403, "Traced blocks are not taken from web pages.")


def _is_loopback(host: str | None) -> bool:
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.casefold() == "localhost"


def refuse_env(env: dict[str, Any]) -> None:
    """Raises 403 for an environment that would have the replica fetch something."""
    attention = env.get("attn_implementation")
    if attention is not None and attention not in ATTENTION:
        raise HTTPException(403, f"The attention implementation {attention!r:.100} is not allowed here.")
    others = sorted(name for name, value in env.items() if name != "attn_implementation" and value)
    if others:
        raise HTTPException(403, f"Not allowed here: {', '.join(others)[:200]}.")


@cache
def installed_packages() -> dict[str, str]:
    """Versions by import name, as nnsight's ``compare()`` lists them."""
    versions: dict[str, str] = {}
    for import_name, names in metadata.packages_distributions().items():
        for name in names:
            versions[import_name] = metadata.version(name)
    return versions
