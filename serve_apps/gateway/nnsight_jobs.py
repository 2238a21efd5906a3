"""The jobs of nnsight's own client (``remote=True``) over HTTP and websocket.

A traced block is code, and running it is trusting its sender: it is taken from callers whose key says
so, or from anyone while the gateway listens on loopback and asks nobody for a key, except through a
web page. What the client names besides is matched against what is allowed before anything loads.
"""

from __future__ import annotations

import ipaddress
import time
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, WebSocket
from fastapi.exceptions import HTTPException
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile

from serve_apps.contract import GatewayArgs
from serve_apps.gateway import jobs_table, replicas_table
from serve_apps.gateway.backend import BackendError
from serve_apps.gateway.caller import current
from serve_apps.gateway.jobs import clock, status_body
from serve_apps.gateway.jobs_table import Job, QueueFull
from serve_apps.gateway.routing import KNOWN_IN_KEYS, ModelIdentity, Unavailable, parse_model_key
from serve_apps.gateway.sessions import serve_session
from serve_apps.providers.object_store import DiskStore

if TYPE_CHECKING:
    from serve_apps.gateway.http import Gateway

MAX_SESSIONS = 1000
MAX_STRANGERS = 50
"""Websockets of callers without a valid key, who are told so when they send their job."""
STRANGER_SECONDS = 15.0
MAX_LISTED = 100
RETRY_SECONDS = 10
ATTENTION = frozenset({"eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"})
"""Implementations a client may choose; any other name could be fetched as code from the Hub."""
REQUEST_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["data", "blob"],
                "properties": {
                    "data": {"type": "string", "description": "JSON: model_key, session_id, compress, env"},
                    "blob": {"type": "string", "format": "binary"},
                },
            }
        }
    },
}
WRAPPERS = frozenset({"nnsight.modeling.transformers.TransformersModel"})
"""Classes a model key may name: whatever it names would be imported."""


class Envelope(BaseModel):
    """The JSON beside a payload."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    model_key: str = Field(min_length=1, max_length=2000)
    session_id: str = Field(default="", max_length=200)
    compress: bool = False
    env: dict[str, Any] = Field(default_factory=dict, max_length=16)


def job_routes(gateway: Gateway) -> APIRouter:
    router = APIRouter()
    _websocket(router, gateway)
    _request(router, gateway)
    _jobs(router, gateway)

    @router.get("/results/{name}", response_class=FileResponse)
    async def result(name: str, expires: int, signature: str) -> Response:
        """A result, by the signed link that its client was given."""
        store = gateway.desk.store
        path = store.open(name, expires, signature, time.time()) if isinstance(store, DiskStore) else None
        if path is None:
            raise HTTPException(404, "This link has expired, or it was never given.")
        return FileResponse(path, media_type="application/octet-stream")

    return router


def _websocket(router: APIRouter, gateway: Gateway) -> None:
    strangers = 0

    @router.websocket("/subscribe")
    async def subscribe(socket: WebSocket) -> None:
        nonlocal strangers
        desk, known = gateway.desk, socket.state.known
        await socket.accept()
        if len(desk.sessions) >= MAX_SESSIONS or (not known and strangers >= MAX_STRANGERS):
            await socket.close(1013, "too many open sessions")
            return
        strangers += not known
        try:
            async with desk.session(current.get().owner) as session:
                await (
                    serve_session(session, socket)
                    if known
                    else serve_session(session, socket, STRANGER_SECONDS)
                )
        finally:
            strangers -= not known


def _request(router: APIRouter, gateway: Gateway) -> None:
    desk = gateway.desk

    @router.post("/request", openapi_extra={"requestBody": REQUEST_BODY})
    async def request(http: Request) -> JSONResponse:
        """Takes a traced block in; answers RECEIVED with the job's id."""
        # before a byte of the body is read, which is why FastAPI does not read it
        refuse_untrusted(http, gateway.args)
        async with http.form(max_files=1, max_fields=4) as form:
            data, blob = form.get("data"), form.get("blob")
            if not isinstance(data, str) or not isinstance(blob, UploadFile):
                raise HTTPException(422, "A job is a form with the field data (JSON) and the file blob.")
            job = await _checked(gateway, http, _envelope(data), blob.size or 0)
            try:
                await desk.submit(job, blob.file)
            except QueueFull as full:
                raise BackendError(full.status, "queue_full", full.message, RETRY_SECONDS) from full
        if job.session in desk.sessions:
            desk.sessions[job.session].in_use.set()
        return JSONResponse(status_body(job.id, job.status, job.description))


async def _checked(gateway: Gateway, http: Request, envelope: Envelope, payload_bytes: int) -> Job:
    """The job that a client asks for. Raises what is wrong with it, before anything is kept."""
    refuse_env(envelope.env, gateway.args.allowed_adapters)
    identity = checked_model_key(envelope.model_key)
    owner, session = current.get().owner, envelope.session_id or None
    if session is not None and not await gateway.desk.database.run(
        replicas_table.session_is_open, session, owner
    ):
        raise HTTPException(400, "This session is not open here: subscribe first, then send.")
    await _expect_model(gateway, envelope.model_key)
    now = time.time()
    until = now + gateway.args.max_wait_seconds
    return Job(
        id=str(uuid.uuid4()),
        owner=owner,
        model=canonical(identity),
        model_key=envelope.model_key,
        session=session,
        compress=envelope.compress,
        env=envelope.env,
        base_url=base_url(http, gateway.args),
        payload_bytes=payload_bytes,
        created=now,
        wait_until=until,
        description=f"Your job has been received; it waits until {clock(until)} at the longest.",
    )


