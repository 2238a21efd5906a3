"""What the gateway asks of Serve, behind one protocol; every call has a deadline."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from serve_apps.contract import MODEL_DEPLOYMENT
from serve_apps.gateway.routing import AppState, AppStatus, Statuses
from serve_apps.messages import (
    BlockRequest,
    Chunk,
    EmbeddingRequest,
    Embeddings,
    Frame,
    GenerationRequest,
    Refusal,
)

logger = logging.getLogger("ray.serve")

REPLICA_DIED = "replica_died"
STATUS_AGE_SECONDS = 1.0
"""Age after which the view of Serve's applications is read again."""
STATUS_DEADLINE_SECONDS = 5.0
"""Longest wait for Serve's controller; after it the last view stands."""

T = TypeVar("T")


class BackendError(Exception):
    """A model could not be asked or did not answer: ``status`` and text are for the client."""

    def __init__(self, status: int, code: str, message: str, retry_after_seconds: int | None = None):
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_seconds = retry_after_seconds


class GoneError(BackendError):
    """The application was not there to take the request: nothing ran, another one may be asked."""


class Backend(Protocol):
    """The models, as the gateway sees them. Names are those of Serve applications.

    All raise ``BackendError`` (``GoneError`` where the request never began), and end what they
    started when the caller is cancelled or closes the generator.
    """

    async def statuses(self) -> Statuses: ...

    async def complete(self, application: str, request: GenerationRequest) -> Chunk | Refusal: ...

    async def embed(self, application: str, request: EmbeddingRequest) -> Embeddings | Refusal: ...

    def stream(
        self, application: str, request: GenerationRequest
    ) -> AsyncGenerator[Chunk | Refusal, None]: ...

    def run_block(self, application: str, request: BlockRequest) -> AsyncGenerator[Frame, None]: ...


class ServeBackend:
    """The models behind Ray Serve, reached by handles.

    A handle of an application whose replica is still in ``__init__`` waits for ever, and a missing
    application is only noticed by asking the controller, so a view of Serve's statuses at most
    ``STATUS_AGE_SECONDS`` old decides who is called.
    """

    def __init__(self, deadline_seconds: float) -> None:
        self._deadline_seconds = deadline_seconds
        self._handles: dict[str, Any] = {}
        self._statuses: Statuses = {}
        self._read_at = -float("inf")
        self._reading: asyncio.Task[None] | None = None

    async def statuses(self) -> Statuses:
        if time.monotonic() - self._read_at >= STATUS_AGE_SECONDS:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read_statuses())
            # one reading for all who wait, which none of them may cancel
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._reading), STATUS_DEADLINE_SECONDS)
        return self._statuses

    async def _read_statuses(self) -> None:
        try:
            self._statuses = await asyncio.to_thread(read_statuses, self._statuses)
        except Exception:
            # a controller that restarts is back in seconds and no replica stops for it
            logger.exception("Serve's statuses could not be read; the last view stands")
        self._read_at = time.monotonic()

    async def complete(self, application: str, request: GenerationRequest) -> Chunk | Refusal:
        answer: Chunk | Refusal = await self._answer(application, "complete", request)
        return answer

    async def embed(self, application: str, request: EmbeddingRequest) -> Embeddings | Refusal:
        answer: Embeddings | Refusal = await self._answer(application, "embed", request)
        return answer

    async def _answer(self, application: str, method: str, request: Any) -> Any:
        handle = await self._handle(application)
        response = getattr(handle, method).remote(request)
        try:
            return await self._in_time(response, self._deadline_seconds)
        except Exception as error:
            raise await self._told(error, application) from error
        finally:
            # after an answer this does nothing
            response.cancel()

    def stream(self, application: str, request: GenerationRequest) -> AsyncGenerator[Chunk | Refusal, None]:
        return self._generate(application, "stream", request, self._deadline_seconds)

    def run_block(self, application: str, request: BlockRequest) -> AsyncGenerator[Frame, None]:
        # it may wait at the model for what is longest there, and then run as long as it may
        seconds = self._deadline_seconds + request.limit_seconds
        return self._generate(application, "run_block", request, seconds)

    async def _generate(
        self, application: str, method: str, request: Any, seconds: float
    ) -> AsyncGenerator[Any, None]:
        handle = await self._handle(application)
        items = getattr(handle.options(stream=True), method).remote(request)
        ends_at = time.monotonic() + seconds
        begun = False
        try:
            while True:
                try:
                    item = await self._in_time(anext(items), ends_at - time.monotonic())
                except StopAsyncIteration:
                    return
                begun = True
                yield item
        except Exception as error:
            told = await self._told(error, application)
            if begun and isinstance(told, GoneError):
                # part of it ran: asking another application would run it twice
                told = BackendError(told.status, told.code, told.message, told.retry_after_seconds)
            raise told from error
        finally:
            items.cancel()

    async def _told(self, error: Exception, application: str) -> BackendError:
        told = _translated(error, application)
        # the gateway itself is always among them, unless Serve could not be asked
        if told.code == REPLICA_DIED and (there := await self.statuses()) and application not in there:
            message = "The model's last booking ended, and so did the time for what was still being answered."
            return BackendError(503, "booking_ended", message)
        return told

    async def _handle(self, application: str) -> Any:
        """The application's handle. Asking for a new one calls the controller, in a thread."""
        if application not in self._handles:
            from ray import serve

            ask = asyncio.to_thread(serve.get_deployment_handle, MODEL_DEPLOYMENT, application)
            try:
                self._handles[application] = await self._in_time(ask, STATUS_DEADLINE_SECONDS)
            except Exception as error:
                raise _translated(error, application) from error
        return self._handles[application]

    async def _in_time(self, awaitable: Awaitable[T], seconds: float) -> T:
        async with asyncio.timeout(max(0.0, seconds)):
            return await awaitable


