"""The exact solver in its own process: what is asked, in which order, and what happens when it dies."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from scheduler.planning.exact import (
    OpinionState,
    Piece,
    Question,
    Room,
    StayName,
    follow,
    question,
)
from scheduler.second_opinion import SecondOpinions
from tests.scheduler.exact_desk import chain
from tests.scheduler.solvers import dies_of_poison, dies_once, notes, says_so_and_hangs

WAIT = 60.0


def asked(event: str, start: float = 0.0) -> Question:
    """A question that must be asked: what it says does not matter here."""
    stay = StayName("model", start, start + 1, (event,))
    return Question(
        event, start, start + 1, (Piece(stay, (), asked=True),), (Room("node", (), 0, ()),), complete=False
    )


def order(folder: Path) -> list[str]:
    return [line.split()[0] for line in (folder / "order").read_text().splitlines()]


def processes(folder: Path) -> set[str]:
    return {line.split()[1] for line in (folder / "order").read_text().splitlines()}


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Path]:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    yield pipe


def test_the_solver_is_asked_and_what_it_finds_can_be_followed() -> None:
    there, ask = chain()
    one = question(there, ask)
    with SecondOpinions(5.0) as second:
        assert second.answer([one]) == {}
        assert second.wait(WAIT)
        opinion = second.answer([one])[ask.key]
    assert (opinion.state, opinion.digest, opinion.seconds) == (OpinionState.FOUND, one.digest, 5.0)
    assert follow(there, ask, opinion)


def test_or_tools_is_not_in_the_process_that_asks() -> None:
    """It cannot be imported beside highspy, and is larger than all of the daemon."""
    loaded = "import sys, scheduler.second_opinion; sys.exit(any('ortools' in name for name in sys.modules))"
    subprocess.run([sys.executable, "-c", loaded], check=True)


def test_what_needs_no_solver_is_answered_at_once_and_starts_no_process() -> None:
    hopeless = Question("full", 1.0, 2.0, (), (), complete=True, hopeless=True, full_at=1.0)
    large = Question("large", 1.0, 2.0, (), (), complete=False)
    with SecondOpinions(5.0) as second:
        known = second.answer([hopeless, large])
        assert second.wait(0)
        assert not [
            child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())
        ]
    assert {event: opinion.state for event, opinion in known.items()} == {
        "full": OpinionState.PROVEN,
        "large": OpinionState.NOT_FOUND,
    }
    assert known["full"].full_at == 1.0


def test_the_nearest_start_is_asked_first_and_one_process_answers_all(tmp_path: Path) -> None:
    questions = [asked(str(tmp_path / f"at{start}"), start) for start in (3.0, 1.0, 2.0)]
    with SecondOpinions(1.0, solver=notes) as second:
        second.answer(questions)
        assert second.wait(WAIT)
        assert len(second.answer(questions)) == 3
    assert order(tmp_path) == ["at1.0", "at2.0", "at3.0"]
    assert len(processes(tmp_path)) == 1


def test_it_is_asked_once_and_again_when_the_question_changes(tmp_path: Path) -> None:
    before, after = asked(str(tmp_path / "same"), 1.0), asked(str(tmp_path / "same"), 2.0)
    with SecondOpinions(1.0, solver=notes) as second:
        for one in (before, before, after):
            second.answer([one])
            assert second.wait(WAIT)
        assert second.answer([before]) == {}
        assert second.wait(WAIT)
    assert order(tmp_path) == ["same", "same", "same"]


def test_whoever_waits_for_it_is_told(tmp_path: Path) -> None:
    told = threading.Event()
    with SecondOpinions(1.0, on_answer=told.set, solver=notes) as second:
        one = asked(str(tmp_path / "one"))
        second.answer([one])
        assert told.wait(WAIT)
        assert list(second.answer([one])) == [one.event]


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    one, other = asked(str(tmp_path / "one"), 1.0), asked(str(tmp_path / "other"), 2.0)
    (tmp_path / "other").touch()
    with SecondOpinions(1.0, solver=dies_once) as second:
        second.answer([one, other])
        assert second.wait(WAIT)
        assert set(second.answer([one, other])) == {one.event, other.event}
    assert order(tmp_path) == ["one", "other"]


def test_a_question_that_kills_is_given_up_and_the_others_are_answered(tmp_path: Path) -> None:
    poison, good = asked(str(tmp_path / "poison"), 1.0), asked(str(tmp_path / "good"), 2.0)
    with SecondOpinions(1.0, solver=dies_of_poison) as second:
        for _ in range(2):
            second.answer([poison, good])
            assert second.wait(WAIT)
        assert set(second.answer([poison, good])) == {good.event}
    assert order(tmp_path) == ["poison", "poison", "good"]


def test_closing_ends_a_worker_that_is_at_it(hanging: Path) -> None:
    second = SecondOpinions(1.0, solver=says_so_and_hangs)
    second.answer([asked(str(hanging))])
    worker = psutil.Process(int(hanging.read_text()))
    assert not second.wait(0)
    second.close()
    assert not worker.is_running()
    second.close()


def test_a_worker_that_is_killed_from_outside_is_replaced(hanging: Path) -> None:
    with SecondOpinions(1.0, solver=says_so_and_hangs) as second:
        second.answer([asked(str(hanging))])
        first = int(hanging.read_text())
        psutil.Process(first).kill()
        assert int(hanging.read_text()) != first


def test_nothing_is_asked_once_it_is_closed(tmp_path: Path) -> None:
    second = SecondOpinions(1.0, solver=notes)
    second.close()
    assert second.answer([asked(str(tmp_path / "late"))]) == {}
    assert second.wait(0)
    assert not (tmp_path / "order").exists()
