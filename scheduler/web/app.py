"""The application: its doors, its routes, and what it answers where something is wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles

from scheduler.errors import OperatorError
from scheduler.metrics.targets import metrics_targets
from scheduler.supposing import Busy, TooLong
from scheduler.web.access import Door, Doorkeeper, Reader, through_proxy
from scheduler.web.api import api
from scheduler.web.commands import Unknown
from scheduler.web.desk import Desk, NothingYet
from scheduler.web.live import Pulse
from scheduler.web.page import page

HERE = Path(__file__).parent
SILENT_FOR = timedelta(minutes=5)
"""A daemon that has shown nothing for so long is not well."""
Exposition = Callable[[], tuple[bytes, str]]
STATUS: dict[type[OperatorError], int] = {NothingYet: 503, Busy: 429, TooLong: 504, Unknown: 404}


def make_app(desk: Desk, exposition: Exposition | None = None) -> FastAPI:
    """The page and its API.

    Args:
        exposition: what Prometheus reads at ``/metrics``, and its media type.
    """
    pulse, doorkeeper = Pulse(desk.board), Doorkeeper(desk.settings.web)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with pulse.beating():
            yield

    app = FastAPI(
        title="NDIF Ray Service",
        version="1",
        summary="What the calendar makes of the cluster",
        description="Reads for everybody, orders for whoever has the operator's key. Instants are in UTC, "
        "sizes in bytes, durations in seconds.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # both load their parts from elsewhere; /api shows the same
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.doorkeeper = doorkeeper
    app.include_router(api(desk, doorkeeper, pulse))
    app.include_router(page(desk, doorkeeper.has_key, app.openapi))
    _plain_routes(app, desk, exposition)
    _answer_problems(app)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    app.add_middleware(GZipMiddleware, minimum_size=4096, compresslevel=3)
    app.add_middleware(Door, doorkeeper=doorkeeper)
    return app


def _plain_routes(app: FastAPI, desk: Desk, exposition: Exposition | None) -> None:
    @app.get("/healthz", include_in_schema=False)
    def healthz() -> Response:
        view = desk.board.current
        well = view is not None and desk.clock() - view.at < SILENT_FOR
        return PlainTextResponse("ok" if well else "the daemon is silent", 200 if well else 503)

    if exposition is not None:

        @app.get("/metrics", include_in_schema=False)
        def metrics(request: Request, reader: Reader) -> Response:
            # they name what is private, too, and are for Prometheus, which comes by itself
            if through_proxy(request.headers) and not reader.everything:
                said = {"detail": "Metrics are not told through a proxy.", "remedy": "Ask the daemon itself."}
                raise HTTPException(403, said)
            content, media_type = exposition()
            return Response(content, headers={"content-type": media_type})

        @app.get("/metrics/targets", include_in_schema=False)
        def targets() -> Response:
            return JSONResponse(metrics_targets(desk.settings))


def _answer_problems(app: FastAPI) -> None:
    """Problems have one shape: what is wrong, and what to do about it."""

    @app.exception_handler(OperatorError)
    def operator_error(_: Request, problem: OperatorError) -> Response:
        status = next((code for kind, code in STATUS.items() if isinstance(problem, kind)), 409)
        headers = {"retry-after": "5"} if status in (429, 503) else None
        return JSONResponse({"detail": problem.reason, "remedy": problem.remedy}, status, headers)

    @app.exception_handler(HTTPException)
    def http_exception(_: Request, problem: HTTPException) -> Response:
        detail: object = problem.detail  # ours are given both parts
        said = detail if isinstance(detail, dict) else {"detail": str(detail)}
        return JSONResponse({"remedy": ""} | said, problem.status_code, problem.headers)