def read_statuses(before: Statuses) -> Statuses:
    """Serve's applications by name. Blocks; asks the controller.

    While an application is being rebuilt Serve names no deployments although the old replica still
    serves; then what was known ``before`` stands.
    """
    from ray import serve

    return {
        name: status
        for name, application in serve.status().applications.items()
        if (status := _status(application, before.get(name))) is not None
    }


def _status(application: Any, before: AppStatus | None) -> AppStatus | None:
    """One application's; None for one that is being deleted, which takes no more requests."""
    # Serve hands out plain strings in places and members of str enums in others: compare, don't convert
    status = application.status
    deployment = application.deployments.get(MODEL_DEPLOYMENT)
    if status == "DELETING":
        return None
    states = deployment.replica_states.items() if deployment is not None else ()
    serving = sum(count for state, count in states if state in ("RUNNING", "UPDATING"))
    if serving:
        return AppStatus(AppState.SERVING, replicas=serving)
    if status in ("DEPLOY_FAILED", "UNHEALTHY"):
        said = deployment.message if deployment is not None else ""
        return AppStatus(AppState.FAILED, said or application.message)
    if not application.deployments and before is not None:
        return before
    return AppStatus(AppState.LOADING)


def _translated(error: Exception, application: str) -> BackendError:
    """What an exception out of a call into Serve means to the client."""
    from ray.exceptions import ActorDiedError, RayActorError
    from ray.serve.exceptions import (
        BackPressureError,
        DeploymentUnavailableError,
        RayServeException,
        ReplicaUnavailableError,
    )

    match error:
        case BackendError():
            return error
        case TimeoutError():
            return BackendError(504, "timeout", "The model did not answer in time.")
        case BackPressureError():
            return BackendError(429, "too_many_requests", "Too many requests wait for this model.", 2)
        case ActorDiedError() | RayActorError():
            message = "The model's replica died while answering; it is being restarted."
            return BackendError(503, REPLICA_DIED, message, 5)
        case DeploymentUnavailableError() | ReplicaUnavailableError() | RayServeException():
            logger.info("%s is gone: %s", application, error)
            return GoneError(503, "model_unavailable", "The model has just gone away.", 5)
    logger.error("a call to %s failed", application, exc_info=error)
    return BackendError(500, "internal_error", "The model failed to answer; its log says why.")
