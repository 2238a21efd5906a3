"""What ``plan`` and ``apply`` do: read, observe, suppose, plan, ask for second opinions, and plan again."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from calendars.reservation import Reading
from scheduler.controller import Controller
from scheduler.errors import OperatorError
from scheduler.logutil.logger import set_up_logging
from scheduler.moments import SystemZone, parse_moment
from scheduler.second_opinion import SecondOpinions, second_opinions
from scheduler.settings import Settings, load_settings
from scheduler.store.orders import Order
from scheduler.types import Observed, Plan, ReasonKind
from scheduler.what_if import Answer, answer, booking_from, reading_of

LONGEST_HORIZON_DAYS = 366
NODES_LISTED = 20
ROUNDS = 3
"""So often is planned again with what the exact solver said: following it may raise new questions."""
SOLVER_START_SECONDS = 15.0


@dataclass(frozen=True)
class Question:
    """What ``plan`` is asked, apart from how the answer is shown."""

    at: str | None = None
    horizon_days: float | None = None
    without_nodes: tuple[str, ...] = ()
    what_if: str | None = None
    quick: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether it is about the present as it is."""
        return self == Question(quick=self.quick)


@dataclass(frozen=True)
class Asked:
    """The plan that answers a question, what was supposed for it, and what the operator ordered.

    ``held`` tells why the plan is not that of the last reading, where it is not.
    """

    plan: Plan
    supposing: tuple[str, ...] = ()
    answer: Answer | None = None
    orders: tuple[Order, ...] = ()
    held: str | None = None


@dataclass(frozen=True)
class Planner:
    """A controller, and who is asked about refusals, if anybody."""

    controller: Controller
    solver: SecondOpinions | None = None

    def plan(self, at: datetime, observed: Observed, now: datetime, also: tuple[Reading, ...] = ()) -> Plan:
        """Plan; where something finds no room, wait for the exact solver and plan with what it says."""
        made = self.controller.plan(at, observed, now, also=also)
        if self.solver is None:
            return made
        ends_at = time.monotonic() + SOLVER_START_SECONDS + 2 * self.solver.seconds
        for _ in range(ROUNDS):
            if all(one.reason.kind is not ReasonKind.LATER for one in made.refused):
                break
            self.solver.wait(max(0.0, ends_at - time.monotonic()))
            before, made = made, self.controller.plan(at, observed, now, also=also)
            if made == before and self.solver.wait(0):
                break
        return made

    def plan_now(self) -> Plan:
        """Read the calendars, observe, and plan for the present."""
        now = datetime.now(UTC)
        self.controller.bookings.refresh(now)
        observed, _ = self.controller.observe()
        return self.plan(now, observed, now)


@contextmanager
def planner(settings: Settings, *, quick: bool = False) -> Iterator[Planner]:
    """A planner from the settings, closed on the way out; a ``quick`` one asks nobody."""
    wanted = settings.model_copy(
        update={"planning": settings.planning.model_copy(update={"solver_seconds": 0.0})}
    )
    with second_opinions(wanted if quick else settings) as solver:
        made = Controller(settings, solver=solver)
        try:
            yield Planner(made, solver)
        finally:
            made.close()


def read_settings(address: str | None = None, horizon_days: float | None = None) -> Settings:
    """The settings, with what the command line says about them; logging is set up by them."""
    overrides: dict[str, Any] = {}
    if address:
        overrides["ray"] = {"address": address}
    if horizon_days:
        overrides["calendar"] = {"horizon_days": horizon_days}
    settings = load_settings(**overrides)
    set_up_logging(settings.log.level)
    return settings


def ask(question: Question) -> Asked:
    """Answer a question; changes nothing.

    Raises:
        OperatorError: it is not understood, or there is no way to know.
    """
    now = datetime.now(UTC)
    local = now.astimezone(SystemZone())
    at = now if question.at is None else parse_moment(question.at, local)
    supposing = []
    if question.at is not None:
        supposing.append(f"it is {at.astimezone():%a %d %b %H:%M} and nothing runs but what does now")
    booking = None if question.what_if is None else booking_from(question.what_if, local)
    settings = read_settings(horizon_days=question.horizon_days)
    if booking and question.horizon_days is None:
        settings = _reaching(settings, booking.end - at)
    with planner(settings, quick=question.quick) as desk:
        ours = desk.controller
        ours.bookings.refresh(now, at)
        observed, _ = ours.observe()
        for name in dict.fromkeys(question.without_nodes):
            observed = _without(observed, name)
            supposing.append(f"{name} is gone")
        made = desk.plan(at, observed, now)
        if booking is None:
            orders = tuple(one for one in ours.orders.orders if one.holds(at))
            held = ours.held.words if ours.held else None
            return Asked(made, tuple(supposing), orders=orders, held=held)
        if booking.end <= at:
            raise OperatorError(
                "The booking of --what-if is over at the time of --at.", "Choose a later one."
            )
        with_it = desk.plan(at, observed, now, (reading_of(booking),))
        return Asked(with_it, tuple(supposing), answer(booking, made, with_it))


def _reaching(settings: Settings, ahead: timedelta) -> Settings:
    """The same settings with a horizon behind the end of a booking: others near it must be known."""
    days = math.ceil(ahead / timedelta(days=1)) + 1
    if days <= settings.calendar.horizon_days:
        return settings
    if days > LONGEST_HORIZON_DAYS:
        raise OperatorError(
            f"The booking of --what-if ends {days - 1} days ahead; calendars are read for a year at most.",
            "Choose an earlier one.",
        )
    return read_settings(horizon_days=days)


def _without(observed: Observed, name: str) -> Observed:
    if observed.cluster.named(name) is None:
        names = [node.name for node in observed.cluster.nodes]
        listed = ", ".join(names[:NODES_LISTED]) + (
            f" and {len(names) - NODES_LISTED} more" if len(names) > NODES_LISTED else ""
        )
        raise OperatorError(
            f"--without-node is “{name}”, and no node is called that.",
            f"The nodes are: {listed}." if names else "The cluster has no nodes.",
        )
    return observed.model_copy(update={"cluster": observed.cluster.without(name)})
