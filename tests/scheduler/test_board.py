"""The board: what the daemon last knew, for those who show it."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

from scheduler.board import Board, CalendarView, View
from scheduler.heartbeat import Heartbeat
from scheduler.store.orders import OrderKind
from tests.scheduler.builders import NOON
from tests.simulation.harness import world


def view(passes: int = 1) -> View:
    return View(Heartbeat(pid=1, started=NOON, at=NOON, passes=passes))


def test_nothing_is_known_before_the_first_view() -> None:
    board = Board()
    assert board.current is None
    assert board.wait_for(0, timeout_seconds=0) == 0


def test_the_last_view_is_the_one_that_is_shown() -> None:
    board = Board()
    board.publish(view(1))
    board.publish(view(2))
    assert board.current is not None and board.current.passes == 2
    assert board.version == 2


def test_who_waits_is_woken_by_the_next_view() -> None:
    board, woken = Board(), []
    board.publish(view(1))
    waiting = threading.Thread(target=lambda: woken.append(board.wait_for(1, timeout_seconds=30)))
    waiting.start()
    board.publish(view(2))
    waiting.join(30)
    assert woken == [2]


def test_a_calendar_that_was_never_read_has_no_age() -> None:
    never = CalendarView("lab", None, "It is away.", "Wait.")
    assert never.failing and never.age(NOON) is None
    assert CalendarView("lab", NOON).age(NOON + timedelta(minutes=2)) == timedelta(minutes=2)


def test_the_daemon_shows_what_it_knows_after_each_pass(tmp_path: Path) -> None:
    with world(tmp_path, "2026-03-25T08:00") as lab:
        lab.calendar.add("phi", "2026-03-25T08:00", "2026-03-25T12:00")
        lab.run_for(seconds=10)
        loading = lab.board.current
        assert loading is not None and loading.observed is not None and loading.plan is not None
        assert [one.model for one in loading.progress.values()] == ["lab/phi"]
        assert loading.lease.ours and loading.passes == lab.heartbeat.passes
        assert loading.next_pass == lab.at("2026-03-25T08:00:30")
        assert [one.title for one in loading.plan.verdicts] == ["phi"]
        assert [one.title for reading in loading.readings for one in reading.reservations] == ["phi"]

        lab.run_for(minutes=2)
        serving = lab.board.current
        assert serving is not None and not serving.progress
        assert serving.gateway is not None and serving.gateway[0] == "RUNNING"
        assert [one.failing for one in serving.calendars] == [False]


def test_what_cannot_be_read_and_what_was_ordered_is_shown_too(tmp_path: Path) -> None:
    with world(tmp_path, "2026-03-25T08:00") as lab:
        lab.run_for(minutes=1)
        read_at = lab.clock()
        lab.google.faults.add("error:backendError", times=None)
        lab.order(OrderKind.PAUSE)
        lab.run_for(minutes=3)
        seen = lab.board.current
        assert seen is not None
        assert seen.beat.pause is not None and seen.beat.pause.by == "op@desk"
        (failing,) = seen.failing
        assert failing.reason and failing.remedy
        assert failing.read_at is not None and failing.read_at <= read_at
        age = failing.age(seen.at)
        assert age is not None and age > timedelta(minutes=2)
        assert seen.next_pass is not None and seen.next_pass > seen.at
