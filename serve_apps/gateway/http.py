"""The gateway's HTTP application: health, the OpenAI API, and nnsight's rooms."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serve_apps.contract import GatewayArgs, GatewayConfig
from serve_apps.gateway.backend import Backend, BackendError, GoneError
from serve_apps.gateway.caller import current
from serve_apps.gateway.dispatch import Dispatcher
from serve_apps.gateway.doorkeeper import Departures, Doorkeeper
from serve_apps.gateway.endings import ENDS_AT, SUNSET, ending_words, ends_soon
from serve_apps.gateway.fairness import FairBackend, FairGate
from serve_apps.gateway.generation import error_response, generation_routes
from serve_apps.gateway.jobs import Desk
from serve_apps.gateway.keys import ANONYMOUS, KEYS_FILE, Caller, KeyStore
from serve_apps.gateway.limits import BodyLimit
from serve_apps.gateway.lines import tell_lines
from serve_apps.gateway.measuring import Measured, MeasuredBackend
from serve_apps.gateway.metrics import Unmetered, current_exchange
from serve_apps.gateway.nnsight import nnsight_routes
from serve_apps.gateway.nnsight_jobs import job_routes
from serve_apps.gateway.openai import model_body
from serve_apps.gateway.routing import RoutingTable, Serving, Unavailable
from serve_apps.telemetry.labels import UNKNOWN

MAX_JSON_BYTES = 1024 * 1024

T = TypeVar("T")


def utc_now() -> datetime:
    return datetime.now(UTC)


class Gateway:
    """What all routes share: the routing table, the models, whose turn it is, and who calls.

    ``table`` is replaced as a whole by ``reconfigure``; a request keeps the one it began with. To be
    used inside ``at_work``, which runs the jobs of nnsight's clients, and closed.
    """

    def __init__(
        self,
        args: GatewayArgs,
        backend: Backend,
        now: Callable[[], datetime] = utc_now,
        meter: Unmetered | None = None,
    ) -> None:
        self.args = args
        self.now = now
        self.meter = meter or Unmetered()
        self.table = RoutingTable()
        self.gate = FairGate(args.queued_per_key, args.queued_per_model)
        self.backend: Backend = MeasuredBackend(FairBackend(backend, self.gate, args.deadline_seconds))
        self.desk = Desk(args, backend, self.meter, self.label, self._ending)
        self._keys = KeyStore(self.desk.folder / KEYS_FILE)
        self._identifying = asyncio.Semaphore(2)
        self._configured = False
        self.dispatcher = Dispatcher(self.desk, lambda: self.table if self._configured else None, now)
        self._turns = itertools.count()

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        async with self.dispatcher.at_work():
            telling = asyncio.create_task(tell_lines(self))
            try:
                yield
            finally:
                telling.cancel()
                await asyncio.gather(telling, return_exceptions=True)

    def label(self, name: str) -> str:
        """What a model is called in metrics, by whatever name a client calls it: there are few of them."""
        return self.table.name_of(name) or UNKNOWN

    def ends(self, until: datetime | None) -> datetime | None:
        """The end of a model's last booking, where it is so near that its clients are told."""
        return ends_soon(until, self.now(), self.args.warn_seconds)

    def _ending(self, name: str) -> str:
        return ending_words(self.ends(self.table.until(name)))

    def close(self) -> None:
        self.meter.close()
        self._keys.close()
        self.desk.close()

    def reconfigure(self, config: GatewayConfig) -> None:
        self.table = RoutingTable(config)
        self._configured = True
        self.desk.wake()

    async def identify(self, key: str | None) -> Caller | None:
        """Whose request it is, None for a stranger. Where no keys are needed, strangers are anonymous.

        OpenAI's clients always send a key, and nnsight's may send one for another service.
        """
        caller = None if key is None else self._keys.recognise(key)
        if key is not None and caller is None:
            # few at once: guessing keys must not take the threads that others need
            async with self._identifying:
                caller = await asyncio.to_thread(self._keys.identify, key)
        return caller if caller is not None or self.args.keys_required else ANONYMOUS

    async def find(self, name: str) -> Serving:
        """Whom to call, the least busy first. Raises ``BackendError`` where nobody is."""
        if (exchange := current_exchange.get()) is not None:
            exchange.model = self.label(name)
        statuses = await self.backend.statuses()
        found = self.table.resolve(name, statuses, self.now(), current.get())
        if isinstance(found, Unavailable):
            raise BackendError(found.status, found.code, found.message, found.retry_after_seconds)
        first = next(self._turns) % len(found.applications)
        rotated = found.applications[first:] + found.applications[:first]
        # sorting keeps the order of those that are equally busy
        by_load = sorted(rotated, key=lambda one: self.gate.load(one) / max(1, statuses[one].replicas))
        return Serving(found.route, tuple(by_load))

    async def ask(self, serving: Serving, call: Callable[[str], Awaitable[T]]) -> T:
        """Calls the model's applications in order until one was there to take the request."""
        gone: GoneError | None = None
        for application in serving.applications:
            try:
                return await call(application)
            except GoneError as error:
                gone = error
        assert gone is not None, "a route without applications is not serving"
        raise gone


def make_app(gateway: Gateway) -> FastAPI:
    """The application. ``gateway.args.max_blob_bytes`` bounds nnsight's uploads, 1 MiB the rest."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with gateway.at_work():
            yield

    app = FastAPI(title="NDIF Ray Service", docs_url=None, redoc_url=None, lifespan=lifespan)
    # the last one added is the first to see a request
    app.add_middleware(
        BodyLimit,
        limit=lambda path: gateway.args.max_blob_bytes if path == "/request" else MAX_JSON_BYTES,
    )
    app.add_middleware(Departures)
    app.add_middleware(Doorkeeper, gateway=gateway)
    if gateway.args.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=gateway.args.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=[ENDS_AT, SUNSET],
        )
    app.add_middleware(Measured, meter=gateway.meter)
    _error_handlers(app)
    _listing_routes(app, gateway)
    app.include_router(generation_routes(gateway))
    app.include_router(nnsight_routes(gateway))
    app.include_router(job_routes(gateway))
    return app


def _error_handlers(app: FastAPI) -> None:
    @app.exception_handler(BackendError)
    async def backend_error(request: Request, error: BackendError) -> JSONResponse:
        return error_response(error.status, error.message, error.code, retry_after=error.retry_after_seconds)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        text = f"{place}: {first['msg']}" if place else str(first["msg"])
        status = 400 if request.url.path.startswith("/v1/") else 422
        return error_response(status, text[:500], "invalid_body", param=place[:200] or None)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        return error_response(error.status_code, str(error.detail), None, headers=error.headers)


def _listing_routes(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        listed = gateway.table.listing(await gateway.backend.statuses(), gateway.now(), current.get())
        return {"object": "list", "data": [model_body(item) for item in listed]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        listed = gateway.table.listing(await gateway.backend.statuses(), gateway.now(), current.get())
        for item in listed:
            if name.casefold() in {own.casefold() for own in item.names}:
                return model_body(item)
        await gateway.find(name)
        raise HTTPException(404, f"The model {name[:200]!r} is not listed.")
