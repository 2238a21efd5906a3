"""What is told of a refusal is what would be found out anew, whatever has changed on whichever node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

import pytest

from calendars.reservation import Reading, Reservation
from scheduler.cluster.node import Cluster
from scheduler.planning import verdicts
from scheduler.planning.footprint import Loads
from scheduler.planning.memory import Memory
from scheduler.planning.plan import Known, decide
from scheduler.types import HelpCode, Observed, Plan, Promises, Verdict, VerdictState
from tests.scheduler.builders import NOON, PLAIN, booking, cluster, gpus, known

NODES = 40
"""More than are told of: where all lack the same, those are the first 32, and the last."""
ASIDE, LAST = 35, NODES - 1
"""A node that is not told of, and one of which the figures are told."""
SIZES = known(**{f"m{number}": 14.0 for number in range(200)})
ALIKE = cluster(*(gpus(f"n{number:02}", 2, 80) for number in range(NODES)))
OF_TWO_KINDS = Cluster(
    nodes=tuple(
        node.model_copy(update={"accelerator": "L4" if number == ASIDE else "H100"})
        for number, node in enumerate(ALIKE.nodes)
    )
)


def filler(node: int, start: float = 0, end: float = 10, on: int = 2) -> Reservation:
    """Takes a node, as there is one for each of the nodes before."""
    return booking(f"org/m{node}", start, end, key=f"f{node:03}", booked=-100 + node / 10, gpus=on)


def wanted(number: int = 0, **more: object) -> Reservation:
    """One of those that find no room from one o'clock to five."""
    return booking(f"org/m{100 + number}", 1, 5, key=f"r{number:03}", booked=number / 100, gpus=2, **more)


def told(plan: Plan, key: str) -> Verdict:
    found = next(one for one in plan.verdicts if one.event == key)
    assert found.state is VerdictState.REFUSED
    return found


def decided(
    bookings: Mapping[str, Reservation], on: Cluster, seconds: float, previous: Plan | None, memory: Memory
) -> Plan:
    """A plan, which is the same as without a memory."""
    readings = (Reading(calendar="test", reservations=tuple(bookings.values())),)
    promises = previous.promises if previous else Promises()
    basis = Known(checkpoints=SIZES, loads=Loads(PLAIN), previous=promises)
    given = readings, Observed(cluster=on, fingerprint="seen"), NOON + timedelta(seconds=seconds), basis
    plan = decide(*given, memory).plan
    assert plan.model_dump_json() == decide(*given).plan.model_dump_json()
    return plan


def before_and_after(
    *changes: Reservation,
    fillers: Iterable[Reservation] = (),
    asks: Iterable[Reservation] = (wanted(),),
    on: Cluster = ALIKE,
) -> tuple[Verdict, Verdict]:
    """What the last of those that find no room is told before and after some bookings are others."""
    asks = list(asks)
    bookings = {one.key: one for one in (*map(filler, range(NODES)), *fillers, *asks)}
    memory, key = Memory(), asks[-1].key
    plan = decided(bookings, on, 0, None, memory)
    again = decided(bookings, on, 10, plan, memory)
    assert told(again, key) is told(plan, key)
    bookings |= {one.key: one for one in changes}
    return told(plan, key), told(decided(bookings, on, 20, again, memory), key)


def nodes_of(verdict: Verdict) -> set[str]:
    return {one.node for one in verdict.considered}


def helps_of(verdict: Verdict) -> list[HelpCode]:
    assert verdict.refusal is not None
    return [one.code for one in verdict.refusal.helps]


def name(node: int) -> str:
    return ALIKE.nodes[node].name


def test_a_node_that_lacks_less_than_those_that_are_told_of_is_told_of() -> None:
    before, after = before_and_after(filler(ASIDE, on=1), fillers=[filler(LAST, on=1)])
    assert before.reason.node == after.reason.node == name(LAST)
    assert nodes_of(after) - nodes_of(before) == {name(ASIDE)}


@pytest.mark.parametrize(
    ("change", "earliest", "longest"),
    [
        (filler(ASIDE, end=4), 4.0, None),
        (filler(ASIDE, end=8), 8.0, None),
        (filler(ASIDE + 1, end=10), 10.0, None),
        (filler(ASIDE, start=3), 9.0, 3.0),
    ],
    ids=["one ends within the window", "one ends sooner", "the first ends later", "one starts within it"],
)
def test_where_a_node_has_room_sooner_or_later_or_longer_that_is_told(
    change: Reservation, earliest: float, longest: float | None
) -> None:
    before, after = before_and_after(change, fillers=[filler(ASIDE + 1, end=9)])
    assert {name(ASIDE), name(ASIDE + 1)}.isdisjoint({before.reason.node, *nodes_of(before)})
    assert before.earliest == NOON + timedelta(hours=9)
    assert after.earliest == NOON + timedelta(hours=earliest)
    assert before.refusal is not None and before.refusal.longest_until is None
    until = None if longest is None else NOON + timedelta(hours=longest)
    assert after.refusal is not None and after.refusal.longest_until == until


def test_where_there_is_room_for_less_on_a_node_of_another_kind_that_would_help() -> None:
    asks, free, full = [wanted(accelerator="H100")], filler(ASIDE, end=1), filler(ASIDE)
    before, after = before_and_after(free, fillers=[full], asks=asks, on=OF_TWO_KINDS)
    assert not helps_of(before) and helps_of(after) == [HelpCode.ANY_ACCELERATOR]
    before, after = before_and_after(full, fillers=[free], asks=asks, on=OF_TWO_KINDS)
    assert helps_of(before) == [HelpCode.ANY_ACCELERATOR] and not helps_of(after)


def test_where_only_figures_are_told_they_are_of_the_node_that_has_most_by_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verdicts, "CELLS", 0)  # so few are told whole
    asks = [wanted(9), *map(wanted, range(8))]
    before, after = before_and_after(filler(ASIDE, on=1), asks=asks)
    assert before.refusal is None and not before.considered
    assert (before.reason.node, after.reason.node) == (name(LAST), name(ASIDE))
    behind = booking("org/m99", 3, 10, key="behind", booked=-1, gpus=2)
    before, after = before_and_after(filler(LAST, end=3), behind, asks=asks)
    assert (before.reason.by, after.reason.by) == (("org/m39",), ("org/m39", "org/m99"))


def test_a_node_that_comes_before_none_of_those_that_are_told_of_makes_no_other_verdict() -> None:
    before, after = before_and_after(filler(ASIDE, end=11))
    assert after is before


def test_where_its_model_comes_to_a_node_it_could_be_there_then() -> None:
    theirs = booking("org/m100", 5.5, 10, key="theirs", booked=-1, gpus=2)
    before, after = before_and_after(filler(ASIDE, end=5.5), theirs)
    assert before.earliest == NOON + timedelta(hours=10)
    assert after.earliest == NOON + timedelta(hours=5.5)
