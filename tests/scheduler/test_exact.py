"""Second opinions: what is found, what is proven, and what becomes of opinions that are out of date."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler.planning.admission import Admission
from scheduler.planning.exact import (
    Limits,
    OpinionState,
    follow,
    question,
    solve,
)
from scheduler.planning.exact.asking import count_terms
from scheduler.planning.holds import Ask
from scheduler.planning.needs import Need
from tests.scheduler.builders import GIB, cpu, gpus
from tests.scheduler.exact_desk import (
    SECONDS,
    admission,
    as_booked,
    at,
    booked,
    chain,
    kept,
    overbooked,
    places,
)

# Cases


def test_finds_what_moving_one_by_one_does_not() -> None:
    there, ask = chain()
    assert there.admit(ask) == (0, [])
    opinion = solve(question(there, ask), SECONDS)
    assert opinion.state is OpinionState.FOUND
    assert [(move.stay.model, move.home, move.node) for move in opinion.moves] == [
        ("a", "large", "middle"),
        ("b", "middle", "small"),
    ]
    assert [(seat.node, seat.lane) for seat in opinion.seats] == [("large", None)]
    assert follow(there, ask, opinion)
    assert places(there) == {"a": "middle", "b": "small", "c": "large"}
    assert there.covered(ask) == 1
    assert as_booked(there)


def test_moves_no_more_than_it_must() -> None:
    there, ask = chain()
    idle = [booked(f"idle{number}", 20, 10 + number, 11 + number) for number in range(6)]
    for one in idle:
        kept(there, one, "middle")
    opinion = solve(question(there, ask), SECONDS)
    assert {move.stay.model for move in opinion.moves} == {"a", "b"}


def test_what_has_started_is_not_moved() -> None:
    there = admission(gpus("large", 1, 80), gpus("middle", 1, 40), now=1)
    kept(there, booked("a", 35, 0, 4), "large", settled=True)
    asked = question(there, booked("c", 70, 2, 3))
    assert (asked.hopeless, asked.full_at) == (True, at(2))


def test_a_proof_names_the_instant_at_which_it_is_full() -> None:
    there = admission(gpus("one", 2, 80), gpus("two", 2, 80))
    kept(there, booked("a", 100, 3, 9, gpus=2), "one")
    kept(there, booked("b", 100, 5, 7, gpus=2), "two")
    opinion = solve(question(there, booked("c", 70, 1, 8)), SECONDS)
    assert (opinion.state, opinion.full_at) == (OpinionState.PROVEN, at(5))


def test_a_proof_counts_by_node_where_by_gpus_there_is_enough() -> None:
    there = admission(gpus("one", 5, 80), gpus("two", 5, 80))
    kept(there, booked("a", 200, 0, 4, gpus=3), "one")
    kept(there, booked("b", 200, 0, 4, gpus=3), "two")
    assert question(there, booked("c", 200, 1, 2, gpus=3)).full_at == at(1)


def test_nothing_is_proven_by_what_is_out_of_reach() -> None:
    there = admission(gpus("large", 1, 80), gpus("middle", 1, 40), gpus("small", 1, 24))
    kept(there, booked("a", 35, 2, 12), "large")
    kept(there, booked("b", 20, 10, 14), "middle")
    ask = booked("c", 70, 1, 3)
    near = question(there, ask, limits=Limits(reach_seconds=0))
    assert (len(near.pieces), near.complete) == (2, True)
    assert solve(near, SECONDS).state is OpinionState.NOT_FOUND
    assert solve(question(there, ask), SECONDS).state is OpinionState.FOUND


def never_full() -> tuple[Admission, Ask]:
    """A GPU is free at every instant, but whatever moves, no one GPU is free throughout."""
    there = admission(gpus("one", 1, 80), gpus("two", 1, 80))
    kept(there, booked("s", 70, 0, 1), "one", settled=True)
    kept(there, booked("t", 70, 5, 6), "two", settled=True)
    kept(there, booked("a", 70, 0, 3), "two")
    kept(there, booked("b", 70, 3, 6), "one")
    return there, booked("c", 70, 2, 4)


def test_a_proof_where_at_no_instant_all_is_full() -> None:
    there, ask = never_full()
    asked = question(there, ask)
    assert (asked.hopeless, asked.complete) == (False, True)
    opinion = solve(asked, SECONDS)
    assert (opinion.state, opinion.full_at) == (OpinionState.PROVEN, None)


def test_no_room_beside_what_has_started_is_known_at_once() -> None:
    there = admission(gpus("one", 1, 80), gpus("two", 1, 80))
    kept(there, booked("s", 70, 0, 2), "one", settled=True)
    kept(there, booked("t", 70, 2, 4), "two", settled=True)
    asked = question(there, booked("c", 70, 1, 3))
    assert (asked.hopeless, asked.full_at) == (True, None)


def test_nothing_is_proven_while_weaker_bookings_could_go() -> None:
    there = admission(gpus("one", 1, 80))
    kept(there, booked("weak", 70, 1, 4), "one")
    asked = question(there, booked("strong", 70, 2, 3, priority=1))
    assert solve(asked, SECONDS).state is OpinionState.NOT_FOUND
    there = admission(gpus("one", 1, 80), now=1)
    kept(there, booked("weak", 70, 1, 4), "one", settled=True)
    assert not question(there, booked("strong", 70, 2, 3, priority=1)).complete


def test_shares_are_laid_out_anew() -> None:
    there = admission(gpus("one", 1, 80), gpus("two", 1, 80))
    for name, gib, node in (("a", 30, "one"), ("b", 30, "two"), ("c", 40, "one"), ("d", 40, "two")):
        kept(there, booked(name, gib, 1, 5, gpus=None), node)
    ask = booked("e", 18, 2, 4, gpus=None)
    assert there.admit(ask) == (0, [])
    opinion = solve(question(there, ask), SECONDS)
    assert follow(there, ask, opinion)
    assert there.covered(ask) == 1
    assert not overbooked(there.book.nodes, there.holds.values())
    assert as_booked(there)


def test_one_stay_with_what_is_there_of_the_model() -> None:
    there, ask = chain()
    kept(there, booked("before", 70, 4, 6, model="c"), "large")
    ask = replace(ask, end=at(5))
    assert there.admit(ask) == (0, [])
    opinion = solve(question(there, ask), SECONDS)
    assert [(seat.stay.start, seat.stay.end) for seat in opinion.seats] == [(at(1), at(4))]
    assert follow(there, ask, opinion)
    (stay,) = there.of_model("c")
    assert (stay.start, stay.end, stay.keys) == (at(1), at(6), {"before", "c"})
    assert there.covered(ask) == 1


def test_replicas_that_are_there_are_not_looked_for() -> None:
    there, ask = chain()
    kept(there, booked("there", 20, 0, 4, model="c"), "small")
    ask = replace(ask, need=Need(20 * GIB, 1), replicas=2)
    opinion = solve(question(there, ask), SECONDS)
    assert opinion.state is OpinionState.PROVEN
    kept(there, booked("more", 20, 5, 6, model="c"), "small")
    there.release("b")
    opinion = solve(question(there, ask), SECONDS)
    assert len(opinion.seats) == 1
    assert follow(there, ask, opinion)
    assert there.covered(ask) == 2


def test_nothing_comes_to_a_closed_node() -> None:
    there, ask = chain()
    closed = [node.model_copy(update={"cordoned": node.name == "small"}) for node in there.book.nodes]
    there = admission(*closed)
    kept(there, booked("a", 35, 0, 4), "large")
    kept(there, booked("b", 20, 0, 4), "middle")
    assert solve(question(there, ask), SECONDS).state is OpinionState.PROVEN


def test_devices_that_are_no_whole_gpus() -> None:
    there = admission(cpu("cpu", 64), gpus("part", 1, 80, taken=0.5))
    kept(there, booked("a", 30, 0, 4, gpus=None), "part")
    kept(there, booked("b", 30, 0, 4, gpus=None), "cpu")
    ask = booked("c", 38, 1, 2, gpus=None)
    assert there.admit(ask)[0] == 0
    opinion = solve(question(there, ask), SECONDS)
    assert follow(there, ask, opinion)
    assert places(there) == {"a": "cpu", "b": "cpu", "c": "part"}


# Opinions that are out of date


def snapshot(there: Admission) -> tuple[object, ...]:
    return dict(there.holds), dict(there.asks), there.mark()


@pytest.mark.parametrize("what", ["moved", "started", "gone", "taken", "edited", "node lost", "cordoned"])
def test_an_opinion_that_is_out_of_date_does_no_harm(what: str) -> None:
    there, ask = chain()
    opinion = solve(question(there, ask), SECONDS)
    if what == "moved":
        there.release("b")
        kept(there, booked("b", 20, 0, 4), "small")
    elif what == "started":
        there.release("a")
        kept(there, booked("a", 35, 0, 4), "large", settled=True)
    elif what == "gone":
        there.release("a")
    elif what == "taken":
        kept(there, booked("d", 20, 2, 3), "small")
    elif what == "edited":
        ask = replace(ask, end=at(2))
    else:
        nodes = [node for node in there.book.nodes if (what, node.name) != ("node lost", "small")]
        there = admission(*(node.model_copy(update={"cordoned": node.name == "small"}) for node in nodes))
        kept(there, booked("a", 35, 0, 4), "large")
        kept(there, booked("b", 20, 0, 4), "middle")
    before = snapshot(there)
    assert not follow(there, ask, opinion)
    assert snapshot(there) == before
    assert as_booked(there)


def test_only_what_was_found_is_followed() -> None:
    there, ask = never_full()
    opinion = solve(question(there, ask), SECONDS)
    assert not follow(there, ask, opinion)
    assert not follow(there, replace(ask, key="another"), replace(opinion, state=OpinionState.FOUND))


# The same answer, and bounded work


def many(nodes: int, stays: int) -> tuple[Admission, Ask]:
    """A cluster full of small shares, and a booking that finds no room."""
    there = admission(*(gpus(f"n{number:03}", 8, 80) for number in range(nodes)))
    for number in range(stays):
        start = 1 + number % 7
        there.admit(booked(f"s{number:04}", 11 + number % 5, start, start + 5, gpus=None))
    return there, booked("big", 600, 2, 9, gpus=8)


def test_the_same_question_has_the_same_answer() -> None:
    there, ask = many(2, 40)
    first, again = question(there, ask), question(there, ask)
    assert (first, first.digest) == (again, again.digest)
    one = solve(first, 2.0)
    assert one == solve(again, 2.0)
    assert one.state is not OpinionState.PROVEN


def test_a_question_changes_with_what_is_asked_and_what_is_there() -> None:
    there, ask = chain()
    digests = {question(there, ask).digest}
    digests.add(question(there, replace(ask, end=ask.end + 1)).digest)
    there.release("b")
    digests.add(question(there, ask).digest)
    assert len(digests) == 3


@pytest.mark.parametrize(
    "limits", [Limits(), Limits(nodes=4, pieces=30, terms=500), Limits(pieces=0), Limits(nodes=0)]
)
def test_questions_are_no_larger_than_the_limits(limits: Limits) -> None:
    there, ask = many(12, 700)
    asked = question(there, ask, limits=limits)
    assert len(asked.rooms) <= max(limits.nodes, 3)
    assert len(asked.pieces) <= max(limits.pieces, 1)
    assert count_terms(asked) <= limits.terms


@pytest.mark.parametrize(
    "ask",
    [
        booked("many", 20, 1, 2, gpus=None, replicas=10**6),
        booked("centuries", 20, 1, 10**7, gpus=8),
        booked("past", 20, -5, -1),
        booked("nothing", 20, 1, 1),
        booked("backwards", 20, 2, 1),
        booked("huge", 10**6, 1, 2, gpus=None),
        booked("negative", -5, 1, 2, gpus=None),
    ],
    ids=lambda ask: ask.key,
)
def test_hostile_bookings_get_an_answer(ask: Ask) -> None:
    there, _ = many(4, 60)
    asked = question(there, ask)
    assert len(asked.pieces) <= Limits().pieces
    assert count_terms(asked) <= Limits().terms
    opinion = solve(asked, 0.2)
    if opinion.state is OpinionState.FOUND:
        assert follow(there, ask, opinion)
