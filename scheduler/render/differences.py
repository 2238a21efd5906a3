"""How the decisions of two plans differ, as a short diff."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console

from scheduler.decisions import Decision, DecisionKind, Difference
from scheduler.render.plain import escape
from scheduler.render.sentences import gpus, size

SHOWN = 40


def show_differences(console: Console, differences: Iterable[Difference]) -> None:
    """Print a line for each, with ``-`` for what was planned then and ``+`` for what would be done now."""
    lines = tuple(differences)
    for one in lines[:SHOWN]:
        symbol, style = ("+", "green") if one.now else ("-", "red")
        console.print(f"[{style}]{symbol} {escape(words(one.decision))}[/]")
    if len(lines) > SHOWN:
        console.print(f"  and {len(lines) - SHOWN} more; --json has them")


def differences_json(differences: Iterable[Difference]) -> dict[str, Any]:
    """The same as data."""
    found = tuple(differences)
    return {
        "applied": False,
        "then": [words(one.decision) for one in found if not one.now],
        "now": [words(one.decision) for one in found if one.now],
    }


def words(decision: Decision) -> str:
    """One decision in words."""
    subject, node = decision.subject, decision.node
    if decision.kind is DecisionKind.REFUSED:
        return f"“{subject}” cannot be met"
    if decision.kind is DecisionKind.GOES:
        return f"{subject} is taken down on {node}"
    if decision.kind is DecisionKind.REBUILT:
        return f"{subject} is rebuilt on {node}"
    device = gpus(decision.num_gpus) if decision.num_gpus else "CPU"
    replicas = f", {decision.replicas} replicas" if decision.replicas > 1 else ""
    return f"{subject} runs on {node}, {size(decision.footprint_bytes)} on {device}{replicas}"
