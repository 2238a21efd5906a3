"""The settings of what is told to other servers, logs and points; part of ``scheduler.settings``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, model_validator

from scheduler.settings_loop import Group


class LogSettings(Group):
    """What the daemon says, how, and where."""

    level: str = Field(
        "INFO",
        pattern="^(TRACE|DEBUG|INFO|SUCCESS|WARNING|ERROR)$",
        description="TRACE, DEBUG, INFO, SUCCESS, WARNING or ERROR",
    )
    format: Literal["auto", "text", "json"] = Field(
        "auto", description="text for people, json for programs; auto: text on a terminal, else json"
    )
    loki_url: str | None = Field(
        None,
        pattern="^https?://[^@]+$",
        description="Loki that logs are pushed to, such as http://loki:3100; on workers, too",
    )


class InfluxSettings(Group):
    """The InfluxDB (v2) that points are written to."""

    address: str | None = Field(
        None, pattern="^https?://[^@]+$", description="Its URL, such as http://influxdb:8086; none without it"
    )
    admin_token: SecretStr | None = Field(None, description="Token that may write to the bucket")
    org: str = Field("ndif", min_length=1, description="Its organisation")
    bucket: str = Field("ndif", min_length=1, description="Its bucket")

    @model_validator(mode="after")
    def _opens(self) -> InfluxSettings:
        if self.address and not self.admin_token:
            raise ValueError(
                "influx.address needs influx.admin_token (INFLUXDB_ADMIN_TOKEN) to be set as well"
            )
        return self
