"""The settings of the daemon's loop; part of the tree in ``scheduler.settings``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GuardSettings(Group):
    """What is looked at twice before it is done, and what is left alone for a while."""

    max_share: float = Field(
        0.5, ge=0, le=1, description="Share of what serves that may go at once because bookings vanished"
    )
    min_models: int = Field(
        2, ge=1, le=1000, description="So few models may always go at once, whatever share they are"
    )
    second_reading_seconds: float = Field(
        8.0, ge=0, le=3600, description="Least time until a second reading confirms that bookings vanished"
    )
    node_grace_seconds: float = Field(
        20.0, ge=0, le=3600, description="How long a node may be gone before its models are placed elsewhere"
    )
    held_memory_mib: int = Field(
        2048, ge=0, le=1_048_576, description="What a GPU that nobody has may show as used; 0: not looked at"
    )
    held_memory_seconds: float = Field(
        60.0, ge=0, le=86400, description="How long GPU memory that nobody has by Ray's books is waited for"
    )
    park_seconds: float = Field(
        60.0, gt=0, le=86400, description="First pause of a model that failed to load; doubles each time"
    )
    longest_park_seconds: float = Field(3600.0, gt=0, le=604800, description="Longest such pause")
    load_deadline_seconds: float = Field(
        7200.0, gt=0, le=604800, description="After so long without serving a model counts as failed"
    )


class StepSettings(Group):
    """Deadlines of the loop's steps; one that takes longer is reported, and not begun twice."""

    read_seconds: float = Field(60.0, gt=0, le=3600, description="Reading the calendars")
    observe_seconds: float = Field(60.0, gt=0, le=3600, description="Observing the cluster")
    plan_seconds: float = Field(120.0, gt=0, le=3600, description="Planning")
    apply_seconds: float = Field(120.0, gt=0, le=3600, description="Handing the plan to Serve")
    write_back_seconds: float = Field(60.0, gt=0, le=3600, description="Answering in the calendars")


class HistorySettings(Group):
    """What is remembered of the past."""

    keep_days: float = Field(90.0, gt=0, le=3660, description="How long the history goes back")


class ControllerSettings(Group):
    """The lease of a cluster, and the actor that other services reach this one by."""

    enabled: bool = Field(
        True, description="Whether the Controller actor is kept, and with it the lease of the cluster"
    )
    address: str | None = Field(
        None, description="Where Ray is joined for it; the head's host and port by default"
    )
    lease_seconds: float = Field(
        10.0, ge=2, le=300, description="After so long without a sign of its daemon the lease is free"
    )
    minimum_deployment_seconds: float = Field(
        3600.0,
        gt=0,
        le=31_536_000,
        description="How long a model serves before a higher priority may displace it, and how long one "
        "stays that another service asked for",
    )
    api_url: str | None = Field(
        None, pattern="^https?://", description="Where deployment events are posted, if anywhere"
    )
