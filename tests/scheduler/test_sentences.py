"""Words for reasons, numbers and bookings."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest
from rich.console import Console

from calendars.reservation import Misunderstood, ModelRequest
from scheduler.render.calendar import options
from scheduler.render.sentences import duration, sentence, stopped
from scheduler.render.status import show_status
from scheduler.render.text import show_plan
from scheduler.reports import reports
from scheduler.types import Observed, Reason, ReasonCode
from tests.scheduler.builders import NOON, cluster, planned


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, ""),
        ({"gpus": 1}, "1 GPU each"),
        ({"gpus": 8, "accelerator": "H100", "replicas": 2}, "2 replicas, 8 H100 GPUs each"),
        ({"accelerator": "A100 80GB", "priority": 5}, "on A100 80GB, priority 5"),
    ],
)
def test_what_a_booking_asks_for(asked: dict[str, object], words: str) -> None:
    assert options(ModelRequest.model_validate({"model": "a/b", **asked})) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (59.5, "1 min"),
        (60, "1 min"),
        (61, "2 min"),
        (3600, "1 h"),
        (3900, "1 h 5 min"),
        (86400, "1 day"),
        (86400 * 2 + 1, "2 days 1 h"),
        (86400 * 14, "14 days"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize("code", ReasonCode)
def test_every_reason_has_words_even_without_figures(code: ReasonCode) -> None:
    assert sentence(Reason(code=code))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("no node has any", "no node has any."),
        (
            "'replika' is not a setting; did you mean `replicas`?",
            "'replika' is not a setting; did you mean `replicas`?",
        ),
        ("it is over.", "it is over."),
    ],
)
def test_a_sentence_ends_with_one_mark(words: str, said: str) -> None:
    assert stopped(words) == said


def test_nothing_that_is_told_of_a_question_has_two_marks() -> None:
    asks = Misunderstood(
        key="e",
        calendar="test",
        title="seminar",
        start=NOON,
        end=NOON + timedelta(hours=1),
        reason="'replika' is not a setting; did you mean `replicas`?",
        example="replicas: 2",
    )
    plan = planned([], cluster(), {}, misunderstood=(asks,))
    paper = Console(file=io.StringIO(), width=100)
    show_plan(paper, plan)
    show_status(paper, plan, Observed(cluster=cluster()), ("RUNNING", ""), None, "http://gateway")
    assert isinstance(paper.file, io.StringIO)
    told = [*reports(plan, (), (), {}, "http://gateway")["test"][0].lines, paper.file.getvalue()]
    assert sum("?" in one for one in told) == 2
    assert not [one for one in told if "?." in one]
