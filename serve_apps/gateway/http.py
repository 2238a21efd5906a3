"""The gateway's HTTP application: health, the OpenAI API, and nnsight's rooms."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serve_apps.contract import GatewayArgs, GatewayConfig
from serve_apps.gateway.backend import Backend, BackendError, GoneError
from serve_apps.gateway.generation import error_response, generation_routes
from serve_apps.gateway.limits import BodyLimit
from serve_apps.gateway.nnsight import nnsight_routes
from serve_apps.gateway.openai import model_body
from serve_apps.gateway.routing import RoutingTable, Serving, Unavailable

MAX_JSON_BYTES = 1024 * 1024

T = TypeVar("T")


def utc_now() -> datetime:
    return datetime.now(UTC)


class Gateway:
    """What all routes share: the routing table, the models, and whose turn it is.

    ``table`` is replaced as a whole by ``reconfigure``; a request keeps the one it began with.
    """

    def __init__(self, args: GatewayArgs, backend: Backend, now: Callable[[], datetime] = utc_now) -> None:
        self.args = args
        self.backend = backend
        self.now = now
        self.table = RoutingTable()
        self._turns = itertools.count()

    def reconfigure(self, config: GatewayConfig) -> None:
        self.table = RoutingTable(config)

    async def find(self, name: str) -> Serving:
        """Whom to call, the next in turn first. Raises ``BackendError`` where nobody is."""
        found = self.table.resolve(name, await self.backend.statuses(), self.now())
        if isinstance(found, Unavailable):
            raise BackendError(found.status, found.code, found.message, found.retry_after_seconds)
        first = next(self._turns) % len(found.applications)
        return Serving(found.route, found.applications[first:] + found.applications[:first])

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
    app = FastAPI(title="NDIF Ray Service", docs_url=None, redoc_url=None)
    app.add_middleware(
        BodyLimit,
        limit=lambda path: gateway.args.max_blob_bytes if path == "/request" else MAX_JSON_BYTES,
    )
    _error_handlers(app)
    _listing_routes(app, gateway)
    app.include_router(generation_routes(gateway))
    app.include_router(nnsight_routes(gateway))
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
        listed = gateway.table.listing(await gateway.backend.statuses(), gateway.now())
        return {"object": "list", "data": [model_body(item) for item in listed]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        listed = gateway.table.listing(await gateway.backend.statuses(), gateway.now())
        for item in listed:
            if name.casefold() in {own.casefold() for own in item.names}:
                return model_body(item)
        await gateway.find(name)
        raise HTTPException(404, f"The model {name[:200]!r} is not listed.")
