"""A plan made by hand that has something of everything a plan can say."""

from __future__ import annotations

from datetime import datetime, timedelta

from scheduler.cluster.node import DeviceKind
from scheduler.types import (
    Action,
    ActionKind,
    Broken,
    DeploymentStatus,
    Directory,
    Drift,
    Help,
    HelpCode,
    Model,
    NodeAnswer,
    Placement,
    Plan,
    Promises,
    Proof,
    Reason,
    ReasonCode,
    ReasonKind,
    Refusal,
    Stay,
    Step,
    Target,
    Verdict,
    VerdictState,
)
from tests.scheduler.builders import GIB, NOON, cluster, gpus

ADA = "ada@example.org"


def at(hours: float) -> datetime:
    """So many hours from noon."""
    return NOON + timedelta(hours=hours)


def model(name: str) -> Model:
    return Model(repo_id=f"org/{name}")


def answer(node: str, free: int, needed: int, *held_by: str, **more: object) -> NodeAnswer:
    """What a node of 80 GiB GPUs could offer."""
    fields = {
        "node": node,
        "fits": free >= needed,
        "kind": DeviceKind.GPU,
        "needed_bytes": needed * 80 * GIB,
        "free_bytes": free * 80 * GIB,
        "needed_gpus": needed,
        "free_gpus": free,
        "largest_bytes": 640 * GIB,
        "total_gpus": 8,
        "held_by": held_by,
    }
    return NodeAnswer.model_validate(fields | more)


def verdict(
    title: str, start: float, end: float, state: VerdictState, reason: Reason, **more: object
) -> Verdict:
    """What is said to a booking of ``org/TITLE``."""
    fields = {
        "event": f"{title}-event",
        "calendar": "lab",
        "title": title,
        "start": at(start),
        "end": at(end),
        "owner": ADA,
        "state": state,
        "model": model(title),
        "reason": reason,
    }
    return Verdict.model_validate(fields | more)


def placed(
    name: str, node: str, until: float, count: int, code: ReasonCode, titles: tuple[str, ...]
) -> Placement:
    target = Target(
        model=model(name),
        names=(f"org/{name}",),
        dtype="bfloat16",
        gpus=count,
        replicas=1,
        footprint_bytes=count * 75 * GIB,
        reservations=tuple(f"{title}-event" for title in titles),
        titles=titles,
        start=at(-1),
        until=at(until),
        priority=0,
        booked_at=at(-24),
    )
    return Placement(
        target=target,
        node=node,
        replicas=1,
        num_gpus=count,
        memory_bytes=0,
        footprint_bytes=count * 75 * GIB,
        reason=Reason(code=code, node=node),
    )


def eventful_plan() -> Plan:
    """Removals, placements with a runner-up, lateness, refusals of every proof, drift, later steps."""
    considered = (
        answer("gpu-a", 4, 2, "org/chat", free_until=at(6)),
        answer("gpu-c", 8, 2),
        answer("gpu-b", 1, 2, "org/big", free_from=at(2)),
    )
    return Plan(
        at=NOON,
        cluster=cluster(gpus("gpu-a", 8, 80), gpus("gpu-b", 8, 80), gpus("gpu-c", 8, 80)),
        directory=Directory(),
        others=("someone-elses",),
        actions=(
            Action(
                kind=ActionKind.UNDEPLOY,
                model=model("gone"),
                node="gpu-a",
                replicas_before=2,
                footprint_bytes=70 * GIB,
                num_gpus=1,
                reason=Reason(code=ReasonCode.NODE_DRAINED, node="gpu-a"),
            ),
            Action(
                kind=ActionKind.DEPLOY,
                model=model("vision"),
                node="gpu-a",
                replicas=1,
                footprint_bytes=150 * GIB,
                num_gpus=2,
                until=at(5),
                titles=("vision",),
                reason=Reason(code=ReasonCode.STARTS_SOON, node="gpu-a"),
                considered=considered,
                not_before=NOON,
                done_by=at(0.1),
                late_seconds=90,
            ),
        ),
        placements=(
            placed("big", "gpu-b", 2, 7, ReasonCode.ALREADY_THERE, ("big",)),
            placed("chat", "gpu-a", 0.25, 4, ReasonCode.LINGERS, ()),
            placed("vision", "gpu-a", 5, 2, ReasonCode.STARTS_SOON, ("vision",)),
        ),
        verdicts=_verdicts(),
        drift=(
            Drift(
                application="app-big",
                model=model("big"),
                node="gpu-b",
                status=DeploymentStatus.FAILED,
                message="Traceback:\n401 Unauthorized for hf_abcdefghijklmnopqrstuvwxyz: https://bob:pw123@hub.example.org",
            ),
        ),
        fingerprint="seen",
        next_boundary=at(0.1),
        promises=Promises(
            stays=(
                Stay(model=model("big").key, node="gpu-b", start=at(-1), end=at(2), events=("big-event",)),
                Stay(
                    model=model("vision").key,
                    node="gpu-a",
                    start=at(0.1),
                    end=at(5),
                    events=("vision-event",),
                ),
                Stay(model=model("night").key, node="gpu-b", start=at(2), end=at(9), events=("night-event",)),
                Stay(model=model("night").key, node="gpu-c", start=at(2), end=at(9), events=("night-event",)),
            ),
            broken=(
                Broken(
                    event="lost-event",
                    since=at(-0.5),
                    reason=Reason(code=ReasonCode.NODE_LOST, kind=ReasonKind.LATER, node="gpu-d"),
                ),
            ),
        ),
        upcoming=(
            Step(
                kind=ActionKind.UNDEPLOY,
                model=model("big"),
                node="gpu-b",
                replicas=1,
                at=at(2),
                done_by=at(2),
                titles=("big",),
            ),
            Step(
                kind=ActionKind.DEPLOY,
                model=model("night"),
                node="gpu-b",
                replicas=2,
                at=at(2),
                done_by=at(2),
                until=at(9),
                titles=("night",),
                late_seconds=245,
                held_by=("big",),
            ),
        ),
    )