def _jobs(router: APIRouter, gateway: Gateway) -> None:
    desk = gateway.desk

    async def mine(job_id: str) -> Job:
        # another's job is as unknown as one that never was
        job = await desk.database.run(jobs_table.find, job_id, current.get().owner)
        if job is None:
            raise HTTPException(404, "There is no such job of yours.")
        return job

    async def told(job: Job, http: Request) -> dict[str, Any]:
        place = None
        if job.status == "QUEUED" and job.replica is None and job.ended is None:
            line = await desk.database.run(jobs_table.in_turn, job.model)
            place = next((n for n, one in enumerate(line) if one.id == job.id and n), None)
        return await desk.answer(job, base_url(http, gateway.args), place)

    @router.get("/response/{job_id}")
    async def response(job_id: str, http: Request) -> JSONResponse:
        """How a job is; what nnsight's client polls."""
        return JSONResponse(await told(await mine(job_id), http))

    @router.get("/jobs")
    async def jobs(http: Request) -> JSONResponse:
        """The caller's last jobs, the newest first."""
        if not current.get().owner:
            # callers without a key cannot be told apart, and an id is all that keeps their jobs their own
            raise HTTPException(403, "Jobs are listed for a key only; without one, keep the ids.")
        found = await desk.database.run(jobs_table.jobs_of, current.get().owner, MAX_LISTED)
        return JSONResponse([await told(job, http) for job in found])

    @router.delete("/jobs/{job_id}")
    async def cancel(job_id: str) -> JSONResponse:
        """Cancels a job; one that has ended already stays as it is."""
        job = await mine(job_id)
        if job.ended is not None:
            raise HTTPException(409, f"This job has ended already ({job.status}).")
        await desk.cancel(job)
        return JSONResponse(status_body(job.id, "ERROR", jobs_table.CANCELLED), 202)


async def _expect_model(gateway: Gateway, model_key: str) -> None:
    """Raises ``BackendError`` unless the model serves, or comes within the time a job may wait."""
    statuses = await gateway.backend.statuses()
    found = gateway.table.resolve(model_key, statuses, gateway.now(), current.get())
    if not isinstance(found, Unavailable):
        return
    most = gateway.args.max_wait_seconds
    if found.job_status is not None and (found.retry_after_seconds or 0) <= most:
        return
    message = found.message
    if found.job_status is not None:
        message += f" Jobs are taken from {most / 60:.0f} minutes before that."
    raise BackendError(found.status, found.code, message, found.retry_after_seconds)


def _envelope(data: str) -> Envelope:
    try:
        return Envelope.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise HTTPException(422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:500]) from error


def checked_model_key(text: str) -> ModelIdentity:
    """The model a key names. Raises 422 for what is no key, 403 for a class or argument not allowed."""
    identity = parse_model_key(text)
    if identity is None:
        known = ", ".join(sorted(KNOWN_IN_KEYS))
        raise HTTPException(422, f'model_key must be "import.path.Class:{{json}}" with no more than {known}.')
    if identity.wrapper not in WRAPPERS:
        allowed = ", ".join(sorted(WRAPPERS))
        raise HTTPException(403, f"The class {identity.wrapper[:100]!r} is not allowed here; {allowed} is.")
    return identity


def canonical(identity: ModelIdentity) -> str:
    """One text for all spellings of a model key."""
    return "\n".join(str(part) for part in identity)


def base_url(http: Request, args: GatewayArgs) -> str:
    """Where this client finds the gateway, with a slash at the end."""
    return f"{args.public_url.rstrip('/')}/" if args.public_url else str(http.base_url)


def refuse_untrusted(http: Request, args: GatewayArgs) -> None:
    """Raises 403 for whoever may not run code here.

    Where no key is needed that is anyone on this machine, except through a browser: any web page can
    make it post a form to 127.0.0.1, directly or by a name that resolves to it. The first shows by
    its ``Origin``, the second by a ``Host`` that is not a loopback name. A key is a header that a
    page cannot send to another origin unbidden.
    """
    if args.keys_required:
        if not current.get().trusted:
            raise HTTPException(
                403,
                "Traced blocks run code here, and this key is not trusted with that. The operator can make "
                "one that is, with “keys add --trusted”.",
            )
        return
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


def refuse_env(env: dict[str, Any], adapters: tuple[str, ...]) -> None:
    """Raises 403 for an environment that would have the replica fetch what is not allowed."""
    attention = env.get("attn_implementation")
    if attention is not None and not (isinstance(attention, str) and attention in ATTENTION):
        allowed = ", ".join(sorted(ATTENTION))
        raise HTTPException(
            403, f"The attention implementation {attention!r:.100} is not allowed here; these are: {allowed}."
        )
    adapter = env.get("peft")
    if adapter and adapter not in adapters:
        allowed = ", ".join(adapters) or "none"
        raise HTTPException(403, f"The adapter {adapter!r:.100} is not allowed here; these are: {allowed}.")
    others = sorted(
        name for name, value in env.items() if name not in ("attn_implementation", "peft") and value
    )
    if others:
        raise HTTPException(403, f"Not allowed here: {', '.join(others)[:200]}.")
