"""What others wrote is printed so that it does nothing to the terminal."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC

import pytest
from rich.console import Console

from scheduler.render.plain import escape_lines, visible
from scheduler.render.text import show_plan
from scheduler.render.timeline import show_timeline
from scheduler.render.what_if import show_answer
from scheduler.types import Plan
from tests.scheduler.builders import booking, cluster, gpus, known, planned

WRITTEN = "mine\u202etxt\x1b[31m\n+ org/fake\u2028on gpu\u200b"
SHOWN = "minetxt?[31m + org/fake on gpu"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (WRITTEN, SHOWN),
        ("plain [text] — “quoted”", "plain [text] — “quoted”"),
        ("שלום\u200f", "שלום"),
        ("👩\u200d🔬", "👩\u200d🔬"),
        ("\u2066a\u2069\x9b", "a?"),
        ("no\u00a0break", "no\u00a0break"),
    ],
)
def test_what_is_not_seen_but_does_something_is_left_out(written: str, shown: str) -> None:
    assert visible(written) == shown


def test_lines_that_are_meant_stay_lines() -> None:
    assert escape_lines("a\x07\n[b]") == "a?\n\\[b]"


SHOW: dict[str, Callable[[Console, Plan], None]] = {
    "plan": lambda console, plan: show_plan(console, plan, UTC),
    "timeline": lambda console, plan: show_timeline(console, plan, 24, UTC),
    "what if": lambda console, plan: show_answer(
        console, plan.verdicts[0], False, (), plan.verdicts, plan, None, UTC
    ),
}


@pytest.mark.parametrize("show", SHOW.values(), ids=SHOW)
def test_a_title_does_nothing_to_the_terminal(show: Callable[[Console, Plan], None]) -> None:
    one = booking("org/large", 1, 9).model_copy(update={"title": WRITTEN})
    other = booking("org/large2", 0, 12, booked=-99).model_copy(update={"title": WRITTEN})
    plan = planned([one, other], cluster(gpus("x", 1, 80)), known(large=80, large2=80))
    console = Console(file=io.StringIO(), width=120, highlight=False, soft_wrap=True)
    show(console, Plan.model_validate(plan.model_dump() | {"verdicts": plan.refused}))
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert SHOWN in written
    assert written.replace("\n", "").isprintable()
