"""The one command: ``python -m benchmarks.placement``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.placement.bound import upper_bound
from benchmarks.placement.instance import Setting
from benchmarks.placement.measure import FAMILIES, POLICIES, Row, measure, plan_times_apart
from benchmarks.placement.plot import plot
from benchmarks.placement.report import PAGE, PLOT, Results, drawn, machine, page

DOCS = Path(__file__).resolve().parents[2] / "docs"
SIZES, LOADS = (10, 100, 1000), (0.7, 0.9, 1.0, 1.2)
LARGEST = {"openb": 100, "philly": 100}
"""For more, each job of the trace would have to be drawn many times over."""

Case = tuple[str, int, float, int]
T = TypeVar("T")


def arguments(words: list[str] | None) -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.placement", description=__doc__)
    parser.add_argument("--sizes", type=_numbers(int), default=SIZES, help="nodes, such as 10,100")
    parser.add_argument("--loads", type=_numbers(_load), default=LOADS, help="percent, such as 70,100")
    parser.add_argument("--families", type=_numbers(str), default=tuple(FAMILIES), help=", ".join(FAMILIES))
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--repeats", type=int, help="seeds of each case (default: more where it is small)")
    parser.add_argument("--quick", action="store_true", help="10 nodes, one load, one seed; writes no docs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every row there, too")
    parser.add_argument(
        "--read", type=Path, nargs="+", metavar="FILE", help="measure nothing; take these rows"
    )
    parser.add_argument("--docs", type=Path, metavar="DIR", help="where page and plot go (default: docs/)")
    asked = parser.parse_args(words)
    unknown = [name for name in asked.families if name not in FAMILIES]
    if unknown:
        parser.error(f"--families: {', '.join(unknown)}; there are {', '.join(FAMILIES)}")
    if asked.quick:
        asked.sizes, asked.loads, asked.repeats = asked.sizes[:1], (1.0,), 1
    elif asked.docs is None:
        asked.docs = DOCS
    return asked


def _numbers(one: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    return lambda text: tuple(one(part) for part in text.split(","))


def _load(percent: str) -> float:
    return float(percent) / 100


def cases(asked: argparse.Namespace) -> Iterator[Case]:
    """Family, nodes, load and seed of each instance."""
    for family in asked.families:
        for nodes in asked.sizes:
            if nodes > LARGEST.get(family, nodes):
                continue
            for load in asked.loads:
                for number in range(asked.repeats or repeats(family, nodes)):
                    yield family, nodes, load, asked.seed + number


def repeats(family: str, nodes: int) -> int:
    """Small clusters differ much from week to week."""
    few = 2 if nodes <= 100 else 1
    return 10 if family == "synthetic" and nodes <= 10 else few


def rows(wanted: Iterable[Case], progress: Progress) -> Iterator[Row]:
    """Every policy on every instance, the bound first."""
    wanted = list(wanted)
    bar = progress.add_task("", total=sum(len(POLICIES[setting]) for setting in Setting) * len(wanted))
    for family, nodes, load, seed in wanted:
        for setting in Setting:
            case = f"{family}, {nodes} nodes, load {load:.0%}, seed {seed}, {setting}"
            progress.update(bar, description=f"{case}: bound")
            if not progress.console.is_terminal:
                progress.console.print(case)
            instance = FAMILIES[family](nodes, load, seed, equal=setting is Setting.PROMISED)
            bound = upper_bound(instance)
            for policy in POLICIES[setting]:
                progress.update(bar, description=f"{case}: {policy}")
                yield measure(instance, load, seed, setting, policy, bound)
                progress.advance(bar)


def run(asked: argparse.Namespace) -> Results:
    """Measure all that is asked for."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        found, plans = list[Row](), dict[int, dict[str, float]]()
        for row in rows(cases(asked), progress):
            found.append(row)
            write(asked.json, results(found, plans))
        if "synthetic" in asked.families:
            bar = progress.add_task("", total=len(asked.sizes))
            for nodes in asked.sizes:
                progress.update(bar, description=f"whole plans, {nodes} nodes")
                plans[nodes] = plan_times_apart(FAMILIES["synthetic"](nodes, 1.0, asked.seed, equal=True))
                progress.advance(bar)
    return results(found, plans)


def results(found: Iterable[Row], plans: Mapping[int, dict[str, float]]) -> Results:
    """All of it, with how it came about."""
    return Results(
        command="python -m benchmarks.placement", machine=machine(), rows=tuple(found), plans=dict(plans)
    )


def write(path: Path | None, found: Results) -> None:
    """Keep what has been measured so far, if a file was named for it."""
    if path:
        path.write_text(found.model_dump_json(indent=1) + "\n")


def joined(files: Iterable[Path]) -> Results:
    """What was measured in several runs, as if it had been one."""
    first, *rest = (Results.model_validate_json(file.read_text()) for file in files)
    found, plans = list(first.rows), dict(first.plans)
    for one in rest:
        found += one.rows
        plans |= one.plans
    return first.model_copy(update={"rows": tuple(found), "plans": plans})


def main(words: list[str] | None = None) -> None:
    """Measure, print the page, and write what was asked for."""
    asked = arguments(words)
    found = joined(asked.read) if asked.read else run(asked)
    write(asked.json, found)
    text = page(found)
    if asked.docs:
        asked.docs.mkdir(parents=True, exist_ok=True)
        (asked.docs / PAGE).write_text(text)
        if drawn(found.rows):
            plot(drawn(found.rows), asked.docs / PLOT)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
