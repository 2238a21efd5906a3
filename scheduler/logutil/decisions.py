"""Writes every decision of a pass into the log, bound to the booking it is about, to be found by it later."""

from __future__ import annotations

from collections.abc import Sequence

from loguru import logger

from scheduler.logutil.logger import DECISION
from scheduler.metrics.meter import PromiseNews, Unmetered
from scheduler.render.sentences import sentence
from scheduler.store.records import Change
from scheduler.types import Plan


class DecisionLog(Unmetered):
    """Lines for programs: a terminal shows the plan itself.

    Each has what it is about in fields of its own: ``event`` (a booking's key) and ``calendar``, or
    ``events`` where it is about several, ``model``, ``node``.
    """

    def __init__(self) -> None:
        self._behind: dict[tuple[str, str], tuple[str, ...]] = {}

    def said(self, changes: Sequence[Change]) -> None:
        for one in changes:
            logger.bind(
                **{DECISION: True},
                event=one.event,
                calendar=one.calendar,
                model=one.model,
                state=one.state,
            ).info("Booking {}: {} {}", one.event, one.state, one.text)

    def promised(self, news: Sequence[PromiseNews]) -> None:
        for one in news:
            record = one.record
            late = f", {record.lateness_seconds:.0f} s late" if record.lateness_seconds else ""
            why = f": {record.broken_why}" if record.broken_why else ""
            logger.bind(
                **{DECISION: True},
                event=record.event,
                calendar=record.calendar,
                model=record.model,
                state=record.state,
                reason=one.reason,
            ).info("Promise for {}: {}{}{}", record.event, record.state, late, why)

    def applied(self, plan: Plan, outcome: str) -> None:
        placed = {one.identity: one.target.reservations for one in plan.placements}
        behind = self._behind | placed
        self._behind = placed  # what goes was placed before
        for action in plan.actions:
            if action.model is None:
                continue
            logger.bind(
                **{DECISION: True},
                events=behind.get((action.model.key, action.node or ""), ()),
                model=action.model.name,
                node=action.node,
                action=action.kind.value,
                reason=action.reason.code.value,
                outcome=outcome,
            ).info(
                "{} {} on {}: {} ({})",
                action.kind.value.capitalize(),
                action.model.name,
                action.node,
                sentence(action.reason),
                outcome,
            )
