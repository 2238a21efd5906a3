"""What the loop tells while it works: counted, timed, or written into the log by whoever listens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from scheduler.store.records import Change, PromiseRecord
from scheduler.types import Model, Plan

PassOutcome = Literal["done", "waiting", "stale", "problem", "fault"]
StepOutcome = Literal["done", "failed", "stuck"]


@dataclass(frozen=True)
class PromiseNews:
    """A promise came to something; ``reason`` names in a few words what broke it, empty where nothing did."""

    record: PromiseRecord
    reason: str = ""


class Meter(Protocol):
    """Told by the loop, in its thread: must return at once and never raise."""

    def passed(self, outcome: PassOutcome, lag_seconds: float) -> None:
        """A pass ended that began so long after it was due."""

    def stepped(self, step: str, outcome: StepOutcome, seconds: float) -> None:
        """A step of a pass ended, or was given up."""

    def polled(self, calendar: str, ok: bool) -> None:
        """A calendar was read, or could not be."""

    def applied(self, plan: Plan, outcome: str) -> None:
        """A plan's actions were handed to Serve, or were meant to be."""

    def said(self, changes: Sequence[Change]) -> None:
        """Something new was said of events."""

    def promised(self, news: Sequence[PromiseNews]) -> None:
        """Promises came to something."""

    def loaded(self, model: Model, node: str, kind: str, tier: str, seconds: float) -> None:
        """A model serves that was seen loading; ``kind`` is the node's, ``tier`` where it came from."""


class Unmetered:
    """Nobody listens."""

    def passed(self, outcome: PassOutcome, lag_seconds: float) -> None: ...

    def stepped(self, step: str, outcome: StepOutcome, seconds: float) -> None: ...

    def polled(self, calendar: str, ok: bool) -> None: ...

    def applied(self, plan: Plan, outcome: str) -> None: ...

    def said(self, changes: Sequence[Change]) -> None: ...

    def promised(self, news: Sequence[PromiseNews]) -> None: ...

    def loaded(self, model: Model, node: str, kind: str, tier: str, seconds: float) -> None: ...


class Meters(Unmetered):
    """Several that listen."""

    def __init__(self, meters: Iterable[Meter]) -> None:
        self._meters = tuple(meters)

    def passed(self, outcome: PassOutcome, lag_seconds: float) -> None:
        for one in self._meters:
            one.passed(outcome, lag_seconds)

    def stepped(self, step: str, outcome: StepOutcome, seconds: float) -> None:
        for one in self._meters:
            one.stepped(step, outcome, seconds)

    def polled(self, calendar: str, ok: bool) -> None:
        for one in self._meters:
            one.polled(calendar, ok)

    def applied(self, plan: Plan, outcome: str) -> None:
        for one in self._meters:
            one.applied(plan, outcome)

    def said(self, changes: Sequence[Change]) -> None:
        for one in self._meters:
            one.said(changes)

    def promised(self, news: Sequence[PromiseNews]) -> None:
        for one in self._meters:
            one.promised(news)

    def loaded(self, model: Model, node: str, kind: str, tier: str, seconds: float) -> None:
        for one in self._meters:
            one.loaded(model, node, kind, tier, seconds)
