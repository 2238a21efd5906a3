"""Google fails in every way, at random and on purpose: nothing that should run is taken down.

The stormy days are those of ``storm.py`` with few and short storms; a seed that fails here is run again with
``python -m tests.simulation.storm --quick --seed N``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.google_server.faults import STORM
from tests.simulation.harness import World, world
from tests.simulation.storm import MOST_REQUESTS, QUICK, stormy_day

BACKGROUND = {"poll_seconds": 600.0, "load_seconds": 5.0}


@pytest.mark.parametrize("seed", [1])
def test_a_stormy_day(seed: int, tmp_path: Path) -> None:
    figures = stormy_day(tmp_path, seed, QUICK)
    assert figures.failed > 40
    assert len(figures.kinds & set(STORM)) > len(STORM) / 2


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[World]:
    """Two bookings, of which one serves; at ten o'clock."""
    with world(tmp_path, "2026-03-25T08:50", **BACKGROUND) as found:  # type: ignore[arg-type]
        found.calendar.add("phi", "2026-03-25T09:00", "2026-03-25T12:00", id="running")
        found.calendar.add("llama", "2026-03-25T14:00", "2026-03-25T16:00", id="later0")
        found.run_until("2026-03-25T10:00")
        assert found.serving() == {"phi"}
        yield found
        assert found.faults_of_the_loop() == []


def test_over_a_restart_without_google_the_snapshot_has_its_ends_and_starts(lab: World) -> None:
    (before,) = [app.replicas[0] for app in lab.ray.serve.apps.values() if "phi" in app.name]
    puts = len(lab.ray.puts)
    with lab.google.away():
        lab.start()
        lab.run_until("2026-03-25T11:59:59")
        assert lab.serving() == {"phi"}
        assert [app.replicas[0] for app in lab.ray.serve.apps.values() if "phi" in app.name] == [before]
        assert len(lab.ray.puts) == puts
        lab.run_until("2026-03-25T12:00:01")
        assert lab.models() == {}
        lab.run_until("2026-03-25T14:00")
        assert lab.serving() == {"llama"}
        lab.run_until("2026-03-25T14:30")
        assert lab.state("running") == "serving"
    lab.poll()
    assert (lab.state("running"), lab.state("later0")) == ("ended", "serving")
    assert lab.writes("running") == ["scheduled", "loading", "serving", "ended"]


def test_what_ended_long_before_it_could_be_written_is_told_all_the_same(lab: World) -> None:
    lab.google.faults.add("error:backendError", times=None, method="PATCH")
    lab.run_until("2026-03-25T13:30")
    assert lab.state("running") == "serving"
    lab.google.faults.clear()
    lab.poll()
    assert lab.state("running") == "ended"


def test_what_ended_while_no_daemon_ran_is_told_at_the_next_start(lab: World) -> None:
    lab.stop()
    lab.run_until("2026-03-25T15:00")
    assert lab.serving() == {"phi"}
    lab.start()
    lab.run_for(minutes=1)
    assert lab.serving() == {"llama"}
    assert (lab.state("running"), lab.state("later0")) == ("ended", "serving")


def test_a_reading_that_is_too_old_is_not_acted_on_at_all(tmp_path: Path) -> None:
    with world(tmp_path, "2026-03-25T08:00", max_stale_hours=2, **BACKGROUND) as lab:  # type: ignore[arg-type]
        lab.calendar.add("phi", "2026-03-25T09:00", "2026-03-25T12:00")
        lab.calendar.add("llama", "2026-03-25T11:00", "2026-03-25T12:00")
        lab.calendar.add("mistral", "2026-03-25T12:30", "2026-03-25T16:00")
        lab.run_until("2026-03-25T09:55")
        with lab.google.away():
            lab.run_until("2026-03-25T11:00")
            assert lab.serving() == {"phi", "llama"}
            puts = len(lab.ray.puts)
            lab.run_until("2026-03-25T12:45")
            assert (lab.serving(), len(lab.ray.puts)) == ({"phi", "llama"}, puts)
            assert [line for line in lab.said if "too long ago" in line]
        lab.poll()
        lab.run_for(minutes=1)
        assert lab.serving() == {"mistral"}


def test_a_daemon_that_never_read_the_calendar_touches_nothing(lab: World) -> None:
    for snapshot in lab.settings.in_state_dir("snapshots").iterdir():
        snapshot.unlink()
    puts = len(lab.ray.puts)
    with lab.google.away():
        lab.start()
        lab.run_until("2026-03-25T15:00")
        assert (lab.serving(), len(lab.ray.puts)) == ({"phi"}, puts)


def test_a_cluster_that_cannot_be_read_is_not_acted_on(lab: World) -> None:
    lab.run_for(seconds=2)
    puts = len(lab.ray.puts)
    lab.ray.down = True
    lab.run_until("2026-03-25T12:20")
    assert len(lab.ray.puts) == puts
    lab.ray.down = False
    assert lab.serving() == {"phi"}
    lab.poll()
    assert lab.models() == {}


def test_a_write_that_met_a_disabled_api_is_made_once_it_is_enabled(lab: World) -> None:
    lab.google.faults.add("error:accessNotConfigured", method="PATCH")
    lab.calendar.add("mistral", "2026-03-25T20:00", "2026-03-25T21:00", id="evening")
    lab.poll()
    assert lab.state("evening") is None
    lab.poll()
    assert lab.state("evening") == "scheduled"


@pytest.mark.parametrize("kind", ["drop_after", "truncated", "drop_before", "error:backendError"])
def test_an_answer_that_is_lost_leads_to_no_second_write(lab: World, kind: str) -> None:
    lab.google.faults.add(kind, times=5, method="PATCH")
    lab.calendar.add("mistral", "2026-03-25T20:00", "2026-03-25T21:00", id="evening")
    lab.poll()
    lab.poll()
    assert lab.state("evening") == "scheduled"
    etag = lab.calendar.event("evening")["etag"]
    lab.poll()
    assert lab.calendar.event("evening")["etag"] == etag


def test_a_full_calendar_is_answered_at_a_pace_within_the_quota(tmp_path: Path) -> None:
    """At its first start the daemon has everything to write at once, at its usual pace of polls."""
    with world(tmp_path, "2026-03-25T08:00", poll_seconds=10) as lab:
        names = [f"feed{number:05d}" for number in range(220)]
        for name in names:
            lab.calendar.add("phi", "2026-03-26T09:00", "2026-03-26T10:00", id=name)
        lab.run_for(seconds=19)
        assert len(lab.google.log.requests) <= MOST_REQUESTS * 20 / 60
        lab.run_for(seconds=30)
        assert {lab.state(name) for name in names} == {"scheduled"}
