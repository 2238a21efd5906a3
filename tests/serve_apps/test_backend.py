"""What Serve's exceptions and statuses mean to a client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from serve_apps.contract import MODEL_DEPLOYMENT
from serve_apps.gateway.backend import BackendError, GoneError, ServeBackend, _status, _translated
from serve_apps.gateway.routing import AppState, AppStatus
from tests.lazily import Lazily

of_ray = Lazily("ray.exceptions")
of_serve = Lazily("ray.serve.exceptions")


class Items:
    """A streaming response of Serve that yields, then raises."""

    def __init__(self, items: list[Any], error: Exception) -> None:
        self._items = list(items)
        self._error = error
        self.cancelled = False

    def __aiter__(self) -> Items:
        return self

    async def __anext__(self) -> Any:
        if self._items:
            return self._items.pop(0)
        raise self._error

    def cancel(self) -> None:
        self.cancelled = True


def backend_yielding(items: Items) -> ServeBackend:
    method = SimpleNamespace(remote=lambda request: items)
    backend = ServeBackend(deadline_seconds=10)
    backend._handles["a"] = SimpleNamespace(options=lambda stream: SimpleNamespace(stream=method))
    return backend


@pytest.mark.parametrize(("before", "expected"), [([], GoneError), (["piece"], BackendError)])
def test_only_a_request_that_never_began_may_go_elsewhere(before: list[str], expected: type) -> None:
    items = Items(before, of_serve.RayServeException("gone"))

    async def consume() -> list[Any]:
        return [item async for item in backend_yielding(items).stream("a", None)]  # type: ignore[arg-type]

    with pytest.raises(BackendError) as caught:
        asyncio.run(consume())
    assert type(caught.value) is expected
    assert items.cancelled


@pytest.mark.parametrize(
    ("there", "code"),
    [(("gateway",), "booking_ended"), (("gateway", "a"), "replica_died"), ((), "replica_died")],
)
def test_what_was_still_running_when_a_model_went_is_told_that_its_booking_ended(
    there: tuple[str, ...], code: str
) -> None:
    backend = backend_yielding(Items(["piece"], of_ray.ActorDiedError()))
    backend._statuses = {name: AppStatus(AppState.SERVING) for name in there}
    backend._read_at = time.monotonic()

    async def consume() -> list[Any]:
        return [item async for item in backend.stream("a", None)]  # type: ignore[arg-type]

    with pytest.raises(BackendError) as caught:
        asyncio.run(consume())
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (TimeoutError, 504, "timeout"),
        (lambda: of_serve.BackPressureError(1, 1), 429, "too_many_requests"),
        (lambda: of_ray.ActorDiedError(), 503, "replica_died"),
        (lambda: of_serve.RayServeException("no such application"), 503, "model_unavailable"),
        (lambda: ValueError("secret detail"), 500, "internal_error"),
    ],
)
def test_each_exception_has_its_status(error: Callable[[], Exception], status: int, code: str) -> None:
    told = _translated(error(), "a")
    assert (told.status, told.code) == (status, code)
    assert "secret" not in told.message


def application(status: str, replicas: dict[str, int] | None = None, message: str = "") -> Any:
    deployments = {}
    if replicas is not None:
        deployments[MODEL_DEPLOYMENT] = SimpleNamespace(replica_states=replicas, message=message)
    return SimpleNamespace(status=status, deployments=deployments, message="the application's own")


SERVING, LOADING = AppStatus(AppState.SERVING), AppStatus(AppState.LOADING)


@pytest.mark.parametrize(
    ("seen", "before", "expected"),
    [
        (application("RUNNING", {"RUNNING": 1}), None, SERVING),
        (application("DEPLOYING", {"UPDATING": 1}), None, SERVING),
        (application("DEPLOYING", {"STARTING": 1, "RUNNING": 0}), SERVING, LOADING),
        # a new version that fails leaves the old one serving
        (application("DEPLOY_FAILED", {"RUNNING": 1}), None, SERVING),
        (application("DEPLOY_FAILED", {}, "Traceback"), None, AppStatus(AppState.FAILED, "Traceback")),
        (application("DEPLOY_FAILED"), None, AppStatus(AppState.FAILED, "the application's own")),
        # while it is rebuilt Serve names no deployments
        (application("DEPLOYING"), SERVING, SERVING),
        (application("DEPLOYING"), None, LOADING),
        (application("DELETING", {"RUNNING": 1}), SERVING, None),
    ],
)
def test_a_model_serves_while_a_replica_takes_requests(
    seen: Any, before: AppStatus | None, expected: AppStatus | None
) -> None:
    assert _status(seen, before) == expected
