"""The one function that decides: ``plan``, ``apply`` and the daemon all call it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import attrgetter

from calendars.reservation import Reading
from scheduler.planning import explain
from scheduler.planning.admission import Admission
from scheduler.planning.candidates import Candidates
from scheduler.planning.exact import Opinion, OpinionState, Question, follow, obvious, question
from scheduler.planning.footprint import Loads
from scheduler.planning.holds import Ask
from scheduler.planning.lingering import may_linger
from scheduler.planning.memory import Memory, Standing
from scheduler.planning.targets import Booked
from scheduler.planning.verdicts import Judge, misunderstood
from scheduler.planning.wishes import Basis, Wishes, need_of
from scheduler.types import (
    Action,
    ActionKind,
    Broken,
    Catalog,
    Checkpoint,
    Deployment,
    DeploymentStatus,
    Drift,
    Observed,
    Plan,
    Promises,
    Reason,
    ReasonCode,
    ReasonKind,
    Rules,
    UnknownSize,
)

MAX_CONSIDERED = 20
"""Of so many deployments the nodes that were not taken are told, too."""


@dataclass(frozen=True)
class Policy:
    """How the operator wants promises kept; seconds.

    Bookings that start within ``horizon_seconds`` are judged. What runs stays for ``linger_seconds``
    after its booking if nobody needs its room, and is displaced by a higher priority only when it has
    served for ``minimum_service_seconds``.
    """

    horizon_seconds: float = 14 * 86_400.0
    linger_seconds: float = 0.0
    minimum_service_seconds: float = 0.0


@dataclass(frozen=True)
class Known:
    """What a plan is made from besides the bookings and the cluster.

    ``checkpoints`` is what is known of each model, by model key; ``previous`` what the last plan
    promised; ``loads`` how long loading takes; ``opinions`` what the exact solver said of earlier
    refusals, by event. Of so many refusals as ``questions`` says the solver may be asked, the nearest first.
    """

    catalog: Catalog = field(default_factory=Catalog)
    checkpoints: Mapping[str, Checkpoint | UnknownSize] = field(default_factory=dict)
    loads: Loads = field(default_factory=Loads)
    rules: Rules = field(default_factory=Rules)
    policy: Policy = field(default_factory=Policy)
    previous: Promises = field(default_factory=Promises)
    opinions: Mapping[str, Opinion] = field(default_factory=dict)
    questions: int = 0


@dataclass(frozen=True)
class Decision:
    """A plan, and what the exact solver may be asked about its refusals for the next one."""

    plan: Plan
    questions: tuple[Question, ...] = ()


def make_plan(readings: Iterable[Reading], observed: Observed, at: datetime, known: Known) -> Plan:
    """Work out what shall run at an instant and what has to change for it.

    Args:
        readings: what each calendar said; together they are everything that is wanted.
        observed: what runs, and on what.
        at: the instant to plan for; of bookings that ended by then nothing is said.
    """
    return decide(readings, observed, at, known).plan


def decide(
    readings: Iterable[Reading],
    observed: Observed,
    at: datetime,
    known: Known,
    memory: Memory | None = None,
) -> Decision:
    """The same, with what may be asked about its refusals.

    Args:
        memory: of the plans before; the plan is the same with and without, but sooner made with it.
    """
    memory = memory or Memory()
    try:
        return _decide(tuple(readings), observed, at, known, memory)
    except BaseException:
        # it has taken in what this plan did not act upon
        memory.forget()
        raise


def _decide(
    readings: tuple[Reading, ...], observed: Observed, at: datetime, known: Known, memory: Memory
) -> Decision:
    now, policy, wishes = at.timestamp(), known.policy, memory.wishes
    basis = Basis(known.catalog, known.checkpoints, known.loads, known.rules)
    memory.running.update(observed.deployments)
    changed = wishes.update(readings, basis, observed.cluster, memory.running, at, policy.horizon_seconds)
    booked, running = wishes.booked, memory.running.by_identity
    standing = memory.standing(observed.cluster, now)
    admission = standing.admission
    standing.observe(memory.running, known.loads.on_disk)
    standing.admit(wishes.asks, changed, known.previous, policy.minimum_service_seconds)
    questions, proofs = _second_opinions(admission, standing.unmet(), known)

    lingering = may_linger(running.values(), wishes.given, now, policy.linger_seconds)
    scheduled = standing.timetable.schedule(
        admission, booked, running, standing.others, known.loads, lingering, wishes.edges, wishes.altered
    )
    broken = _broken(standing, known.previous, booked, at)
    judge = Judge(
        admission,
        scheduled,
        booked,
        wishes.beyond,
        frozenset(ask.key for ask in standing.unmet()),
        broken,
        proofs,
        known.loads.sizing,
        standing.sayings,
    )
    verdicts = (
        *judge.all(wishes, wishes.altered, at),
        *(
            misunderstood(one)
            for reading in readings
            for one in reading.misunderstood
            if one.end is None or one.end > at
        ),
    )
    placed, differences = scheduled.by_identity, standing.differences
    told = standing.signpost.directory(placed, scheduled.others, verdicts, booked, wishes.given, at)
    going = differences.going(placed, running, scheduled.others.union(standing.others))
    wanted = _wanted(going, wishes, admission)
    actions = differences.actions(placed, running, going, wanted, told, observed)
    boundary = scheduled.next_boundary
    plan = Plan(
        at=at,
        actions=tuple(_timed(actions, admission, booked, observed, known.loads, at)),
        placements=scheduled.placements,
        verdicts=verdicts,
        drift=_drift(observed.deployments),
        others=observed.others,
        cluster=observed.cluster,
        directory=told,
        next_boundary=None if boundary is None else datetime.fromtimestamp(boundary, UTC),
        fingerprint=observed.fingerprint,
        promises=standing.promises(broken),
        upcoming=scheduled.steps,
    )
    return Decision(plan, questions)


def _wanted(going: Collection[Deployment], wishes: Wishes, admission: Admission) -> frozenset[str]:
    """Of the models of which something has to go, those that some booking has, or loses by it."""
    if not going:
        return frozenset()
    models = {one.model.key for one in going}
    had = {key for one in going for key in one.reservations}
    asks = (
        ask for ask in wishes.asks.values() if ask.model in models and ask.start - ask.lead <= admission.at
    )
    return frozenset(ask.model for ask in asks if ask.key in had or admission.of_booking(ask.key))


def _second_opinions(
    admission: Admission, asks: Iterable[Ask], known: Known
) -> tuple[tuple[Question, ...], dict[str, Opinion]]:
    """Follow what the exact solver found; returns what to ask it next, and what is certain, by event."""
    refused = sorted(asks, key=attrgetter("start", "claim"))
    questions, proofs = [], {}
    for ask in refused[: known.questions]:
        told = known.opinions.get(ask.key)
        if told is not None and told.state is OpinionState.FOUND and follow(admission, ask, told):
            continue
        asked = question(admission, ask)
        told = obvious(asked, 0.0) or (told if told and told.digest == asked.digest else None)
        if told is not None:
            proofs[ask.key] = told
        questions.append(asked)
    return tuple(questions), proofs


def _broken(
    standing: Standing, previous: Promises, booked: Mapping[str, Booked], at: datetime
) -> dict[str, Broken]:
    """The promises of earlier plans that this one does not keep, by event."""
    nodes = {ask.key: there for ask in standing.unmet() if (there := standing.promised_on(ask.key))}
    unmet = {ask.key for ask in standing.unmet()}
    before = {one.event: one for one in previous.broken if one.event in unmet}
    found = {}
    for key in sorted({*before, *nodes}):
        reason = before[key].reason if key in before else _why(standing.admission, key, nodes[key], booked)
        if reason is not None:
            since = before[key].since if key in before else at
            found[key] = Broken(event=key, since=since, reason=reason)
    return found


def _why(admission: Admission, key: str, nodes: set[str], booked: Mapping[str, Booked]) -> Reason | None:
    detail = None
    by = admission.displaced.get(key)
    for name in sorted(nodes):
        number = admission.book.index.get(name)
        if number is None:
            detail = f"node {name} is gone"
        elif admission.book.nodes[number].closed:
            detail = f"the operator has closed node {name}"
        elif key in admission.robbed and detail is None:
            detail = f"node {name} has less room than it had"
    if by is not None:
        stronger = admission.asks[by].priority > admission.asks[key].priority
        which = "which has a higher priority" if stronger else "which was booked first"
        detail = f"“{booked[by].reservation.title}”, {which}, takes its room"
    return (detail and Reason(code=ReasonCode.PROMISE_BROKEN, kind=ReasonKind.LATER, detail=detail)) or None


def _timed(
    actions: Iterable[Action],
    admission: Admission,
    booked: Mapping[str, Booked],
    observed: Observed,
    loads: Loads,
    at: datetime,
) -> Iterable[Action]:
    """The actions with their times, those that load a model with what the other nodes could offer, too."""
    told, others = 0, None
    for action in actions:
        number = admission.book.index.get(action.node or "")
        node = None if number is None else admission.book.nodes[number]
        if action.kind not in (ActionKind.DEPLOY, ActionKind.REBUILD) or node is None or action.model is None:
            yield action
            continue
        lead = loads.lead_seconds(action.model.key, node, action.footprint_bytes)
        by = max(action.done_by or at, at)
        late = max(0.0, at.timestamp() + lead - by.timestamp())
        update: dict[str, object] = {"not_before": at, "done_by": by, "late_seconds": late}
        if told < MAX_CONSIDERED and action.until is not None:
            told += 1
            need = _need(action.model.key, admission, booked)
            if need is not None:
                window = at.timestamp(), action.until.timestamp()
                near = explain.nearest(admission, need_of(need), *window)
                answers = explain.answers(admission, near, need_of(need), *window, booked)
                here = admission.book.index[node.name]
                others = others or Candidates(admission)
                found = others.beside(here, action.model.key, need_of(need), *window)
                update["considered"], update["candidates"] = others.told(answers, found)
        yield action.model_copy(update=update)


def _need(model: str, admission: Admission, booked: Mapping[str, Booked]) -> Booked | None:
    holds = admission.of_model(model)
    return booked[min(holds[0].keys)] if holds else None


def _drift(deployments: Iterable[Deployment]) -> tuple[Drift, ...]:
    return tuple(
        Drift(
            application=one.application,
            model=one.model,
            node=one.node,
            status=one.status,
            message=one.message,
        )
        for one in deployments
        if one.status is DeploymentStatus.FAILED
    )
