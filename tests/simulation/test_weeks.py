"""Some of the seeded weeks of faults; ``python -m tests.simulation`` runs as many as there is time for."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.simulation.rules import Broken
from tests.simulation.weeks import MOST_TICKS, Week, folder, run_week


@pytest.mark.parametrize("seed", [1])
def test_a_week_of_faults(seed: int) -> None:
    figures = run_week(seed)
    assert sum(figures.faults.values()) > 25
    assert len(figures.faults) > 12
    assert figures.on_time > 5
    assert figures.ticks_to_settle <= MOST_TICKS


def test_a_seed_is_the_same_week_each_time() -> None:
    with folder() as one, folder() as other:
        first, second = Week(one, 7), Week(other, 7)
        for week in (first, second):
            week._book_day(week.clock())
            week.stop()
        assert first.calendar.events == second.calendar.events


def test_after_the_clock_was_set_back_nothing_waits_for_the_time_it_had_been() -> None:
    with folder() as place:
        week = Week(place, 3)
        week.book(week.clock() + timedelta(minutes=15), "small")
        week.cockpit.faults.append("rejected")
        week.run_until(week.clock() + timedelta(minutes=20))
        assert week.cockpit.taken == ["rejected"]
        week.calendar.events.clear()
        week.book(week.clock() - timedelta(hours=4), "medium")
        week.set_clock(-5 * 3600)
        week.run_until(week.clock() + timedelta(hours=1, minutes=5))
        assert [name for name in week.running() if "medium" in name]
        week.stop()


def test_a_broken_rule_is_seen() -> None:
    """The rules would notice: a daemon that takes a booked model down is no daemon of ours."""
    with folder() as place:
        week = Week(place, 3)
        week.book(week.clock(), "small")
        week.run_until(week.clock().replace(minute=50))
        config = {"applications": []}
        with pytest.raises(Broken, match="goes though it is booked"):
            week.rules.on_put(config)
        week.stop()
