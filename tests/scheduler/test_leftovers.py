"""GPU memory that is in use though nobody has the GPU."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from scheduler.amend import held_back
from scheduler.cluster.leftovers import GpuMemory, Held, Leftovers, left_over, occupied, used_bytes
from scheduler.settings import MIB
from scheduler.types import ActionKind, DeploymentStatus
from tests.scheduler.builders import NOON, booking, cluster, deployed, gpus, known, planned

SECOND = timedelta(seconds=1)
IDLE = 2048 * MIB
USED, FREE = 40_000 * MIB, 500 * MIB
NODE = gpus("a", 4, 80)


def actor(gpu: float, node: str = NODE.node_id, name: str = "someone") -> dict[str, Any]:
    return {"node_id": node, "name": name, "required_resources": {"GPU": gpu} if gpu else {}}


@pytest.mark.parametrize(
    ("used", "in_books", "found"),
    [
        ((FREE, FREE, FREE, FREE), 0, None),
        ((USED, FREE, FREE, FREE), 1, None),
        ((FREE, FREE, FREE, FREE), 1, None),  # what has a GPU need not use it
        ((USED, FREE, FREE, FREE), 0, Held(held=1, free=3)),
        ((USED, USED, FREE, USED), 1, Held(held=2, free=1)),
        ((USED, USED, USED, USED), 3, Held(held=1, free=0)),
        ((USED, USED, USED, USED), 5, None),
        ((USED, USED), 0, None),  # nobody knows which of the node's GPUs these are
    ],
)
def test_what_should_be_free_and_is_not(used: tuple[int, ...], in_books: int, found: Held | None) -> None:
    assert left_over(used, 4, in_books, IDLE) == found


def test_rays_books_know_actors_and_what_of_ours_is_still_coming() -> None:
    plan = planned([booking("org/a", replicas=2)], cluster(NODE), known(a=60))
    loading = deployed(plan.placements[0], DeploymentStatus.LOADING)
    replica = actor(1, name=f"SERVE_REPLICA::{loading.application}#Model#x")
    assert occupied(NODE, [], []) == 0
    assert occupied(NODE, [actor(2), actor(0.5), actor(0), actor(8, node="elsewhere")], []) == 3
    assert occupied(NODE, [], [loading]) == 2
    assert occupied(NODE, [replica], [loading]) == 2
    assert occupied(NODE, [replica, replica], [loading]) == 2


def test_what_the_agents_of_rays_dashboard_tell_is_read() -> None:
    summary = [
        {
            "raylet": {"nodeId": "one"},
            "gpus": [{"index": 1, "memoryUsed": 7, "memoryTotal": 9}, {"index": 0, "memoryUsed": 5}],
        },
        {"raylet": {"nodeId": "two"}, "gpus": []},
        {"raylet": {"nodeId": "three"}},
        {},
    ]
    assert used_bytes(summary) == {"one": (5 * MIB, 7 * MIB)}


def test_the_agents_are_asked_no_more_often_than_they_look() -> None:
    asked: list[int] = []

    def ask() -> list[dict[str, Any]]:
        asked.append(1)
        return [{"raylet": {"nodeId": "one"}, "gpus": [{"index": 0, "memoryUsed": len(asked)}]}]

    memory = GpuMemory(ask)
    seen = [memory.used(NOON + seconds * SECOND)["one"] for seconds in (0, 1, 2, 3, 4, -60)]
    assert seen == [(MIB,), (MIB,), (MIB,), (2 * MIB,), (2 * MIB,), (3 * MIB,)]


def test_it_is_waited_for_and_then_counts_as_others() -> None:
    leftovers, there = Leftovers(60), cluster(NODE)
    assert leftovers.mark(there, {"a": Held(1, 3)}, NOON) == there
    assert leftovers.waited_for == {"a": Held(1, 3)}
    assert "memory of a GPU of a is still in use" in leftovers.words
    assert leftovers.boundaries == (NOON + 60 * SECOND,)
    after = leftovers.mark(there, {"a": Held(1, 3)}, NOON + 60 * SECOND)
    assert [one.taken_share for one in after.nodes[0].devices] == [1, 0, 0, 0]
    assert (leftovers.waited_for, "done without" in leftovers.words) == ({}, True)
    assert leftovers.mark(there, {}, NOON + 61 * SECOND) == there
    assert leftovers.words == ""


def test_a_clock_that_is_set_back_begins_the_wait_anew_and_makes_it_no_longer() -> None:
    leftovers, there, back = Leftovers(60), cluster(NODE), NOON - timedelta(hours=1)
    leftovers.mark(there, {"a": Held(1, 3)}, NOON)
    leftovers.mark(there, {"a": Held(1, 3)}, back)
    assert leftovers.waited_for
    leftovers.mark(there, {"a": Held(1, 3)}, back + 60 * SECOND)
    assert leftovers.lost


@pytest.mark.parametrize(("free", "comes"), [(0, []), (1, ["org/a"]), (2, ["org/a", "org/b"])])
def test_only_what_fits_beside_it_comes(free: int, comes: list[str]) -> None:
    plan = planned(
        [booking("org/a"), booking("org/b", booked=1)], cluster(gpus("n", 2, 80)), known(a=60, b=60)
    )
    back = held_back(plan, {"n": Held(2 - free, free)})
    deploys = [one.model.repo_id for one in back.actions if one.kind is ActionKind.DEPLOY and one.model]
    assert deploys == comes
    assert [one.target.model.repo_id for one in back.placements] == comes
    assert held_back(plan, {"elsewhere": Held(1, 0)}) == plan
