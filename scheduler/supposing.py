"""Answers “would this fit?” from what the daemon last knew, in a process of its own.

The loop is not held up by it, and a question that takes too long is given up together with its process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Protocol

from loguru import logger

from calendars.called import command
from calendars.reservation import Reading, Reservation
from scheduler.board import View
from scheduler.controller import Controller
from scheduler.errors import OperatorError
from scheduler.settings import Settings
from scheduler.store.orders import Order, Orders
from scheduler.types import Observed, Plan
from scheduler.what_if import Answer, answer, reading_of

START_SECONDS = 30.0
"""How long the process may take to start, on a machine that is busy loading models."""
MOST_AT_ONCE = 4
"""So many questions may wait for their turn."""
NICENESS = 10
IDLE_SECONDS = 600.0
"""So long after the last question the process ends; the next one starts another."""
ATTEMPTS = 2


class Busy(OperatorError):
    """Too many questions are being answered already."""


class TooLong(OperatorError):
    """The answer took too long and was given up."""


@dataclass(frozen=True)
class Supposition:
    """A booking that nobody has made, and what it is judged beside."""

    booking: Reservation
    readings: tuple[Reading, ...]
    observed: Observed
    orders: tuple[Order, ...]


@dataclass(frozen=True)
class Supposed:
    """What would become of it, and the plan that has it."""

    answer: Answer
    plan: Plan


class Judges(Protocol):
    """Who answers: `Supposer`, or a stand-in."""

    def ask(self, booking: Reservation, view: View) -> Supposed:
        """Judge a booking beside what a view has.

        Raises:
            OperatorError: it cannot be judged, or not now.
        """
        ...


class Supposer:
    """Asks one question after the other.

    Args:
        seconds: how long an answer may take.
    """

    def __init__(self, settings: Settings, seconds: float) -> None:
        self._settings = settings
        self._seconds = seconds
        self._places = threading.BoundedSemaphore(MOST_AT_ONCE)
        self._turn = threading.Lock()
        self._worker: _Worker | None = None
        self._closed = False

    def ask(self, booking: Reservation, view: View) -> Supposed:
        """Judge a booking beside what a view has.

        Raises:
            Busy: too many ask already.
            TooLong: the answer took too long.
            OperatorError: nothing has been seen yet, or planning is not possible.
        """
        if view.observed is None:
            raise OperatorError("The daemon has not seen the cluster yet.", "Ask again in a moment.")
        asked = Supposition(booking, view.readings, view.observed, view.beat.orders)
        if not self._places.acquire(blocking=False):
            raise Busy("Others are asking as well.", "Ask again in a few seconds.")
        try:
            with self._turn:
                return self._answer(asked)
        finally:
            self._places.release()

    def close(self) -> None:
        """End the process, whatever it is at."""
        self._closed = True
        worker = self._worker
        if worker is not None:
            worker.kill()

    def _answer(self, asked: Supposition) -> Supposed:
        for _ in range(ATTEMPTS):
            if self._closed:
                raise OperatorError("The daemon is stopping.", "Ask again when it runs.")
            fresh = self._worker is None
            self._worker = self._worker or _Worker(self._settings)
            try:
                said = self._worker.ask(asked, self._seconds + (START_SECONDS if fresh else 0))
            except TimeoutError:
                self._drop()
                raise TooLong(
                    f"No answer was found within {self._seconds:.0f} s.", f"Ask {command('plan --what-if')}."
                ) from None
            except (EOFError, OSError) as error:
                self._drop()
                logger.debug("The process that answers questions is gone: {!r}.", error)
                continue
            if isinstance(said, OperatorError):
                raise said
            return said
        logger.warning("The process that answers questions died {} times over one.", ATTEMPTS)
        raise OperatorError("The question could not be answered.", "Ask it otherwise.")

    def _drop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()


class _Worker:
    """A process that answers until the line is cut."""

    def __init__(self, settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")
        self._line, theirs = context.Pipe()
        self._process: SpawnProcess = context.Process(
            target=_answer_all, args=(theirs, settings), name="what-if", daemon=True
        )
        self._process.start()
        theirs.close()

    def ask(self, asked: Supposition, seconds: float) -> Supposed | OperatorError:
        """Raises: EOFError or OSError when the process is gone, TimeoutError when it does not answer."""
        self._line.send(asked)
        if not self._line.poll(seconds):
            raise TimeoutError
        said = self._line.recv()
        if isinstance(said, tuple):
            return OperatorError(*said)
        assert isinstance(said, Supposed)
        return said

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def end(self) -> None:
        """End the process, and wait for that."""
        self._line.close()
        self._process.kill()
        self._process.join()
        self._process.close()


def _answer_all(line: Connection, settings: Settings) -> None:
    """In the process: Ctrl-C is for the parent, and so are the processors if both want them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    while line.poll(IDLE_SECONDS):
        try:
            asked = line.recv()
        except EOFError:
            return
        try:
            line.send(judged(asked, settings))
        except OperatorError as problem:
            line.send((problem.reason, problem.remedy))


def judged(asked: Supposition, settings: Settings) -> Supposed:
    """Plan without the booking, and with it; by the planner alone, without the exact solver.

    Raises:
        OperatorError: planning is not possible.
    """
    controller = Controller(settings, calendars=lambda _: ())
    try:
        controller.orders = Orders(orders=asked.orders)
        at = asked.booking.booked_at
        without = controller.plan(at, asked.observed, also=asked.readings)
        with_it = controller.plan(at, asked.observed, also=(*asked.readings, reading_of(asked.booking)))
        return Supposed(answer(asked.booking, without, with_it), with_it)
    finally:
        controller.close()
