"""The daemon's telemetry put together: what the loop tells goes to Prometheus, InfluxDB and the log."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime

from loguru import logger

from scheduler.board import Board
from scheduler.errors import OperatorError
from scheduler.logutil.decisions import DecisionLog
from scheduler.logutil.logger import SHIPPED
from scheduler.metrics.influx import InfluxMeter, influx_server
from scheduler.metrics.meter import Meter, Meters
from scheduler.metrics.prometheus import (
    PrometheusMeter,
    Queue,
    QueueCollector,
    exposition_of,
    new_registry,
)
from scheduler.metrics.state import BoardCollector
from scheduler.settings import Settings
from scheduler.store.history import FILE, reading
from serve_apps.telemetry.influx import INFLUX_FILE, Points
from serve_apps.telemetry.loki import LokiShipper

CLOSE_SECONDS = 2.0


class Telemetry:
    """Listens to one daemon by ``meter`` and ``board``, and shows it by ``exposition``.

    Args:
        loki: where the log is shipped to, if anywhere; its counters are shown.
        now: tells the present instant.
    """

    def __init__(
        self,
        settings: Settings,
        board: Board,
        *,
        loki: LokiShipper | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._registry = new_registry()
        self._points = self._open_points()
        meters: list[Meter] = [PrometheusMeter(self._registry), DecisionLog()]
        queues: dict[str, Queue] = {}
        if self._points is not None:
            meters.append(InfluxMeter(self._points, now))
            queues["influx"] = self._points.outbox
        if loki is not None:
            queues["loki"] = loki.outbox
        self.meter: Meter = Meters(meters)
        self._registry.register(QueueCollector(queues))
        self._registry.register(
            BoardCollector(
                board,
                max_stale_seconds=settings.calendar.max_stale_hours * 3600,
                interval_seconds=settings.calendar.check_interval_seconds,
                disks={"state": settings.path(settings.state_dir), "weights": settings.hub_cache},
                on_disk=self._on_disk,
                now=now,
            )
        )

    def exposition(self) -> tuple[bytes, str]:
        """All metrics as Prometheus reads them, and the content type of that."""
        return exposition_of(self._registry)

    def close(self) -> None:
        """Send what waits, as far as that goes in a moment."""
        if self._points is not None:
            self._points.close(CLOSE_SECONDS)

    def _open_points(self) -> Points | None:
        """The way to InfluxDB; the gateways are left word of it in their folder."""
        server, folder = influx_server(self._settings.influx), self._settings.serve.gateway_dir
        try:
            if server is not None and folder is not None:
                server.save(folder)
            elif folder is not None:
                (folder / INFLUX_FILE).unlink(missing_ok=True)
        except OSError as error:
            logger.warning("The gateways cannot be told of InfluxDB in {}: {}.", folder, error)
        return None if server is None else Points(server, on_problem=_tell)

    def _on_disk(self) -> Collection[tuple[str, str]]:
        try:
            with reading(self._settings.in_state_dir(FILE)) as history:
                return history.loaded_on()
        except OperatorError:
            return ()  # nothing was loaded yet


def _tell(problem: str) -> None:
    about = logger.bind(**{SHIPPED: False})
    if problem:
        about.warning("Points cannot be written ({}); nothing waits for it.", problem)
    else:
        about.success("Points can be written again.")
