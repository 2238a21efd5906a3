"""The settings of the page; part of the tree in ``scheduler.settings``."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator

from scheduler.settings_loop import Group

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LEAST_KEY_CHARACTERS = 16


class WebSettings(Group):
    """The page that the daemon serves, and the API behind it."""

    enabled: bool = Field(True, description="Whether the daemon serves its page")
    host: str = Field("127.0.0.1", description="Address the page listens on")
    port: int = Field(8280, ge=1, le=65535, description="Port the page listens on")
    public_url: str | None = Field(
        None, pattern="^https?://", description="Address that people are told; the one above by default"
    )
    hosts: tuple[str, ...] = Field(
        (), description="Names it may be called by, besides loopback, addresses and this machine's name"
    )
    key: SecretStr | None = Field(
        None,
        min_length=LEAST_KEY_CHARACTERS,
        description="Key with which the operator pauses, pins, evicts and cordons, and sees who booked from "
        "elsewhere; at least 16 characters, without it nobody can",
    )
    what_if_seconds: float = Field(
        20.0, gt=0, le=300, description="How long the answer to “would this fit?” may take"
    )

    @field_validator("key", "public_url", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        # what compose files pass on of a variable that is not set
        return value or None

    @property
    def url(self) -> str:
        """Address of the page on this machine, or the one people are told."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(self.host, self.host)
        return (self.public_url or f"http://{host}:{self.port}").rstrip("/")
