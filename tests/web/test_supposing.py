"""“Would this fit?” in a process of its own: what it answers, and what happens when it does not."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from scheduler import supposing
from scheduler.errors import OperatorError
from scheduler.settings import Settings
from scheduler.supposing import MOST_AT_ONCE, Busy, Supposer, TooLong
from scheduler.what_if import booking_of
from tests.scheduler.builders import NOON
from tests.web.desk import NOW, seen, settings_for, week

VIEW = seen(week())
BOOKING = booking_of(
    "Llama-3.3-70B-Instruct 8xH100", NOON + timedelta(hours=5), NOON + timedelta(hours=8), NOW
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_for(tmp_path)


@pytest.fixture
def closing() -> Iterator[list[Supposer]]:
    made: list[Supposer] = []
    yield made
    for one in made:
        one.close()


def asking(settings: Settings, closing: list[Supposer], seconds: float = 60.0) -> Supposer:
    made = Supposer(settings, seconds)
    closing.append(made)
    return made


# what the process does in the tests below, instead of planning


def _sleeps(line: Connection, _: Settings) -> None:
    line.recv()
    time.sleep(600)


def _dies(line: Connection, _: Settings) -> None:
    line.recv()
    os._exit(3)


def test_another_process_plans_as_the_daemon_would(settings: Settings, closing: list[Supposer]) -> None:
    desk = asking(settings, closing)
    found = desk.ask(BOOKING, VIEW)
    assert found.answer.fits is False
    assert found.answer.verdict.earliest == NOON + timedelta(hours=12)
    later = BOOKING.model_copy(
        update={"start": NOON + timedelta(hours=12), "end": NOON + timedelta(hours=14)}
    )
    assert desk.ask(later, VIEW).answer.nodes == ("gpu-b",)


def test_what_takes_too_long_is_given_up_with_its_process(
    settings: Settings, closing: list[Supposer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supposing, "_answer_all", _sleeps)
    monkeypatch.setattr(supposing, "START_SECONDS", 0.0)
    desk = asking(settings, closing, seconds=0.2)
    with pytest.raises(TooLong, match="within 0 s"):
        desk.ask(BOOKING, VIEW)
    assert desk._worker is None


def test_a_process_that_dies_is_replaced_once(
    settings: Settings, closing: list[Supposer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supposing, "_answer_all", _dies)
    desk = asking(settings, closing)
    with pytest.raises(OperatorError, match="could not be answered"):
        desk.ask(BOOKING, VIEW)
    monkeypatch.undo()
    assert desk.ask(BOOKING, VIEW).answer.fits is False


def test_only_so_many_may_wait(
    settings: Settings, closing: list[Supposer], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = asking(settings, closing)
    entered, go = threading.Semaphore(0), threading.Event()

    def wait(_: object) -> None:
        entered.release()
        go.wait(60)
        raise OperatorError("Enough.", "")

    monkeypatch.setattr(desk, "_answer", wait)
    errors: list[type[Exception]] = []

    def ask() -> None:
        try:
            desk.ask(BOOKING, VIEW)
        except OperatorError as error:
            errors.append(type(error))

    threads = [threading.Thread(target=ask) for _ in range(MOST_AT_ONCE)]
    for one in threads:
        one.start()
    assert entered.acquire(timeout=60)
    while desk._places.acquire(blocking=False):
        desk._places.release()  # until all of them wait
    with pytest.raises(Busy):
        desk.ask(BOOKING, VIEW)
    go.set()
    for one in threads:
        one.join(60)
    assert errors == [OperatorError] * MOST_AT_ONCE


def test_before_anything_was_seen_it_says_so(settings: Settings, closing: list[Supposer]) -> None:
    with pytest.raises(OperatorError, match="not seen the cluster"):
        asking(settings, closing).ask(BOOKING, replace(VIEW, observed=None))


def test_after_its_end_nobody_is_asked(settings: Settings) -> None:
    desk = Supposer(settings, 60.0)
    desk.close()
    with pytest.raises(OperatorError, match="stopping"):
        desk.ask(BOOKING, VIEW)
