"""When a plan must be looked at again, though nothing was edited and nothing failed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from scheduler.types import Plan


def instants(plan: Plan, warn_before: timedelta) -> Iterator[datetime]:
    """Starts, ends, warnings before ends, and when what comes later begins and must be done; unordered."""
    if plan.next_boundary:
        yield plan.next_boundary
    for verdict in plan.verdicts:
        if verdict.start:
            yield verdict.start
        if verdict.end:
            yield verdict.end
            yield verdict.end - warn_before
    for step in plan.upcoming:
        yield step.at
        yield step.done_by