def _verdicts() -> tuple[Verdict, ...]:
    short = Reason(
        code=ReasonCode.NO_ROOM,
        kind=ReasonKind.LATER,
        needed_bytes=600 * GIB,
        free_bytes=320 * GIB,
        needed_gpus=8,
        free_gpus=4,
        node="gpu-c",
        by=("org/night",),
    )
    refused, soon = VerdictState.REFUSED, Reason(code=ReasonCode.STARTS_SOON)
    later = Reason(code=ReasonCode.STARTS_LATER)
    return (
        verdict("big", -1, 2, VerdictState.PLACED, Reason(code=ReasonCode.ALREADY_THERE), nodes=("gpu-b",)),
        verdict(
            "vision", 0.1, 5, VerdictState.COMING, soon, nodes=("gpu-a",), ready_by=at(0.125), late_seconds=90
        ),
        verdict(
            *("night", 2, 9, VerdictState.COMING, later),
            nodes=("gpu-b", "gpu-c"),
            ready_by=at(2) + timedelta(seconds=245),
            late_seconds=245,
            late_because=("big",),
        ),
        verdict(
            *("huge", 3, 6, refused, short),
            considered=(
                answer("gpu-c", 4, 8, "org/night", free_from=at(9)),
                answer("gpu-a", 6, 8, "org/vision", free_from=at(5), free_until=at(24)),
                answer("gpu-b", 0, 8, why_not="the operator lets nothing new onto it"),
                *(answer(f"gpu-{number}", 0, 8, "org/big") for number in range(3)),
            ),
            refusal=Refusal(
                proof=Proof.PROVEN,
                in_the_way=("night",),
                earliest=at(9),
                longest_until=at(4.5),
                helps=(
                    Help(code=HelpCode.FEWER_GPUS, value="4"),
                    Help(code=HelpCode.SHORTER, value=at(4.5).isoformat()),
                    Help(code=HelpCode.LATER, value=at(9).isoformat()),
                ),
            ),
        ),
        verdict(
            *(
                "wide",
                30,
                31,
                refused,
                short.model_copy(update={"code": ReasonCode.SOME_REPLICAS, "detail": "2 of 5 replicas"}),
            ),
            refusal=Refusal(
                proof=Proof.NOT_FOUND,
                solver_seconds=2,
                in_the_way=tuple(f"class {number}" for number in range(1, 9)),
                helps=(
                    Help(code=HelpCode.FEWER_REPLICAS, value="2"),
                    Help(code=HelpCode.SMALLER_DTYPE, value="bfloat16"),
                    Help(code=HelpCode.ANY_ACCELERATOR, value="any"),
                ),
            ),
        ),
        verdict(
            *("lost", -2, 4, refused),
            Reason(
                code=ReasonCode.PROMISE_BROKEN,
                kind=ReasonKind.LATER,
                node="gpu-d",
                needed_bytes=150 * GIB,
                needed_gpus=2,
                by=("org/vision",),
            ),
            refusal=Refusal(in_the_way=("vision",), earliest=at(5)),
        ),
        verdict("unheard", 400, 402, VerdictState.COMING, Reason(code=ReasonCode.BEYOND_HORIZON)),
    )
