"""Answers to “would this booking fit?”, for people and for scripts."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Any

from rich.console import Console

from scheduler.render.plain import escape
from scheduler.render.refusals import around, lateness, node_lines
from scheduler.render.sentences import listed, moment, sentence, stopped
from scheduler.types import Plan, Verdict, VerdictState


def show_answer(
    console: Console,
    verdict: Verdict,
    fits: bool | None,
    nodes: tuple[str, ...],
    affected: tuple[Verdict, ...],
    plan: Plan,
    command: str | None,
    zone: tzinfo | None = None,
) -> None:
    """Print the answer first, then where or why not, then what it would do to others."""
    at = plan.at
    console.print(_headline(verdict, fits, nodes, at, zone))
    if fits and verdict.late_seconds > 0:
        console.print(f"    It {escape(lateness(verdict, plan.upcoming, at, zone))}.")
    elif fits and verdict.ready_by:
        console.print(f"    It would be ready at {moment(verdict.ready_by, at, zone)}.")
    if fits is False:
        if verdict.reason.remedy:
            console.print(f"    {escape(verdict.reason.remedy)}")
        for line in around(verdict, at, zone):
            console.print(f"    {escape(line)}")
        for line in node_lines(verdict, at, zone):
            console.print(f"    [dim]{escape(line)}[/]")
    for other in affected:
        console.print(
            f"[yellow]! “{escape(other.title)}”[/] {_window(other, at, zone)} {escape(_becomes(other))}"
        )
    if fits and not affected:
        console.print("    No other booking is affected.")
    books = f" This books it{'' if fits else ' when it fits'}: {escape(command)}" if command else ""
    console.print(f"[dim]Nothing was booked.{books}[/]")


def answer_json(
    verdict: Verdict,
    fits: bool | None,
    nodes: tuple[str, ...],
    affected: tuple[Verdict, ...],
    command: str | None,
) -> dict[str, Any]:
    """The same as data; ``fits`` is null while that is not known."""
    return {
        "fits": fits,
        "nodes": list(nodes),
        "words": sentence(verdict.reason),
        "verdict": verdict.model_dump(mode="json"),
        "affected": [one.model_dump(mode="json") for one in affected],
        "book": command,
    }


def _headline(
    verdict: Verdict, fits: bool | None, nodes: tuple[str, ...], at: datetime, zone: tzinfo | None
) -> str:
    by = f" by {escape(verdict.owner)}" if verdict.owner else ""
    what = f"“{escape(verdict.title)}”[/]{by} {_window(verdict, at, zone)}"
    if fits is None:
        return f"[yellow]Not known yet: {what}: {escape(stopped(sentence(verdict.reason)))}"
    if fits:
        where = f" on {listed(nodes)}" if nodes else ""
        return f"[green]It fits: {what}{escape(where)}."
    return f"[yellow]It does not fit: {what}: {escape(stopped(sentence(verdict.reason)))}"


def _window(verdict: Verdict, at: datetime, zone: tzinfo | None) -> str:
    if verdict.start is None or verdict.end is None:
        return ""
    return f"{moment(verdict.start, at, zone)} to {moment(verdict.end, at, zone)}"


def _becomes(other: Verdict) -> str:
    if other.state in (VerdictState.REFUSED, VerdictState.MISUNDERSTOOD):
        return f"could be met no longer: {stopped(sentence(other.reason))}"
    where = f"would be on {', '.join(other.nodes)}" if other.nodes else "would be met"
    late = f", {other.late_seconds / 60:.0f} min late" if other.late_seconds >= 60 else ""
    return f"{where}{late}."
