"""What the daemon writes into InfluxDB: how long models took to load, and the life of reservations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from scheduler.metrics.meter import PromiseNews, Unmetered
from scheduler.settings_telemetry import InfluxSettings
from scheduler.store.records import Change
from scheduler.types import Model
from serve_apps.telemetry.influx import InfluxServer, Points
from serve_apps.telemetry.labels import Bounded
from serve_apps.telemetry.metric import Measurement

MODEL_LOAD = Measurement(
    "model_load",
    "A model serves that was seen loading: how long that took.",
    ("model", "node", "kind", "tier"),
    ("seconds",),
)
RESERVATION = Measurement(
    "reservation", "Something new was said of an event.", ("state", "calendar"), ("event", "model")
)
PROMISE = Measurement(
    "promise", "A promise came to something.", ("state", "reason", "model"), ("event", "late_seconds")
)
DAEMON_POINTS = (MODEL_LOAD, RESERVATION, PROMISE)


class InfluxMeter(Unmetered):
    """Makes points of what it is told.

    Args:
        points: where they go. ``now`` tells the present instant.
    """

    def __init__(self, points: Points, now: Callable[[], datetime]) -> None:
        self._points = points
        self._now = now
        self._models = Bounded()

    def said(self, changes: Sequence[Change]) -> None:
        for one in changes:
            self._points.put(
                RESERVATION,
                {"state": one.state, "calendar": one.calendar},
                {"event": one.event, "model": one.model},
                one.at,
            )

    def promised(self, news: Sequence[PromiseNews]) -> None:
        for one in news:
            record = one.record
            self._points.put(
                PROMISE,
                {"state": record.state, "reason": one.reason, "model": self._models(record.model)},
                {"event": record.event, "late_seconds": float(record.lateness_seconds or 0.0)},
                self._now(),
            )

    def loaded(self, model: Model, node: str, kind: str, tier: str, seconds: float) -> None:
        tags = {"model": self._models(model.name), "node": node, "kind": kind, "tier": tier}
        self._points.put(MODEL_LOAD, tags, {"seconds": float(seconds)}, self._now())


def influx_server(settings: InfluxSettings) -> InfluxServer | None:
    """The server the settings name, if they name one."""
    if settings.address is None or settings.admin_token is None:
        return None
    return InfluxServer(
        address=settings.address, org=settings.org, bucket=settings.bucket, token=settings.admin_token
    )
