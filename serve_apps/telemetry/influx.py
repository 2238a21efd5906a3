"""Points for InfluxDB (its v2 API), and where that is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from serve_apps.telemetry.metric import Measurement
from serve_apps.telemetry.outbox import LaterError, Outbox, RefusedError, retry_after

INFLUX_FILE = "influx.json"
"""Where the daemon leaves the gateways, on the head's disk, what they need to know; only we can read it."""
POST_MILLISECONDS = 10_000
MOST_TAG_CHARACTERS = 100


class InfluxServer(BaseModel):
    """A bucket, and the token that opens it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str
    org: str
    bucket: str
    token: SecretStr

    def save(self, folder: Path) -> None:
        """Leave it for the gateways. Raises ``OSError``."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = folder / f"{INFLUX_FILE}.partial"
        partial.unlink(missing_ok=True)
        partial.touch(mode=0o600)
        told = self.model_dump(mode="json") | {"token": self.token.get_secret_value()}
        partial.write_text(json.dumps(told))
        partial.replace(folder / INFLUX_FILE)


def saved_server(folder: Path) -> InfluxServer | None:
    """The server that is named there; None where none is. Raises ``ValueError`` for what is no such file."""
    try:
        return InfluxServer.model_validate_json((folder / INFLUX_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ValueError(f"{folder / INFLUX_FILE} names no server; the daemon writes it anew.") from error


class Points:
    """Writes points in batches, when there is time."""

    def __init__(
        self,
        server: InfluxServer,
        *,
        every_seconds: float = 5.0,
        on_problem: Callable[[str], None] = lambda _: None,
    ) -> None:
        from influxdb_client.client.influxdb_client import InfluxDBClient
        from influxdb_client.client.write_api import SYNCHRONOUS

        self._server = server
        self._client: Any = InfluxDBClient(
            url=server.address,
            token=server.token.get_secret_value(),
            org=server.org,
            timeout=POST_MILLISECONDS,
            enable_gzip=True,
        )
        self._writer = self._client.write_api(write_options=SYNCHRONOUS)
        self.outbox: Outbox[str] = Outbox(
            "influx", self._write, len, every_seconds=every_seconds, on_problem=on_problem
        )

    def put(
        self,
        measurement: Measurement,
        tags: Mapping[str, str],
        fields: Mapping[str, float | int | str],
        at: datetime,
    ) -> None:
        """Have a point written. Tags must have few values each; empty ones are left out."""
        from influxdb_client.client.write import point as points

        of: Any = points.Point
        point = of(measurement.name).time(at)
        for name, value in tags.items():
            if value:
                point.tag(name, value[:MOST_TAG_CHARACTERS])
        for name, field in fields.items():
            point.field(name, field)
        self.outbox.put(point.to_line_protocol())

    def close(self, seconds: float = 2.0) -> None:
        """Write what waits, as far as that goes."""
        self.outbox.close(seconds)
        self._client.close()

    def _write(self, lines: list[str]) -> None:
        from influxdb_client.rest import ApiException
        from urllib3.exceptions import HTTPError

        try:
            self._writer.write(bucket=self._server.bucket, org=self._server.org, record="\n".join(lines))
        except ApiException as error:
            said = f"{self._server.address} answered {error.status}: {_said(error)}"
            if error.status == 429 or (error.status or 500) >= 500:
                headers: Any = error.headers or {}
                raise LaterError(said, retry_after(headers.get("Retry-After"))) from error
            raise RefusedError(said) from error
        except (HTTPError, OSError) as error:
            raise LaterError(f"{self._server.address}: {type(error).__name__}: {error}") from error


def _said(error: Any) -> str:
    return str(error.message or error.reason)[:200]
