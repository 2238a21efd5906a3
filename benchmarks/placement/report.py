"""Rows as a page of tables and a plot."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from benchmarks.placement.instance import Setting
from benchmarks.placement.measure import POLICIES, Row
from benchmarks.placement.targets import targets
from benchmarks.placement.words import ABOUT_PLANS, ABOUT_TIME, EXPLAINED, INTRODUCTION, TITLES

PAGE, PLOT = "benchmarks-placement.md", "benchmarks-placement.svg"


class Results(BaseModel):
    """Everything that was measured; ``plans`` by number of nodes: processor seconds of whole plans."""

    model_config = ConfigDict(frozen=True)

    command: str
    machine: str
    rows: tuple[Row, ...]
    plans: dict[int, dict[str, float]] = {}


def machine() -> str:
    """What it was measured on."""
    return f"Python {platform.python_version()}, {os.cpu_count()} cores"


def page(results: Results) -> str:
    """The whole page, as Markdown."""
    parts = [
        INTRODUCTION.format(command=results.command, machine=results.machine),
        "## What was asked for\n\n"
        + _table(("", "asked", "measured", ""), targets(results.rows, results.plans)),
    ]
    if drawn(results.rows):
        parts.append(f"![Share of the bound by load, setting and number of nodes]({PLOT})")
    for setting in Setting:
        rows = [row for row in results.rows if row.setting is setting]
        if rows:
            parts += [f"## {TITLES[setting]}", EXPLAINED[setting], _shares(rows, setting)]
    parts += ["## Time, memory, lateness", ABOUT_TIME, _costs(results.rows)]
    if results.plans:
        parts += ["## Whole plans", ABOUT_PLANS, _plans(results)]
    return "\n\n".join(parts) + "\n"


def drawn(rows: Iterable[Row]) -> list[Row]:
    """The rows that the plot shows."""
    return [row for row in rows if row.family == "synthetic"]


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = tuple(head)
    lines = [head, tuple("---" if not number else "--:" for number in range(len(head))), *map(tuple, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cases(rows: Iterable[Row]) -> list[tuple[str, int, float]]:
    return list(dict.fromkeys((row.family, row.nodes, row.load) for row in rows))


def _shares(rows: list[Row], setting: Setting) -> str:
    policies = list(POLICIES[setting])
    lines = []
    for family, nodes, load in _cases(rows):
        found = [row for row in rows if (row.family, row.nodes, row.load) == (family, nodes, load)]
        shares = [[row.share for row in found if row.policy == policy] for policy in policies]
        best = max(statistics.mean(values) for values in shares)
        seeds = len({row.seed for row in found})
        bookings = round(statistics.mean(row.bookings for row in found))
        bound = statistics.mean(row.bound_of_asked for row in found)
        lines.append(
            (
                f"{family}, {nodes:,} nodes" + (f", mean of {seeds}" if seeds > 1 else ""),
                f"{load:.0%}",
                f"{bookings:,}",
                f"{bound:.1%}",
                *(_bold(statistics.mean(values), best) for values in shares),
            )
        )
    return _table(("", "load", "bookings", "bound of asked", *policies), lines)


def _bold(value: float, best: float) -> str:
    return f"**{value:.1%}**" if value == best else f"{value:.1%}"


def _costs(rows: Iterable[Row]) -> str:
    lines = []
    rows = [row for row in rows if row.load == _busy(rows)]
    for family, nodes, _ in _cases(rows):
        for setting in Setting:
            for policy in POLICIES[setting]:
                found = [
                    row
                    for row in rows
                    if (row.family, row.nodes, row.setting, row.policy) == (family, nodes, setting, policy)
                ]
                if found:
                    lines.append((f"{family}, {nodes:,} nodes, {setting}: {policy}", *_cost(found)))
    head = (
        "",
        "clock",
        "processor",
        "memory",
        "verdict p50",
        "p99",
        "next slot p50",
        "p99",
        "late",
        "by",
        "moves",
        "broken",
    )
    return _table(head, lines)


def _busy(rows: Iterable[Row]) -> float:
    """The load that times are told for: 100 % if it is there."""
    loads = {row.load for row in rows}
    return 1.0 if 1.0 in loads else max(loads)


def _cost(found: list[Row]) -> tuple[str, ...]:
    def median(values: Iterable[float | None]) -> str:
        told = [value for value in values if value is not None]
        return f"{statistics.median(told):.2f} ms" if told else ""

    return (
        f"{statistics.median(row.seconds for row in found):.2f} s",
        f"{statistics.median(row.processor_seconds for row in found):.2f} s",
        f"{max(row.memory_mib for row in found):.0f} MiB",
        median(row.verdict_ms_p50 for row in found),
        median(row.verdict_ms_p99 for row in found),
        median(row.figures.get("next_slot_ms_p50") for row in found),
        median(row.figures.get("next_slot_ms_p99") for row in found),
        f"{statistics.mean(row.late for row in found):.0%}",
        f"{statistics.mean(row.late_seconds for row in found) / 60:.1f} min",
        str(sum(row.moves for row in found)),
        str(sum(row.withdrawn for row in found)),
    )


def _plans(results: Results) -> str:
    lines = [
        (
            f"{nodes:,} nodes",
            f"{found['bookings']:,.0f}",
            f"{found['full_plan_seconds']:.2f} s",
            f"{found['changed_plan_seconds'] * 1e3:.0f} ms",
            f"{found['changed_plan_seconds_most'] * 1e3:.0f} ms",
            f"{found.get('idle_plan_seconds', math.nan) * 1e3:.0f} ms",
        )
        for nodes, found in sorted(results.plans.items())
    ]
    return _table(
        ("", "bookings", "full plan", "one event changed", "slowest of these", "nothing changed"), lines
    )
