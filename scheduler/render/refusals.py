"""What is said of a booking that cannot be met, or not in time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, tzinfo

from scheduler.render.sentences import answer, duration, listed, moment
from scheduler.types import (
    Candidacy,
    Help,
    HelpCode,
    Plan,
    Proof,
    ReasonCode,
    ReasonKind,
    Refusal,
    Step,
    Verdict,
    VerdictState,
)

NODES_SHOWN = 4
TITLES_SHOWN = 6

CANDIDATES = {
    Candidacy.CHOSEN: "chosen",
    Candidacy.HAS_ONE: "with another replica",
    Candidacy.AS_GOOD: "as good",
    Candidacy.EMPTIER: "emptier",
    Candidacy.TAKES_MORE: "where it takes more or larger GPUs",
    Candidacy.ONLY_CPU: "with a CPU only",
    Candidacy.FULL: "full",
    Candidacy.NEVER: "that never could",
    Candidacy.CLOSED: "closed",
}
FIXED = {
    HelpCode.FEWER_REPLICAS: "fewer replicas (replicas: {})",
    HelpCode.SMALLER_DTYPE: "a smaller precision (dtype: {})",
    HelpCode.FEWER_GPUS: "fewer GPUs (gpus: {})",
    HelpCode.ANY_ACCELERATOR: "any kind of GPU (no accelerator)",
}


def around(verdict: Verdict, at: datetime, zone: tzinfo | None = None) -> Iterator[str]:
    """Everything known of a refusal beyond its reason, a sentence a line, what helps most first."""
    refusal = verdict.refusal or Refusal()
    yield from _slots(verdict, refusal, at, zone)
    if refusal.helps:
        words = tuple(help_words(one, at, zone) for one in refusal.helps)
        yield f"What would help: {' or '.join(filter(None, (', '.join(words[:-1]), words[-1])))}."
    if refusal.in_the_way:
        of_what = " of one more replica" if refusal.short_replicas > 1 else ""
        yield f"In the way{of_what}: {titles(refusal.in_the_way)}."
    if proof := _proof(verdict, refusal, at, zone):
        yield proof


def node_lines(verdict: Verdict, at: datetime, zone: tzinfo | None = None) -> Iterator[str]:
    """What the first nodes could offer, and how many more there are."""
    waiting_helps = verdict.reason.kind is ReasonKind.LATER
    for one in verdict.considered[:NODES_SHOWN]:
        yield answer(one, at if waiting_helps else None, zone)
    yield from _more_nodes(verdict)


def _more_nodes(verdict: Verdict) -> Iterator[str]:
    """How many nodes are not shown, and what all of them are."""
    known, shown = len(verdict.considered), min(len(verdict.considered), NODES_SHOWN)
    nodes = max(known, sum(one.nodes for one in verdict.candidates))
    more = nodes - shown
    if known <= shown:
        return
    words = [f"{one.nodes:,} {CANDIDATES[one.candidacy]}" for one in verdict.candidates]
    all_of_them = f" (of all {nodes:,}: {', '.join(words)})" if words else ""
    has = "has them" if known == nodes else f"has {known - shown} of them"
    yield f"and {more:,} more node{'s' if more > 1 else ''}{all_of_them}; --json {has}"


def lateness(verdict: Verdict, upcoming: Iterable[Step], at: datetime, zone: tzinfo | None = None) -> str:
    """``will be late by 4 min, ready at 14:04, because “X” holds the room until 14:00``."""
    ready = f", ready at {moment(verdict.ready_by, at, zone)}" if verdict.ready_by else ""
    said = f"will be late by {duration(verdict.late_seconds)}{ready}"
    if not verdict.late_because:
        return said
    holds = "hold" if len(verdict.late_because) > 1 else "holds"
    step = _late_step(verdict, upcoming)
    until = f" until {moment(step.at, at, zone)}" if step else ""
    return f"{said}, because {titles(verdict.late_because)} {holds} the room{until}"


def late(plan: Plan) -> tuple[Verdict, ...]:
    """The bookings that will be met, but not at their start."""
    met = (VerdictState.PLACED, VerdictState.COMING)
    return tuple(one for one in plan.verdicts if one.late_seconds > 0 and one.state in met)


def broken(plan: Plan) -> tuple[Verdict, ...]:
    """The bookings that were promised their model and cannot be met any more."""
    events = {one.event for one in plan.promises.broken}
    return tuple(
        one for one in plan.refused if one.event in events or one.reason.code is ReasonCode.PROMISE_BROKEN
    )


def help_words(one: Help, at: datetime, zone: tzinfo | None = None) -> str:
    """What to write instead, in a few words."""
    if one.code in FIXED:
        return FIXED[one.code].format(one.value)
    try:
        when = moment(datetime.fromisoformat(one.value), at, zone)
    except ValueError:
        when = one.value
    return f"ending by {when}" if one.code is HelpCode.SHORTER else f"starting at {when}"


def titles(names: Iterable[str]) -> str:
    """Titles of bookings in quotes; the first few, and how many more there are."""
    names = tuple(names)
    shown = tuple(f"“{name}”" for name in names[:TITLES_SHOWN])
    more = len(names) - len(shown)
    return listed((*shown, f"{more} more")) if more else listed(shown)


def _slots(verdict: Verdict, refusal: Refusal, at: datetime, zone: tzinfo | None) -> Iterator[str]:
    earliest = refusal.earliest or verdict.earliest
    if earliest:
        yield f"It would fit from {moment(earliest, at, zone)} on, for as long as it lasts."
    if refusal.longest_until:
        yield f"From its own start it would fit until {moment(refusal.longest_until, at, zone)}."


def _proof(verdict: Verdict, refusal: Refusal, at: datetime, zone: tzinfo | None) -> str | None:
    if verdict.refusal is None or verdict.reason.kind is not ReasonKind.LATER:
        return None
    if refusal.full_at:
        return f"Proven: at {moment(refusal.full_at, at, zone)} more is promised and asked for than there is."
    if refusal.proof is Proof.PROVEN:
        return "Proven: however what has not started were laid out, there would be no room."
    if refusal.proof is Proof.NOT_FOUND:
        within = f" within {duration(refusal.solver_seconds)}" if refusal.solver_seconds else ""
        return f"Not proven: no layout that makes room was found{within}, but there may be one."
    return "As bookings are laid out now; no other layout was looked for."


def _late_step(verdict: Verdict, steps: Iterable[Step]) -> Step | None:
    return next(
        (
            one
            for one in steps
            if one.late_seconds > 0 and one.model == verdict.model and verdict.title in one.titles
        ),
        None,
    )
