"""How long it takes to read, parse and judge a calendar with 2,500 events in its window.

    python -m benchmarks.google_calendar

The events are listed from the stand-in for Google in a process of its own, by the product's own client with a
key file, and judged by the function that the daemon calls. Every row is taken once in each round, one after
the other, so that whatever slows the machine down slows all of them down; ratios are between medians.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import TypeVar
from urllib.parse import quote, urlencode

import google_auth_httplib2
import httplib2
import httpx
from google.oauth2.service_account import Credentials

from calendars.google import GoogleCalendar
from calendars.reservation import Reading
from calendars.snapshot import Snapshots
from calendars.write_back import Report, with_report
from scheduler.planning.plan import Known, make_plan
from scheduler.types import Catalog, CatalogEntry, Model, Observed, Plan
from tests.google_server import FakeClock, google_server
from tests.google_server.client import EVENTS_SCOPE
from tests.scheduler.builders import cluster, gib_model, gpus

EVENTS = 2_500
MODELS = 40
NODES = 16
START = datetime(2026, 3, 2, tzinfo=UTC)
WINDOW = START, START + timedelta(days=14)
AT = START + timedelta(hours=4)
LAB = "lab@group.calendar.google.com"
SPOKEN_TO = Report(key="", state="scheduled", lines=("It will be loaded shortly before its start.",))


T = TypeVar("T")


@dataclass
class Row:
    """One thing that is measured, and the seconds it took in each round."""

    name: str
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def texts() -> Iterator[tuple[str, str | None]]:
    """Titles and descriptions without end: plain, with settings, as HTML, answered already, nonsense."""
    for number in itertools.count():
        model = f"model-{number % MODELS}"
        yield model, None
        yield "Reading group", f"model: {model}\nreplicas: 2\npriority: {number % 5}"
        yield "Lecture", f"<p>Dear all,</p><ul><li>model:&nbsp;<b>{model}</b></li></ul><br>see you “there”"
        yield model, with_report("my own words\n", SPOKEN_TO)
        yield "Lunch with the team", "at noon"


def serve(folder: str, pipe: Connection) -> None:
    """The stand-in with a calendar full of events, until the other side says that it is enough."""
    with google_server(clock=FakeClock(START)) as google:
        lab = google.calendar(LAB)
        length = (WINDOW[1] - WINDOW[0]) / EVENTS
        for number, (title, description) in enumerate(itertools.islice(texts(), EVENTS)):
            start = (WINDOW[0] + length * number).replace(microsecond=0)
            lab.add(title, start, start + timedelta(hours=1 + number % 5), description)
        google.key_file(Path(folder))
        google.knobs.quota_per_minute = 10**9
        pipe.send(google.api_endpoint)
        pipe.recv()


@contextmanager
def served() -> Iterator[tuple[Path, str]]:
    """The key file and the address of a server in another process."""
    here, there = multiprocessing.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(folder, there), daemon=True)
        server.start()
        endpoint = here.recv()
        try:
            yield next(Path(folder).glob("*.json")), endpoint
        finally:
            here.send("enough")
            server.join()


def judged(reading: Reading) -> Plan:
    """The plan for `AT`, when nearly all is to come: 16 nodes with eight GPUs of 80 GiB, nothing runs."""
    entries = tuple(
        CatalogEntry(repo_id=f"lab/model-{number}", aliases=(f"model-{number}",)) for number in range(MODELS)
    )
    known = {Model(repo_id=entry.repo_id).key: gib_model(8 + 3 * n) for n, entry in enumerate(entries)}
    nodes = cluster(*(gpus(f"node-{number:02d}", 8, 80) for number in range(NODES)))
    observed = Observed(
        cluster=nodes, deployments=(), directory_version=None, others=(), fingerprint="benchmark"
    )
    made_from = Known(catalog=Catalog(entries=entries), checkpoints=known)
    return make_plan((reading,), observed, AT, made_from)


class Measured:
    """The rows, in the order they are taken in."""

    def __init__(self, key: Path, endpoint: str, folder: Path) -> None:
        self._key, self._endpoint = key, endpoint
        self._snapshots = Snapshots(folder)
        self.rows: dict[str, Row] = {}
        self.reading = Reading(calendar=LAB)
        self.plan: Plan | None = None

    def round(self, http: httpx.Client, address: str) -> None:
        """Every row once."""
        body = self._take("plain GET of the same page", lambda: http.get(address)).content
        self._take("its JSON decoded", lambda: json.loads(body))
        calendar = GoogleCalendar(
            LAB, key_file=self._key, endpoint=self._endpoint, deadline_seconds=120, style="colour+text"
        )
        self.reading = self._take("first reading", lambda: calendar.read(*WINDOW))
        again = self._take("unchanged reading", lambda: calendar.read(*WINDOW))
        assert again == self.reading
        calendar.close()
        self.plan = self._take("judged (make_plan)", lambda: judged(self.reading))
        self._take("snapshot saved", lambda: self._snapshots.save(LAB, self.reading, AT))

    def _take(self, name: str, act: Callable[[], T]) -> T:
        began = perf_counter()
        result = act()
        self.rows.setdefault(name, Row(name)).seconds.append(perf_counter() - began)
        return result


def measure(rounds: int) -> Measured:
    """So many rounds, and one before them that does not count."""
    with served() as (key, endpoint), tempfile.TemporaryDirectory() as folder:
        measured = Measured(key, endpoint, Path(folder))
        credentials = Credentials.from_service_account_file(str(key), scopes=[EVENTS_SCOPE])
        credentials.refresh(google_auth_httplib2.Request(httplib2.Http()))
        with httpx.Client(headers={"Authorization": f"Bearer {credentials.token}"}, timeout=120) as http:
            for number in range(rounds + 1):
                measured.round(http, page_address(endpoint))
                if number == 0:
                    measured.rows.clear()
    return measured


def page_address(endpoint: str) -> str:
    """The page that the product asks for, without what is left out of its answers."""
    query = {
        "timeMin": (WINDOW[0] - timedelta(hours=1)).isoformat(),
        "timeMax": WINDOW[1].isoformat(),
        "singleEvents": "true",
        "maxResults": "2500",
    }
    return f"{endpoint}calendars/{quote(LAB)}/events?{urlencode(query)}"


def table(measured: Measured) -> str:
    """The rows as text."""
    first = measured.rows["first reading"].median
    reading, plan = measured.reading, measured.plan
    assert plan is not None
    rounds = len(next(iter(measured.rows.values())).seconds)
    lines = [
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {rounds} rounds",
        f"{len(reading.reservations)} reservations and {len(reading.misunderstood)} events not understood; "
        f"{len(plan.verdicts)} verdicts, {len(plan.placements)} placements on {NODES} nodes",
        "",
        f"{'':<28}{'min':>10}{'median':>10}{'per event':>12}{'of first reading':>18}",
    ]
    for row in measured.rows.values():
        each = row.median / EVENTS * 1e6
        lines.append(
            f"{row.name:<28}{min(row.seconds) * 1e3:>7.0f} ms{row.median * 1e3:>7.0f} ms{each:>9.0f} µs"
            f"{row.median / first:>17.2f}x"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    sys.stdout.write(table(measure(parser.parse_args().rounds)))


if __name__ == "__main__":
    main()
