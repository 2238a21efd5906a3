"""The plot beside the page."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from benchmarks.placement.instance import Setting
from benchmarks.placement.measure import OURS, POLICIES, Row

COLOURS = ("#d55e00", "#e69f00", "#cc79a7", "#56b4e9", "#009e73", "#000000")
"""Of Okabe and Ito, told apart by everybody; ours is the last."""


def plot(rows: Iterable[Row], path: Path) -> None:
    """Share by load: a row of panels for each setting, a column for each size of the synthetic weeks."""
    matplotlib.rcParams["svg.hashsalt"] = "placement"
    rows = list(rows)
    sizes = sorted({row.nodes for row in rows})
    figure = Figure(figsize=(3.6 * len(sizes) + 2, 6.4))
    panels = figure.subplots(len(Setting), len(sizes), sharey=True, squeeze=False)
    for setting, line in zip(Setting, panels, strict=True):
        for nodes, panel in zip(sizes, line, strict=True):
            for policy, colour in zip(POLICIES[setting], _colours(setting), strict=True):
                loads, shares = _curve(rows, setting, nodes, policy)
                bold = {"linewidth": 2.4, "zorder": 3} if policy == OURS else {"linewidth": 1.3}
                panel.plot(loads, shares, marker="o", markersize=3, color=colour, label=policy, **bold)
            panel.set_title(f"{setting}, {nodes:,} nodes", fontsize=10)
            panel.set_ylim(40, 101)
            panel.set_xticks([100 * load for load in sorted({row.load for row in rows})])
            panel.grid(alpha=0.3)
            panel.spines[["top", "right"]].set_visible(False)
        line[0].set_ylabel("% of the bound")
        line[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=9)
    for panel in panels[-1]:
        panel.set_xlabel("GPU-hours asked for, % of those there are")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def _colours(setting: Setting) -> tuple[str, ...]:
    count = len(POLICIES[setting])
    return (*COLOURS[: count - 1], COLOURS[-1])


def _curve(rows: Iterable[Row], setting: Setting, nodes: int, policy: str) -> tuple[list[float], list[float]]:
    found: dict[float, list[float]] = {}
    for row in rows:
        if (row.setting, row.nodes, row.policy) == (setting, nodes, policy):
            found.setdefault(row.load, []).append(row.share)
    loads = sorted(found)
    return [100 * load for load in loads], [100 * statistics.mean(found[load]) for load in loads]
