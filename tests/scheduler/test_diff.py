"""What has to change, and why."""

from __future__ import annotations

import pytest

from tests.scheduler.builders import (
    GIB,
    actions,
    booking,
    carried_out,
    cluster,
    deployed,
    gpus,
    known,
    planned,
)

ON = cluster(gpus("g", 8, 80))
FIRST = planned([booking("org/a")], ON, known(a=7))


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({}, []),
        ({"replicas": 3}, ["scale a g (replicas changed)"]),
        ({"num_gpus": 0.5}, ["rebuild a g (needs changed)"]),
        ({"memory_bytes": 5}, ["rebuild a g (needs changed)"]),
        ({"dtype": "float32"}, ["rebuild a g (needs changed)"]),
        ({"contract_current": False}, ["rebuild a g (contract changed)"]),
        ({"reservations": ("another",)}, ["update a g (booking changed)"]),
        ({"footprint_bytes": int(6.9 * GIB)}, ["rebuild a g (needs changed)"]),
        ({"footprint_bytes": int(6.9 * GIB), "num_gpus": 0.0863}, []),
        ({"footprint_bytes": int(6.5 * GIB), "num_gpus": 0.0813}, ["rebuild a g (needs changed)"]),
        ({"node": "gone"}, ["undeploy a gone (node lost)", "deploy a g (booked)"]),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_each_difference_is_one_action_with_its_reason(seen: dict[str, object], expected: list[str]) -> None:
    running = deployed(FIRST.placements[0], **seen)  # type: ignore[arg-type]
    assert actions(planned([booking("org/a")], ON, known(a=7), running=[running])) == expected


def test_removals_come_first_then_changes_then_what_is_new() -> None:
    sizes = known(a=7, b=7, z=7)
    before = planned([booking("org/a"), booking("org/z")], ON, sizes)
    wanted = [booking("org/a", replicas=2), booking("org/b")]
    plan = planned(wanted, ON, sizes, running=carried_out(before))
    assert [text.split()[0] for text in actions(plan)] == ["undeploy", "scale", "deploy"]


def test_what_is_not_needed_any_more_where_a_model_goes_on_elsewhere_was_not_moved() -> None:
    two = cluster(gpus("g", 1, 80), gpus("h", 1, 80))
    before = planned([booking("org/a", replicas=2, gpus=1)], two, known(a=7))
    assert {one.node for one in before.placements} == {"g", "h"}
    plan = planned([booking("org/a", gpus=1)], two, known(a=7), running=carried_out(before))
    (gone,) = (text for text in actions(plan) if text.startswith("undeploy"))
    assert gone.endswith("(no booking)")
