"""The rows of the history, as values. Instants are in UTC, durations in seconds."""

from __future__ import annotations

from typing import Literal

from calendars.reservation import Frozen, UtcDatetime

Outcome = Literal["begun", "applied", "stale", "rejected", "failed", "held"]
"""What came of a plan: handed to Serve, overtaken, not taken, not known, or waiting for a second reading."""

PromiseState = Literal["waiting", "kept", "late", "broken", "withdrawn"]
"""A booking that was admitted: not due yet, ready in time, ready too late, not met, or cancelled."""


class LoadTime(Frozen):
    """How long a model took to load on a kind of node from a tier, over the loads that were seen."""

    model_key: str
    node_kind: str
    tier: str
    count: int
    seconds_p50: float
    seconds_p95: float
    seconds_last: float


class PlanRecord(Frozen):
    """A plan that changed something, or was meant to."""

    number: int
    at: UtcDatetime
    summary: str
    actions: tuple[str, ...]
    outcome: Outcome
    detail: str = ""
    seconds: float | None = None


class PromiseRecord(Frozen):
    """A booking that was admitted, and what came of it.

    ``promised_at`` is when it was first admitted as it is, ``due_at`` when it had to serve: at its start, or
    where it was booked too late for that, as soon as loading can be done. ``lateness_seconds`` counts from
    there and is 0 for one that was ready by then; ``broken_why`` is a sentence. A ``private`` one is the
    business of the people of its event only.
    """

    calendar: str
    event: str
    title: str
    model: str
    owner: str | None = None
    start: UtcDatetime
    end: UtcDatetime
    promised_at: UtcDatetime | None = None
    due_at: UtcDatetime | None = None
    state: PromiseState = "waiting"
    ready_at: UtcDatetime | None = None
    lateness_seconds: float | None = None
    broken_why: str | None = None
    private: bool = False


class Change(Frozen):
    """From ``at`` on, this is what was said of an event or a model."""

    at: UtcDatetime
    calendar: str
    event: str
    title: str
    model: str
    state: str
    text: str
    private: bool = False


class ManualRecord(Frozen):
    """Something the operator, or a program through the ``Controller``, ordered."""

    at: UtcDatetime
    kind: str
    subject: str
    until: UtcDatetime | None = None
    by: str = ""


class Parked(Frozen):
    """A model that kept failing to load and is left alone until ``retry_at``.

    ``signature`` changes with what may help: its bookings, its code, the nodes.
    """

    model_key: str
    error: str
    since: UtcDatetime
    tries: int
    retry_at: UtcDatetime
    signature: str
