"""``python -m tests.simulation --seeds 100`` or ``--minutes 10``: seeded weeks of faults; see ``weeks``.

A seed that fails is named and told; ``--seed N`` runs it again, the same way.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from time import perf_counter

from loguru import logger

from tests.simulation.rules import Broken
from tests.simulation.weeks import Figures, run_week

say = sys.stdout.write


def attempt(seed: int) -> Figures | str:
    """A week's figures, or what went wrong in it."""
    logger.remove()
    try:
        return run_week(seed)
    except Broken as failure:
        return str(failure)


def main() -> int:
    """Run weeks and print what they came to; the exit code is 1 where one failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, help="so many weeks")
    parser.add_argument("--minutes", type=float, help="as many weeks as fit into so many minutes")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seed", type=int, help="this week only")
    parser.add_argument("--processes", type=int, default=1, help="weeks that run side by side")
    options = parser.parse_args()
    began = perf_counter()
    weeks, failures, faults = list[Figures](), 0, Counter[str]()
    for seed, found in outcomes(options, began):
        if isinstance(found, str):
            failures += 1
            say(f"FAILED {found}\n  again: python -m tests.simulation --seed {seed}\n")
            continue
        weeks.append(found)
        faults += found.faults
    minutes = (perf_counter() - began) / 60
    say(
        f"{len(weeks) + failures} seeds in {minutes:.1f} min: {len(weeks) / minutes:.1f} simulated weeks per "
        f"minute, {sum(one.passes for one in weeks)} passes, {sum(one.bookings for one in weeks)} bookings, "
        f"{sum(one.on_time for one in weeks)} of them checked at their start.\n"
        f"{sum(faults.values())} faults injected, the daemon killed {sum(one.kills for one in weeks)} times; "
        f"settled again after at most {max((one.ticks_to_settle for one in weeks), default=0)} passes.\n"
        f"Faults: {', '.join(f'{kind} {number}' for kind, number in sorted(faults.items()))}.\n"
        f"{failures} seeds failed.\n"
    )
    return 1 if failures else 0


def outcomes(options: argparse.Namespace, began: float) -> Iterator[tuple[int, Figures | str]]:
    """Seeds and what came of them."""
    if options.seed is not None:
        yield options.seed, attempt(options.seed)
        return
    seeds = range(options.first, options.first + (options.seeds or 10**9))
    if not options.seeds and not options.minutes:
        seeds = range(options.first, options.first + 5)
    if options.processes == 1:
        for seed in seeds:
            if options.minutes and perf_counter() - began > 60 * options.minutes:
                return
            yield seed, attempt(seed)
        return
    with ProcessPoolExecutor(options.processes) as pool:
        for block in count(0):
            chosen = seeds[block * 4 * options.processes : (block + 1) * 4 * options.processes]
            late = options.minutes and perf_counter() - began > 60 * options.minutes
            if not chosen or late:
                return
            yield from zip(chosen, pool.map(attempt, chosen), strict=True)


if __name__ == "__main__":
    raise SystemExit(main())
