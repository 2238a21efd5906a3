"""Asks the exact solver about refusals, in a process of its own, one at a time and beside the daemon's loop.

OR-tools is imported in that process only. It is started with the first question, replaced when it
dies, and gone when this is closed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import TYPE_CHECKING, Self

from loguru import logger

from scheduler.planning.exact import Opinion, Question, obvious, solve
from scheduler.planning.exact.solving import BACKSTOP

if TYPE_CHECKING:
    # the process of the solver starts without it
    from scheduler.settings import Settings

Solve = Callable[[Question, float], Opinion]
ATTEMPTS = 2
"""Times a question is asked whose worker dies; another way it would take down one after the other."""
START_SECONDS = 60.0
"""How long a worker may take to start, on a machine that is busy loading models."""
NICENESS = 10


@contextmanager
def second_opinions(settings: Settings) -> Iterator[SecondOpinions | None]:
    """Second opinions as the settings want them; None if they want none."""
    if not settings.planning.solver_seconds:
        yield None
        return
    with SecondOpinions(settings.planning.solver_seconds) as found:
        yield found


class SecondOpinions:
    """What the exact solver said, as far as it has.

    Args:
        seconds: how long it may look at one question.
        on_answer: called in another thread whenever there is more to know; must not raise.
        solver: importable by name, as another process calls it.
    """

    def __init__(
        self, seconds: float, on_answer: Callable[[], None] | None = None, solver: Solve = solve
    ) -> None:
        self.seconds = seconds
        self._on_answer, self._solver = on_answer, solver
        self._changed = threading.Condition()
        self._known: dict[str, Opinion] = {}
        self._unanswerable: set[str] = set()
        self._queue: list[Question] = []
        self._asked: Question | None = None
        self._closed = False
        self._thread: threading.Thread | None = None
        self._worker: _Worker | None = None

    def answer(self, questions: Iterable[Question]) -> dict[str, Opinion]:
        """What is known of these questions now, by event; the others are asked, the nearest start first.

        Does not wait. What is not among the questions is forgotten.
        """
        wanted = {question.digest: question for question in questions}
        with self._changed:
            self._known = {digest: known for digest, known in self._known.items() if digest in wanted}
            self._unanswerable &= wanted.keys()
            for digest, question in wanted.items():
                known = obvious(question, self.seconds)
                if known is not None:
                    self._known[digest] = known
            busy = {self._asked.digest} if self._asked else set()
            done = self._known.keys() | self._unanswerable | busy
            if not self._closed:
                self._queue = [question for digest, question in wanted.items() if digest not in done]
                self._queue.sort(key=lambda one: (one.start, one.event))
            if self._queue:
                self._run()
            self._changed.notify_all()
            return {wanted[digest].event: known for digest, known in self._known.items()}

    def wait(self, timeout_seconds: float) -> bool:
        """Until every question has been dealt with, or the time is over; tells which."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._asked, timeout_seconds)

    def close(self) -> None:
        """Ask no more, and end the worker, whatever it is at."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            if self._worker is not None:
                self._worker.kill()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # In the thread

    def _run(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="second-opinions", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while (question := self._next()) is not None:
            opinion = self._ask(question)
            with self._changed:
                self._asked = None
                if opinion is not None:
                    self._known[question.digest] = opinion
                else:
                    self._unanswerable.add(question.digest)
                self._changed.notify_all()
                told = self._on_answer if not self._closed else None
            if told is not None:
                told()
        if self._worker is not None:
            self._worker.end()

    def _next(self) -> Question | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            self._asked = None if self._closed else self._queue.pop(0)
            return self._asked

    def _ask(self, question: Question) -> Opinion | None:
        """What the solver says; None if it cannot be asked."""
        for _ in range(ATTEMPTS):
            try:
                worker = self._ready()
                return worker.ask(question, self.seconds) if worker else None
            except (EOFError, OSError) as error:
                with self._changed:
                    worker, self._worker = self._worker, None
                code = worker.end() if worker else None
                if self._closed:
                    return None
                logger.warning(
                    "The exact solver died over {} (exit code {}, {!r}); it is started anew",
                    question.event,
                    code,
                    error,
                )
        logger.error(
            "The exact solver died {} times over {}: it is not asked again", ATTEMPTS, question.event
        )
        return None

    def _ready(self) -> _Worker | None:
        """The worker, started if there is none; None if it is too late for that."""
        if self._worker is None:
            worker = _Worker(self._solver)
            with self._changed:
                self._worker = worker
                if self._closed:
                    worker.kill()
                    return None
        return self._worker


class _Worker:
    """A process that answers questions until the line is cut."""

    def __init__(self, solver: Solve) -> None:
        context = multiprocessing.get_context("spawn")
        self._line, theirs = context.Pipe()
        self._process: SpawnProcess = context.Process(
            target=_answer_all, args=(theirs, solver), name="exact-solver", daemon=True
        )
        self._process.start()
        # ours is the only end left, so that it is told when the other breaks off
        theirs.close()

    def ask(self, question: Question, seconds: float) -> Opinion:
        """Raises: EOFError or OSError when the process is gone, TimeoutError when it does not answer."""
        self._line.send((question, seconds))
        allowed = START_SECONDS + 2 * BACKSTOP * seconds
        if not self._line.poll(allowed):
            raise TimeoutError(f"no answer after {allowed:g} s")
        opinion = self._line.recv()
        assert isinstance(opinion, Opinion)
        return opinion

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def end(self) -> int | None:
        """End the process; returns its exit code."""
        self._line.close()
        self._process.kill()
        self._process.join()
        code = self._process.exitcode
        self._process.close()
        return code


def _answer_all(line: Connection, solver: Solve) -> None:
    """In the worker: Ctrl-C is for the parent, and so are the processors if both want them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    while True:
        try:
            question, seconds = line.recv()
        except EOFError:
            return
        line.send(solver(question, seconds))
