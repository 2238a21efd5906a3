"""Why this node: each node of the cluster is told something, and together they are all there are."""

from __future__ import annotations

from scheduler.cluster.node import Cluster
from scheduler.types import Action, ActionKind, Candidacy
from tests.scheduler.builders import booking, carried_out, cluster, cpu, gpus, known, planned


def deployed_on(plan_of: Cluster, *reservations: object, size: float = 10, **more: object) -> Action:
    """The one action that places ``org/a``."""
    sizes = known(a=size, b=70)
    plan = planned([booking("org/a", **more), *reservations], plan_of, sizes)  # type: ignore[arg-type, list-item]
    deploys = [one for one in plan.actions if one.kind is ActionKind.DEPLOY and one.model]
    return next(one for one in deploys if one.model and one.model.repo_id == "org/a")


def told(action: Action) -> dict[str, Candidacy | None]:
    return {one.node: one.candidacy for one in action.considered}


def test_every_node_is_told_why() -> None:
    there = cluster(
        gpus("small", 1, 24), gpus("large", 1, 80), gpus("tiny", 1, 4), gpus("full", 1, 24, taken=1),
        cpu("cpu", 200), gpus("closed", 1, 24).model_copy(update={"cordoned": True}), gpus("many", 4, 24),
        gpus("twin", 1, 24),
    )  # fmt: skip
    action = deployed_on(there)
    assert action.node == "small"
    assert told(action) == {
        "small": Candidacy.CHOSEN,
        "twin": Candidacy.AS_GOOD,
        "many": Candidacy.EMPTIER,
        "large": Candidacy.TAKES_MORE,
        "cpu": Candidacy.ONLY_CPU,
        "full": Candidacy.FULL,
        "tiny": Candidacy.NEVER,
        "closed": Candidacy.CLOSED,
    }
    assert all(one.nodes == 1 for one in action.candidates) and len(action.candidates) == 8
    assert action.considered[0].node == "small"


def test_more_gpus_are_more() -> None:
    action = deployed_on(cluster(gpus("two", 2, 24), gpus("one", 1, 80)), size=40)
    assert (action.node, told(action)["two"]) == ("one", Candidacy.TAKES_MORE)


def test_a_shared_gpu_without_room_is_full() -> None:
    other = booking("org/b", booked=-48)
    action = deployed_on(cluster(gpus("x", 1, 80), gpus("y", 1, 140)), other, size=20)
    assert (action.node, told(action)["x"]) == ("y", Candidacy.FULL)


def test_other_replicas_are_told_apart() -> None:
    action = deployed_on(cluster(gpus("x", 1, 80), gpus("y", 1, 80)), replicas=2, size=60)
    assert sorted(str(one) for one in told(action).values()) == ["chosen", "has another replica"]


def test_counts_add_up_to_the_nodes_there_are() -> None:
    there = cluster(*(gpus(f"n{number:03d}", 1 + number % 8, 24 + number % 3) for number in range(100)))
    action = deployed_on(there)
    assert len(action.considered) == 32
    assert sum(one.nodes for one in action.candidates) == 100
    listed = [one.candidacy for one in action.considered]
    for one in action.candidates:
        assert listed.count(one.candidacy) <= one.nodes


def test_what_runs_is_told_nothing() -> None:
    there = cluster(gpus("x", 1, 80), gpus("y", 1, 80))
    plan = planned([booking("org/a")], there, known(a=10))
    again = planned([booking("org/a")], there, known(a=10), running=carried_out(plan), previous=plan)
    assert not any(one.candidates for one in again.actions)
