"""Days of storms: Google fails in every way there is, at random, while people book and models run.

    python -m tests.simulation.storm --seeds 20

runs whole simulated days (a poll every 30 s, most of the day in a storm) and prints what they took; a seed
that fails is named, and ``--seed N`` runs it again. The tests run days in which the storms are shorter.

What must hold, whatever Google answers:

- a model that is booked serves from the first instant of its booking to the last, provided the calendar has
  said so for `KNOWN_AFTER` (no outage here is as long, so the daemon has had a chance to read it);
- one poll after a storm the calendar says of every event what has become of it, and nothing runs that is not
  booked;
- no minute has more than `MOST_REQUESTS` requests;
- no pass of the daemon's loop ends in an exception.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter

from loguru import logger

from tests.google_server import ROBOT
from tests.google_server.errors import NAMED
from tests.simulation.harness import World, world

DAY = datetime(2026, 3, 25, 0, 0, tzinfo=UTC)
KNOWN_AFTER = timedelta(minutes=50)
LONGEST_OUTAGE = timedelta(minutes=40)
LEAD = timedelta(minutes=4)
"""More than any of these models is loaded before its start."""

MOST_REQUESTS = 600
BOOKINGS = 16
MODELS = ("phi", "llama", "mistral")
TO_WRITES_TOO = ("conditionNotMet", "notFound", "deleted", "rateLimitExceeded", "requestTimeout")
"""Errors that a write can meet by accident. Others, such as ``forbidden``, are decisions of the calendar's
owner: they are shown to reads only."""


@dataclass
class Version:
    """What the calendar says of a booking from ``since`` on; without times it is cancelled."""

    since: datetime
    start: datetime | None = None
    end: datetime | None = None

    def covers(self, at: datetime) -> bool:
        return self.start is not None and self.end is not None and self.start <= at < self.end


@dataclass
class Booking:
    """One event, and all it ever said."""

    event_id: str
    model: str
    versions: list[Version]

    @property
    def now(self) -> Version:
        return self.versions[-1]

    def due(self, at: datetime) -> bool:
        """Whether the model must serve: each version of the last while said so."""
        later = [*(version.since for version in self.versions[1:]), datetime.max.replace(tzinfo=UTC)]
        recent = [one for one, until in zip(self.versions, later, strict=True) if until > at - KNOWN_AFTER]
        return self.versions[0].since <= at - KNOWN_AFTER and all(one.covers(at) for one in recent)


@dataclass(frozen=True)
class Pace:
    """How a day is divided: so many storms, each of so many polls of 30 s, the longest and the shortest."""

    storms: int
    polls: tuple[int, int]
    calm_poll_seconds: float


WHOLE_DAY = Pace(storms=14, polls=(100, 220), calm_poll_seconds=30)
QUICK = Pace(storms=3, polls=(16, 32), calm_poll_seconds=900)


@dataclass
class Figures:
    """What a day came to."""

    seed: int
    passes: int = 0
    requests: int = 0
    failed: int = 0
    busiest_minute: int = 0
    writes: int = 0
    kinds: set[str] = field(default_factory=set)
    seconds: float = 0.0


class StormyDay:
    """One seeded day in a world: the people, the weather, and what is held against both."""

    def __init__(self, lab: World, seed: int, pace: Pace) -> None:
        self.lab = lab
        self.chance = random.Random(seed)
        self.pace = pace
        self.figures = Figures(seed)
        self.bookings: list[Booking] = []
        self._away_until: datetime | None = None
        self._stopped = False
        lab.after_pass = self.check_what_runs

    def run(self) -> Figures:
        """The whole day.

        Raises:
            AssertionError: something did not hold.
        """
        lab, began = self.lab, perf_counter()
        for _ in range(BOOKINGS):
            self.book(DAY + timedelta(minutes=15 * self.chance.randrange(4, 84)))
        every = timedelta(hours=24) / self.pace.storms
        for number in range(self.pace.storms):
            polls = self.chance.randint(*self.pace.polls)
            slack = every - timedelta(seconds=30 * (polls + 4))
            begins = DAY + number * every + slack * self.chance.random()
            lab.poll_seconds = self.pace.calm_poll_seconds
            lab.run_until(begins)
            self.storm(polls)
            lab.poll()
            self.check_calendar()
        lab.poll_seconds = self.pace.calm_poll_seconds
        lab.run_until(DAY + timedelta(hours=25))
        self.check_calendar()
        assert lab.faults_of_the_loop() == []
        return self.count(perf_counter() - began)

    # --- people -----------------------------------------------------------------------------------

    def book(self, start: datetime) -> None:
        """Somebody books a model for a while."""
        model = self.chance.choice(MODELS)
        end = start + timedelta(minutes=15 * self.chance.randint(2, 14))
        event_id = f"storm{len(self.bookings):04d}"
        self.lab.calendar.add(model, start, end, "our words", id=event_id)
        self.bookings.append(Booking(event_id, model, [Version(self.lab.clock(), start, end)]))

    def edit(self) -> None:
        """Somebody changes one booking: longer, shorter, elsewhere, away, or one more."""
        now = self.lab.clock().replace(microsecond=0)  # as Google keeps times
        one = self.chance.choice(self.bookings)
        start, end = one.now.start, one.now.end
        what = self.chance.choice(("longer", "shorter", "move", "cancel", "book"))
        if what == "book" or start is None or end is None or end <= now + timedelta(minutes=5):
            self.book(now + timedelta(minutes=15 * self.chance.randrange(2, 12)))
            return
        if what == "cancel":
            self.lab.calendar.cancel(one.event_id)
            one.versions.append(Version(now))
            return
        if what == "move" and start > now:
            by = timedelta(minutes=15 * self.chance.randint(1, 8))
            start, end = start + by, end + by
        elif what == "shorter":
            end = max(start + timedelta(minutes=15), end - timedelta(minutes=30))
        else:
            end += timedelta(minutes=30)
        self.lab.calendar.move(one.event_id, start, end)
        one.versions.append(Version(now, start, end))

    # --- weather ----------------------------------------------------------------------------------

    def storm(self, polls: int) -> None:
        """So many polls of 30 s in which requests fail, and now and then all of them do."""
        lab = self.lab
        lab.poll_seconds = 30
        self.blow()
        for _ in range(polls):
            # the people's part of a storm is over in time for what they did to be known when it ends
            if self.chance.random() < 0.06:
                self.edit()
            if self._away_until is None:
                self.worsen()
            elif lab.clock() >= self._away_until:
                self.recover()
                self.blow()
            lab.run_for(seconds=30)
        self.recover()

    def blow(self) -> None:
        """From now on many requests fail. Those for tokens only now and then (`worsen`): google-auth pauses
        for a second before it asks for one again, and nothing can be set there."""
        seed, rate = self.chance.randrange(10**9), self.chance.uniform(0.3, 0.9)
        self.lab.google.faults.storm(seed, rate, path="/events")

    def worsen(self) -> None:
        """Something out of the ordinary, at times."""
        google, faults = self.lab.google, self.lab.google.faults
        draw = self.chance.random()
        if draw < 0.25:
            faults.add(f"error:{self.chance.choice(sorted(NAMED))}", method="GET", path="/events")
        elif draw < 0.35:
            faults.add(f"error:{self.chance.choice(TO_WRITES_TOO)}", method="PATCH")
        elif draw < 0.40:
            google.accounts.expire_tokens()
            faults.add(f"error:{self.chance.choice(('invalid_grant', 'internal_failure'))}", path="/token")
        elif draw < 0.42:
            faults.add(self.chance.choice(("hang", "slow")), seconds=0.02)
        elif draw < 0.46:
            self.all_day_long(self.chance.choice(("away", "clock", "disabled", "unshared", "quota", "html")))

    def all_day_long(self, what: str) -> None:
        """Every request fails, for up to `LONGEST_OUTAGE`."""
        google = self.lab.google
        self.figures.kinds.add(what)
        self._away_until = self.lab.clock() + LONGEST_OUTAGE * self.chance.random()
        if what == "away":
            google.stop()
            self._stopped = True
        elif what == "clock":
            google.accounts.expire_tokens()
            google.clock_offset = timedelta(hours=2)
        elif what == "disabled":
            google.knobs.api_enabled = False
        elif what == "unshared":
            self.lab.calendar.share(ROBOT, "none")
        elif what == "quota":
            google.knobs.quota_per_minute = 1
        else:
            google.faults.add("html", times=None)

    def recover(self) -> None:
        """Google works again."""
        google = self.lab.google
        if self._stopped:
            google.start()
            self._stopped = False
        google.faults.clear()
        google.clock_offset = timedelta()
        google.knobs.api_enabled = True
        google.knobs.quota_per_minute = MOST_REQUESTS
        self.lab.calendar.share(ROBOT, "writer")
        self._away_until = None

    # --- what is held against it ------------------------------------------------------------------

    def check_what_runs(self) -> None:
        """After every pass: what must serve, serves."""
        at = self.lab.clock()
        due = {one.model for one in self.bookings if one.due(at)}
        missing = due - self.lab.serving()
        assert not missing, self.words(f"{missing} should serve; there are {self.lab.models()}")

    def check_calendar(self) -> None:
        """One poll after a storm: every event says what has become of it, and only what is booked runs."""
        at, models = self.lab.clock(), self.lab.models()
        wrong = []
        booked = set()
        for one in self.bookings:
            start, end = one.now.start, one.now.end
            if start is None or end is None:
                continue
            if end <= at:
                said = {"ended"}
            elif start <= at:
                said = {"serving" if models.get(one.model) == "RUNNING" else "loading"}
            else:
                said = {"scheduled", "loading", "serving"} if start - LEAD <= at else {"scheduled"}
            if start - LEAD <= at < end:
                booked.add(one.model)
            if self.lab.state(one.event_id) not in said:
                wrong.append(f"{one.event_id} {one.model} {start:%H:%M}-{end:%H:%M}: {said}, "
                             f"not {self.lab.writes(one.event_id)}")  # fmt: skip
        assert not wrong, self.words("the calendar has not converged: " + "; ".join(wrong))
        assert set(models) <= booked, self.words(f"{models} run, and {booked} are booked")

    def words(self, what: str) -> str:
        """What does not hold, and how to see it again."""
        said = "".join(self.lab.said[-6:])
        return f"seed {self.figures.seed}, {self.lab.clock():%H:%M:%S}: {what}\nThe daemon said:\n{said}"

    def count(self, seconds: float) -> Figures:
        """The day in figures.

        Raises:
            AssertionError: a minute had too many requests.
        """
        figures, requests = self.figures, self.lab.google.log.requests
        figures.passes, figures.requests, figures.seconds = self.lab.passes, len(requests), seconds
        figures.failed = sum(one.fault is not None or one.status not in (200, 204) for one in requests)
        figures.kinds |= {one.fault for one in requests if one.fault is not None}
        figures.writes = len(self.lab.writes())
        figures.busiest_minute = max(self.lab.google.log.per_minute("").values())
        assert figures.busiest_minute <= MOST_REQUESTS, self.words(f"{figures.busiest_minute} in a minute")
        return figures


def stormy_day(folder: Path, seed: int, pace: Pace) -> Figures:
    """One day from its beginning to its end."""
    options = {"zone": "UTC", "timeout_seconds": 1.0, "gpus": {"gpu-a": 8}, "load_seconds": 5.0}
    with world(folder, f"{DAY:%Y-%m-%dT%H:%M}", **options) as lab:
        return StormyDay(lab, seed, pace).run()


def main() -> int:
    """Run days, print their figures; the exit code is 1 where one failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="how many days")
    parser.add_argument("--seed", type=int, help="this day only")
    parser.add_argument(
        "--quick", action="store_true", help="days with few and short storms, as in the tests"
    )
    options = parser.parse_args()
    logger.remove()
    seeds = range(options.seeds) if options.seed is None else [options.seed]
    say = sys.stdout.write
    say(" seed  passes  requests  failed  most/min  writes  seconds\n")
    failures = 0
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = stormy_day(Path(folder), seed, QUICK if options.quick else WHOLE_DAY)
            except AssertionError as failure:
                failures += 1
                say(f"{seed:>5} FAILED: {failure}\n")
                continue
        say(
            f"{seed:>5} {found.passes:>7} {found.requests:>9} {found.failed:>7} {found.busiest_minute:>9} "
            f"{found.writes:>7} {found.seconds:>8.1f}\n"
        )
    say(f"{failures} of {len(seeds)} days failed.\n")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
