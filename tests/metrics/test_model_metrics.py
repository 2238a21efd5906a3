"""What a model's replica tells of itself, and what a promise that broke is told to have broken of."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from calendars.write_back import Report
from scheduler.recording import _broken_by
from scheduler.types import Reason, ReasonCode, Verdict, VerdictState
from serve_apps.model.engine import Engine, Load
from serve_apps.model.metrics import ALONE, MEMORY, MODEL, TEXTS, tell_once
from tests.metrics.test_gateway_metrics import Recorded
from tests.scheduler.builders import NOON


def test_a_replica_tells_every_metric_of_the_table() -> None:
    engine, held, began = Engine(None, 256, 0), threading.Event(), threading.Event()
    recorded = Recorded()

    def work() -> None:
        began.set()
        assert held.wait(30)

    engine.alone(work)
    assert began.wait(30)
    engine.alone(held.is_set)
    try:
        assert engine.load == Load(growing=0, waiting=0, alone=1)
        tell_once(recorded, "org/m", engine)  # type: ignore[arg-type]
    finally:
        held.set()
        engine.close()
    assert {name for name, _ in recorded.values} == {one.name for one in MODEL}
    assert recorded.values[ALONE.name, ("org/m",)] == 1
    assert recorded.values[TEXTS.name, ("org/m", "growing")] == 0
    assert recorded.values[MEMORY.name, ("org/m", "resident")] > 1024**2


def verdict(state: VerdictState, code: ReasonCode = ReasonCode.BOOKED) -> Verdict:
    end = NOON + timedelta(hours=1)
    return Verdict(
        event="e", calendar="c", title="t", start=NOON, end=end, state=state, reason=Reason(code=code)
    )


@pytest.mark.parametrize(
    ("report", "found", "why"),
    [
        (None, None, "never served"),
        ("ended", None, "never served"),
        ("loading", verdict(VerdictState.PLACED), "ceased to serve"),
        ("refused", verdict(VerdictState.REFUSED, ReasonCode.NODE_LOST), "node lost"),
        ("refused", verdict(VerdictState.MISUNDERSTOOD, ReasonCode.MISUNDERSTOOD), "misunderstood"),
        # the plan still has it placed: it is the loading that failed
        ("refused", verdict(VerdictState.PLACED), "load failed"),
    ],
)
def test_what_broke_a_promise_has_few_words(report: str | None, found: Verdict | None, why: str) -> None:
    told = Report(key="e", state=report) if report else None  # type: ignore[arg-type]
    assert _broken_by(told, found) == why
