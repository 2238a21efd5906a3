"""Words for reasons, numbers and bookings."""

from __future__ import annotations

import pytest

from calendars.reservation import ModelRequest
from scheduler.render.calendar import options
from scheduler.render.sentences import duration, sentence
from scheduler.types import Reason, ReasonCode


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
