"""The steps of the loop, each with a deadline: one that gets stuck is told of, and holds up no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from scheduler.errors import OperatorError
from scheduler.metrics.meter import StepOutcome

Result = TypeVar("Result")


class Stuck(OperatorError):
    """A step did not end in time. What it does goes on, and it is not begun again until that has ended."""


class Steps:
    """Takes steps in threads of their own.

    Args:
        before: called with the name of each step before it is taken.
        after: called with its name, how it ended (done, failed or stuck), and the seconds that took.
    """

    def __init__(
        self,
        before: Callable[[str], None] = lambda _: None,
        after: Callable[[str, StepOutcome, float], None] = lambda *_: None,
    ) -> None:
        self._before = before
        self._after = after
        self._under_way: dict[str, tuple[threading.Thread, float]] = {}
        self._awaited = threading.Event()
        self._given_up = False
        self.now: str | None = None
        """The step that is being taken."""

    def take(self, name: str, do: Callable[[], Result], deadline_seconds: float) -> Result:
        """Do something; what it raises is raised here.

        Raises:
            Stuck: it has not ended within its deadline, or an earlier one of that name has not.
        """
        if self._given_up:
            raise Stuck(f"{name[0].upper()}{name[1:]} was not begun.", "The daemon ends.")
        if (earlier := self._under_way.get(name)) and earlier[0].is_alive():
            raise _stuck(name, time.monotonic() - earlier[1])
        self._before(name)
        outcome: list[Result] = []
        problem: list[BaseException] = []
        awaited = self._awaited = threading.Event()

        def work() -> None:
            try:
                outcome.append(do())
            except BaseException as error:  # noqa: BLE001  raised below, in the thread of the loop
                problem.append(error)
            awaited.set()

        thread = threading.Thread(target=work, name=name, daemon=True)
        began = time.monotonic()
        self._under_way[name] = (thread, began)
        self.now = name
        thread.start()
        awaited.wait(deadline_seconds)
        self.now = None
        ended: StepOutcome = "done" if outcome else "failed" if problem else "stuck"
        self._after(name, ended, time.monotonic() - began)
        if ended == "stuck":
            raise _stuck(name, time.monotonic() - began)
        if problem:
            raise problem[0]
        return outcome[0]

    def give_up(self) -> None:
        """Wait for nothing any more, and begin nothing: the process ends."""
        self._given_up = True
        self._awaited.set()

    @property
    def stuck(self) -> dict[str, float]:
        """Steps that were given up and have not ended yet, with the seconds since they began."""
        now = time.monotonic()
        return {
            name: now - began
            for name, (thread, began) in self._under_way.items()
            if thread.is_alive() and name != self.now
        }


def _stuck(name: str, seconds: float) -> Stuck:
    return Stuck(
        f"{name[0].upper()}{name[1:]} has taken {seconds:.0f} s and has not ended.",
        "It is not begun again before it ends; everything else goes on. If this stays, restart the daemon.",
    )
