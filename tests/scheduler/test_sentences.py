"""Words for reasons, numbers and bookings."""

from __future__ import annotations

import pytest

from calendars.reservation import ModelRequest
from scheduler.render.calendar import options


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
