"""What each event is told, from a plan and what runs. Pure: the calendar decides how it is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from calendars.reservation import Reading
from calendars.write_back import Report
from scheduler.progress import Said, Step
from scheduler.render.sentences import answer, sentence, stopped
from scheduler.render.text import first_line
from scheduler.types import Deployment, DeploymentStatus, Plan, Verdict, VerdictState

NODES_SHOWN = 4
ORDER = {Step.DOWNLOADING: 0, Step.LOADING: 1, Step.WARMING: 2}


def reports(
    plan: Plan,
    readings: Iterable[Reading],
    deployments: Iterable[Deployment],
    took_seconds: Mapping[str, float],
    url: str,
    warn_before: timedelta = timedelta(),
    progress: Mapping[str, Said] | None = None,
) -> dict[str, tuple[Report, ...]]:
    """What to say, by calendar: one report for each event that was read.

    Args:
        deployments: what runs now.
        took_seconds: how long an application took to load, where that was seen.
        url: where clients reach the gateway.
        warn_before: how long before its end a booking that serves is told that it ends.
        progress: how far applications that load say they are.
    """
    running = {one.identity: one for one in deployments}
    said: dict[str, list[Report]] = {}
    for verdict in plan.verdicts:
        report = _report(verdict, running, took_seconds, url, progress or {})
        if report.state == "serving" and verdict.end and verdict.end - plan.at <= warn_before:
            report = report.model_copy(update={"lines": (*report.lines, _ends(verdict.end))})
        said.setdefault(verdict.calendar, []).append(report)
    for reading in readings:
        said.setdefault(reading.calendar, []).extend(_ended(reading, plan.at))
    return {calendar: tuple(found) for calendar, found in said.items()}


def _ended(reading: Reading, at: datetime) -> Iterable[Report]:
    return (
        Report(key=one.key, state="ended", lines=("It is over.",))
        for one in reading.reservations
        if one.end <= at
    )


def _report(
    verdict: Verdict,
    running: Mapping[tuple[str, str], Deployment],
    took_seconds: Mapping[str, float],
    url: str,
    progress: Mapping[str, Said],
) -> Report:
    if verdict.state in (VerdictState.REFUSED, VerdictState.MISUNDERSTOOD):
        # What is free on each node changes whenever anything starts or ends there.
        asides = tuple(answer(node) for node in verdict.considered[:NODES_SHOWN])
        if verdict.earliest:
            asides = (f"It would fit from {verdict.earliest:%Y-%m-%d %H:%M} UTC on.", *asides)
        if verdict.refusal and verdict.refusal.longest_until:
            until = f"{verdict.refusal.longest_until:%Y-%m-%d %H:%M}"
            asides = (*asides, f"From its own start it would fit until {until} UTC.")
        return Report(key=verdict.event, state="refused", lines=_why(verdict), asides=asides)
    if verdict.model is None or not verdict.nodes:
        return Report(key=verdict.event, state="scheduled", lines=(_when_loaded(verdict), *_shared(verdict)))
    found = [running.get((verdict.model.key, node)) for node in verdict.nodes]
    failed = next((one for one in found if one and _has_failed(one)), None)
    if failed is not None:
        problem = f"It could not be loaded: {first_line(failed.message)}"
        return Report(key=verdict.event, state="refused", lines=(problem,))
    if not all(one and (one.status is DeploymentStatus.SERVING or one.ready_replicas) for one in found):
        said = [progress[one.application] for one in found if one and one.application in progress]
        return Report(
            key=verdict.event, state="loading", lines=(_loading(verdict.nodes, said), *_shared(verdict))
        )
    lines = (f"Ask for {verdict.model.repo_id} at {url}.", *_shared(verdict))
    took = [took_seconds[one.application] for one in found if one and one.application in took_seconds]
    # A restart forgets it, and must not write to every event because of that.
    asides = (f"Loading took {max(took):.0f} s.",) if took else ()
    return Report(key=verdict.event, state="serving", lines=lines, asides=asides)


def _shared(verdict: Verdict) -> tuple[str, ...]:
    """That it runs as another booking of its model asks."""
    return (f"It is {verdict.reason.detail}.",) if verdict.reason.detail else ()


def _loading(nodes: tuple[str, ...], said: list[Said]) -> str:
    """In quarters: each change is written into the event."""
    where = ", ".join(nodes)
    slowest = min(said, key=lambda one: (ORDER[one.step], one.fraction or 0.0), default=Said(Step.LOADING))
    quarters = int((slowest.fraction or 0.0) * 4) / 4
    done = f" ({quarters:.0%} done)" if 0 < quarters < 1 else ""
    if slowest.step is Step.DOWNLOADING:
        return f"It is being downloaded to {where}{done}."
    if slowest.step is Step.WARMING or quarters == 1:
        return f"It is being loaded on {where} (almost done)."
    return f"It is being loaded on {where}{done}."


def _ends(end: datetime) -> str:
    return f"It ends at {end:%H:%M} UTC; what is asked until then is answered."


def _when_loaded(verdict: Verdict) -> str:
    minutes = round(verdict.late_seconds / 60)
    if not minutes:
        return "It will be loaded shortly before its start."
    who = ", ".join(f"“{title}”" for title in verdict.late_because)
    why = f"Its room is free only when {who} ends" if who else "It cannot be loaded sooner"
    return f"{why}, so it will serve about {minutes} min after its start."


def _has_failed(one: Deployment) -> bool:
    return one.status is DeploymentStatus.FAILED and not one.ready_replicas


def _why(verdict: Verdict) -> tuple[str, ...]:
    said = sentence(verdict.reason)
    lines = [stopped(said[0].upper() + said[1:])]
    if verdict.reason.remedy:
        lead = "For example: " if verdict.state is VerdictState.MISUNDERSTOOD else ""
        lines.append(lead + verdict.reason.remedy)
    return tuple(lines)
