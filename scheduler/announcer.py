"""What the daemon says in its log and on its console: everything once, and again when it changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from loguru import logger
from rich.console import Console

from scheduler.amend import load_failed
from scheduler.bookings import Bookings
from scheduler.errors import OperatorError
from scheduler.front import Lease
from scheduler.guard import Hold
from scheduler.progress import Progress
from scheduler.render.sentences import sentence
from scheduler.render.text import progress_line, show_plan
from scheduler.store.orders import Order
from scheduler.store.records import Parked
from scheduler.types import Model, Plan


class Announcer:
    """Remembers what it has said."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: dict[str, str] = {}

    @property
    def problem(self) -> str:
        """What hinders the loop, as it was last said."""
        return self._said.get("problem", "")

    def say(self, subject: str, text: str, more: str = "", level: str = "ERROR") -> None:
        """Log something about a subject, if it is new."""
        if self._said.get(subject) != text:
            self._said[subject] = text
            logger.log(level, "{}", f"{text} {more}".strip())

    def trouble(self, problem: OperatorError, subject: str = "problem") -> None:
        """Log what only a person can put right."""
        self.say(subject, f"{problem.reason} {problem.remedy}")

    def over(self, subject: str, text: str = "") -> None:
        """A subject is over: the next time it is news again. Says ``text`` if it had been said."""
        if self._said.pop(subject, "") and text:
            logger.success("{}", text)

    def standing(self, subject: str, text: str, over: str) -> None:
        """Something that lasts: said when it begins or changes (``text``), and when it is over (empty)."""
        if text:
            self.say(subject, text, level="WARNING")
        else:
            self.over(subject, over)

    def lease(self, lease: Lease) -> None:
        """Log whose the cluster is, where it is another daemon's."""
        waits = f"Waiting: {lease.holder} works on this cluster." if lease.holder and not lease.ours else ""
        self.standing("lease", waits, "This daemon works on the cluster now.")
        self.standing("lease problem", lease.problem, "The lease can be kept again.")

    def hindrances(self, held: Hold | None, pause: Order | None, away: Iterable[str], in_use: str) -> None:
        """Log why not everything is done that is planned."""
        self.standing("held", held.words if held else "", "The bookings are as they should be.")
        words = f"Paused{f' by {pause.by}' if pause.by else ''}: nothing is changed." if pause else ""
        self.standing("pause", words, "Not paused any more.")
        self.standing("in use", in_use, "All GPU memory that should be free is.")
        missing = ", ".join(away)
        self.standing("away", f"Gone, and waited for: {missing}." if missing else "", "")

    def plan(self, plan: Plan) -> None:
        """Print a plan that has something new to do or to refuse."""
        doing = "\n".join(
            f"{a.kind} {a.model} {a.node} {a.replicas} {a.reason}" for a in plan.actions if a.model
        )
        refusing = "\n".join(f"{v.event} {v.state} {sentence(v.reason)}" for v in plan.refused)
        news = (doing and doing != self._said.get("doing")) or refusing != self._said.get("refusing", "")
        self._said |= {"doing": doing, "refusing": refusing}
        if news:
            show_plan(self._console, plan)

    def progress(self, told: Iterable[Progress]) -> None:
        """Log what has become of applications."""
        for one in told:
            level, line = progress_line(one)
            about = one.deployment
            # who searches the log for a booking finds this, too
            fields = logger.bind(model=about.model.name, node=about.node, events=about.reservations)
            fields.log(level, "{}", line)

    def parked(self, told: Iterable[Parked | str], names: Mapping[str, Model]) -> None:
        """Log what is left alone from now on, and what is not any more."""
        for one in told:
            key = one.model_key if isinstance(one, Parked) else one
            name = names[key].name if key in names else key
            if isinstance(one, Parked):
                logger.bind(model=name).error(
                    "{}: {}. Left alone until {:%H:%M:%S} UTC, after {} tries.",
                    name,
                    sentence(load_failed(one)),
                    one.retry_at,
                    one.tries,
                )
            else:
                logger.info("{} is not left alone any more.", name)

    def calendars(self, bookings: Bookings) -> None:
        """Log which calendars cannot be read, and which can again."""
        for name in [said for said in self._said if said.startswith("calendar ")]:
            if name.removeprefix("calendar ") not in bookings.failing:
                self.over(name, f"The calendar {name.removeprefix('calendar ')} can be read again.")
        for name, problem in bookings.failing.items():
            if known := bookings.known(name):
                kept = f"What was booked at {known.read_at:%d %b %H:%M} UTC stands; nothing is taken down."
                self.say(f"calendar {name}", f"{problem.reason} {problem.remedy}", kept)
