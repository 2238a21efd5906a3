"""``python -m tests.faults.soak --minutes 30``: a real Ray, edits and kills all the time, one daemon watched.

Ends with 1 where something was lost (a booked model that does not answer once the kills have stopped) or
where the daemon's memory, threads or open files grew. Prints what was done and how those figures moved.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from tests.faults.bench import Bench, kill
from tests.ray_cluster import WORKERS, running_ray_cluster

say = sys.stdout.write
PAUSE_SECONDS = (5.0, 25.0)
MEMORY_GROWTH = 1.15
"""The last quarter's median may be so many times the second quarter's; the first is for warming up."""
MORE_THREADS, MORE_FILES = 3, 8


@dataclass(frozen=True)
class Sample:
    """How the daemon's process is."""

    memory_mib: float
    threads: int
    files: int


def sample(process: psutil.Process) -> Sample:
    """Its figures now."""
    with process.oneshot():
        return Sample(process.memory_info().rss / 1024**2, process.num_threads(), process.num_fds())


def disturb(bench: Bench, chance: random.Random, lost: list[str]) -> str:
    """One edit or one kill; says what it was, or that there was nothing to do."""
    what = chance.choice(("book", "cancel", "replica", "controller", "proxy", "node", "node back", "garbage"))
    if what == "book":
        bench.book()
    elif what == "cancel":
        bench.cancel()
    elif what == "garbage":
        bench.calendar.write_text("<html>Sign in</html>")
    elif what == "replica":
        running = bench.replicas()[:1]
        for one in running:
            kill(one["pid"])
        return what if running else "nothing to do"
    elif what == "controller":
        kill(bench.actor("SERVE_CONTROLLER_ACTOR"))
    elif what == "proxy":
        kill(bench.actor("SERVE_PROXY_ACTOR"))
    elif what == "node" and not lost:
        lost.append(chance.choice(sorted(WORKERS)))
        bench.cluster.kill_node(lost[0])
    elif what == "node back" and lost:
        bench.cluster.start_node(lost[0], num_gpus=WORKERS[lost.pop()])
    else:
        return "nothing to do"
    return what


def soak(bench: Bench, minutes: float, seed: int) -> int:
    """All of it; the exit code."""
    chance, done, samples, lost = random.Random(seed), Counter[str](), list[Sample](), list[str]()
    ends = time.monotonic() + 60 * minutes
    bench.book()
    with bench.daemon("a") as daemon:
        bench.until_serves(120)
        process = psutil.Process(daemon.pid)
        while time.monotonic() < ends:
            try:
                done[disturb(bench, chance, lost)] += 1
            except (AssertionError, httpx.HTTPError, KeyError, psutil.NoSuchProcess) as missed:
                done[f"missed: {type(missed).__name__}"] += 1  # what was to be killed is away already
            time.sleep(chance.uniform(*PAUSE_SECONDS))
            samples.append(sample(process))
        if lost:
            bench.cluster.start_node(lost[0], num_gpus=WORKERS[lost[0]])
        bench.book()
        bench.until_serves(180)
        assert daemon.poll() is None
        bench.cancel()
        deadline = time.monotonic() + 120
        while bench.ours() and time.monotonic() < deadline:
            time.sleep(1.0)
        left = list(bench.ours())
    say(f"done: {dict(done)}\n")
    return report(samples, left, bench.log("a").count("A pass of the loop failed"))


def report(samples: list[Sample], left: list[str], failed: int) -> int:
    """Print the figures and judge them."""
    quarter = max(1, len(samples) // 4)
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    grown = []
    for name, allowed in (("memory_mib", None), ("threads", MORE_THREADS), ("files", MORE_FILES)):
        before = statistics.median(getattr(one, name) for one in early)
        after = statistics.median(getattr(one, name) for one in late)
        most = before * MEMORY_GROWTH if allowed is None else before + allowed
        first, last = getattr(samples[0], name), getattr(samples[-1], name)
        say(f"{name}: {first:.0f} at the start, {before:.0f} in the second quarter, ")
        say(f"{after:.0f} in the last, {last:.0f} at the end\n")
        if after > most:
            grown.append(name)
    say(f"left running though nothing is booked: {left or 'nothing'}; passes that failed: {failed}\n")
    say(f"grown: {', '.join(grown) or 'nothing'}\n")
    return 1 if grown or left or failed else 0


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with running_ray_cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        return soak(Bench(cluster, Path(folder)), options.minutes, options.seed)


if __name__ == "__main__":
    raise SystemExit(main())
