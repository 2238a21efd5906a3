"""What the planner was asked to reach, and whether these rows do."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from benchmarks.placement.instance import Setting
from benchmarks.placement.measure import IN_TURN, OURS, Row

FREE_SHARE, FREE_SECONDS = 0.96, 2.0
PROMISED_SHARES = {
    10: {0.7: 0.84, 0.9: 0.81, 1.0: 0.79, 1.2: 0.78},
    100: {0.7: 0.93, 0.9: 0.88, 1.0: 0.86, 1.2: 0.83},
}
VERDICT_MS, SLOT_MS = 10.0, 30.0
FULL_PLAN_SECONDS, CHANGED_PLAN_SECONDS = 1.0, 0.05
LARGE = 1000

Line = tuple[str, str, str, str]


def targets(rows: Iterable[Row], plans: Mapping[int, Mapping[str, float]]) -> list[Line]:
    """Of those that could be looked at: what, asked, measured, met or missed."""
    rows = [row for row in rows if row.family == "synthetic"]
    ours = [row for row in rows if row.policy == OURS]
    return [*_free(rows), *_promised(ours), *_times(ours), *_plans(plans)]


def _line(what: str, asked: str, measured: str, met: bool) -> Line:
    return (what, asked, measured, "met" if met else "**missed**")


def _free(rows: Iterable[Row]) -> Iterator[Line]:
    large = [row for row in rows if (row.setting, row.nodes, row.load) == (Setting.FREE, LARGE, 1.0)]
    ours = [row for row in large if row.policy == OURS]
    if ours:
        share = statistics.mean(row.share for row in ours)
        ndif = statistics.mean(row.share for row in large if row.policy == "NDIF's way")
        seconds = statistics.median(row.processor_seconds for row in ours)
        in_turn = statistics.mean(row.share for row in large if row.policy == IN_TURN)
        measured = f"{share:.1%} (in turn {in_turn:.1%}, NDIF's way {ndif:.1%})"
        what = f"free, {LARGE:,} nodes, load 100 %, packed by weight"
        yield _line(f"{what}: share", f"≥ {FREE_SHARE:.0%}", measured, share >= FREE_SHARE)
        bookings = statistics.mean(row.bookings for row in ours)
        limit = FREE_SECONDS * bookings / 10_000
        asked = f"≤ {FREE_SECONDS:g} s per 10,000"
        yield _line(f"{what}: time", asked, f"{seconds:.1f} s for {bookings:,.0f}", seconds <= limit)


def _promised(ours: Iterable[Row]) -> Iterator[Line]:
    promised = [row for row in ours if row.setting is Setting.PROMISED]
    for nodes, asked in PROMISED_SHARES.items():
        for load, least in asked.items():
            shares = [row.share for row in promised if (row.nodes, row.load) == (nodes, load)]
            if shares:
                share = statistics.mean(shares)
                yield _line(
                    f"promised, {nodes} nodes, load {load:.0%}",
                    f"> {least:.0%}",
                    f"{share:.1%}",
                    share > least,
                )
    if promised:
        broken = sum(row.withdrawn for row in promised)
        moves = sum(row.moves for row in promised)
        yield _line("promises broken; running models moved", "0; 0", f"{broken}; {moves}", not broken + moves)


def _times(ours: Iterable[Row]) -> Iterator[Line]:
    ours = list(ours)
    verdicts: defaultdict[tuple[int, float], list[float]] = defaultdict(list)
    for row in ours:
        if row.verdict_ms_p99 is not None:
            verdicts[row.nodes, row.load].append(row.verdict_ms_p99)
    for nodes in sorted({nodes for nodes, _ in verdicts}):
        worst = max(statistics.mean(values) for (size, _), values in verdicts.items() if size == nodes)
        what = f"verdict, p99, {nodes:,} nodes, worst load"
        yield _line(what, f"< {VERDICT_MS:g} ms", f"{worst:.1f} ms", worst < VERDICT_MS)
    slots = [row.figures["next_slot_ms_p99"] for row in ours if row.nodes == LARGE and row.figures]
    if slots:
        what = f"next feasible slot, p99, {LARGE:,} nodes, worst load"
        yield _line(what, f"< {SLOT_MS:g} ms", f"{max(slots):.1f} ms", max(slots) < SLOT_MS)


def _plans(plans: Mapping[int, Mapping[str, float]]) -> Iterator[Line]:
    if LARGE not in plans:
        return
    found = plans[LARGE]
    full, changed = found["full_plan_seconds"], found["changed_plan_seconds"]
    what = f"full plan, {LARGE:,} nodes, {found['bookings']:,.0f} bookings"
    limit = FULL_PLAN_SECONDS * found["bookings"] / 10_000
    yield _line(what, f"< {FULL_PLAN_SECONDS:g} s per 10,000", f"{full:.2f} s", full < limit)
    asked = f"< {CHANGED_PLAN_SECONDS * 1e3:.0f} ms"
    yield _line(
        "the same, one event changed", asked, f"{changed * 1e3:.0f} ms", changed < CHANGED_PLAN_SECONDS
    )
