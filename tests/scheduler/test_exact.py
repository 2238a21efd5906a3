"""Second opinions: against trying everything, and that what was found is what is done."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from scheduler.cluster.node import Cluster, Node
from scheduler.planning.admission import Admission, Ask, Hold
from scheduler.planning.book import WHOLE, Book, Need, Seat
from scheduler.planning.exact import (
    Limits,
    OpinionState,
    follow,
    question,
    solve,
)
from scheduler.planning.exact.asking import count_terms
from tests.scheduler.builders import GIB, cluster, cpu, gpus

SECONDS = 20.0
HOUR = 3600.0


def at(hour: float) -> float:
    return (24 + hour) * HOUR


def booked(
    name: str,
    gib: float,
    start: float,
    end: float,
    *,
    gpus: int | None = 1,
    replicas: int = 1,
    priority: int = 0,
    model: str | None = None,
) -> Ask:
    """A booking; times in hours."""
    need = Need(int(gib * GIB), gpus)
    return Ask(name, model or name, need, replicas, at(start), at(end), priority=priority)


def admission(*nodes: Node, now: float = -1.0) -> Admission:
    return Admission(Book(cluster(*nodes)), at(now))


def kept(there: Admission, ask: Ask, node: str, *, settled: bool = False) -> None:
    """What was promised before, on a node."""
    there.asks[ask.key] = ask
    seat = there.book.room_on(there.book.index[node], ask.need, ask.start, ask.end)
    assert seat is not None
    own = frozenset({ask.key})
    there._put(Hold(-1, ask.model, ask.need, seat, ask.start, ask.end, own, ask.priority, settled))
    there._journal.clear()


def places(there: Admission) -> dict[str, str]:
    """The node of each stay, by model."""
    return {hold.model: there.book.nodes[hold.seat.node].name for hold in there.holds.values()}


# Trying everything


def instants(holds: Iterable[Hold]) -> list[float]:
    return sorted({hold.start for hold in holds})


def overbooked(nodes: Iterable[Node], holds: Iterable[Hold]) -> bool:
    """Whether at some instant a node has more on it than it has."""
    held = list(holds)
    for instant in instants(held):
        for number, node in enumerate(nodes):
            there = [h for h in held if h.seat.node == number and h.start <= instant < h.end]
            lanes: dict[int, int] = {}
            for hold in there:
                if hold.seat.lane is not None:
                    lanes[hold.seat.lane] = lanes.get(hold.seat.lane, 0) + hold.seat.units
            whole = sum(hold.seat.units for hold in there if hold.seat.lane is None)
            if any(units > WHOLE for units in lanes.values()) or whole + len(lanes) > len(node.devices):
                return True
    return False


def seats(there: Admission, hold: Hold) -> Iterator[Hold]:
    """Every way to seat a stay: on each node, and on each of as many lanes as could ever matter."""
    fit = there.book.fit(hold.need)
    for number, node in enumerate(there.book.nodes):
        whole, share = int(fit.whole[number]), int(fit.share[number])
        if whole:
            yield replace(hold, seat=Seat(number, None, whole))
        elif share:
            used = {h.seat.lane for h in there.holds.values() if h.seat.node == number} - {None}
            for lane in [*sorted(used), *(1000 + new for new in range(len(node.devices)))]:
                yield replace(hold, seat=Seat(number, lane, share))


def packable(there: Admission, fixed: list[Hold], rest: list[Hold]) -> bool:
    """Whether the rest finds seats beside what is fixed, by trying all."""
    if overbooked(there.book.nodes, fixed):
        return False
    return not rest or any(packable(there, [*fixed, one], rest[1:]) for one in seats(there, rest[0]))


def by_trying(there: Admission, ask: Ask, without_weaker: bool = False) -> bool:
    """Whether a booking finds room with everything else kept, or all but what is weaker and has not begun."""
    holds = list(there.holds.values())
    fixed = [hold for hold in holds if hold.settled]
    rest = [h for h in holds if not h.settled and not (without_weaker and h.priority < ask.priority)]
    start, own = max(ask.start, there.at), frozenset({ask.key})
    mine = Hold(-1, ask.model, ask.need, Seat(0, None, 0), start, ask.end, own, ask.priority)
    return packable(there, fixed, [mine] * ask.replicas + rest)


sizes = st.sampled_from(
    [(10.0, None), (20.0, None), (30.0, None), (35.0, 1), (50.0, None), (70.0, 1), (70.0, 2)]
)
shapes = st.lists(st.tuples(st.integers(1, 2), st.sampled_from([40.0, 80.0])), min_size=1, max_size=3)


@st.composite
def asks(draw: st.DrawFn, name: str) -> Ask:
    gib, asked = draw(sizes)
    start, hours, priority = (
        draw(st.integers(1, 6)),
        draw(st.integers(1, 4)),
        draw(st.sampled_from([0, 0, 1])),
    )
    return booked(name, gib, start, start + hours, gpus=asked, priority=priority)


@st.composite
def layouts(draw: st.DrawFn) -> Admission:
    """Stays wherever they happen to be, some of them running."""
    nodes = [gpus(f"n{number}", *shape) for number, shape in enumerate(draw(shapes))]
    there = admission(*nodes, now=0)
    for number in range(draw(st.integers(2, 6))):
        ask, node = draw(asks(f"b{number}")), draw(st.integers(0, len(nodes) - 1))
        running = draw(st.sampled_from([False, False, False, True]))
        if there.book.room_on(node, ask.need, ask.start, ask.end):
            kept(there, ask, f"n{node}", settled=running)
    return there


@seed(20260302)
@settings(max_examples=300, deadline=None, database=None)
@given(layouts(), asks("asked"))
def test_agrees_with_trying_everything(there: Admission, ask: Ask) -> None:
    asked = question(there, ask)
    opinion = solve(asked, SECONDS)
    if by_trying(there, ask):
        assert opinion.state is OpinionState.FOUND
        before = list(there.holds.values())
        assert follow(there, ask, opinion)
        assert there.covered(ask) == ask.replicas
        assert_kept(there, before)
    elif asked.complete and not by_trying(there, ask, without_weaker=True):
        assert opinion.state is OpinionState.PROVEN
    else:
        assert opinion.state is OpinionState.NOT_FOUND


def assert_kept(there: Admission, before: Iterable[Hold]) -> None:
    """Nothing is overbooked, what had started stands where it stood, and nothing is lost."""
    now = list(there.holds.values())
    assert not overbooked(there.book.nodes, now)
    assert as_booked(there)
    for old in before:
        same = [hold for hold in now if hold.model == old.model and old.keys <= hold.keys]
        assert any(hold.start <= old.start and hold.end >= old.end for hold in same)
        if old.settled:
            assert any(hold.seat == old.seat and hold.settled for hold in same)


def as_booked(there: Admission) -> bool:
    """Whether the book says what the holds do."""
    book = there.book
    again = Book(Cluster(nodes=book.nodes), book.edges)
    for lane in range(book.fixed, book.lane_count):
        again.lanes_of.setdefault(int(book._lane_node[lane]), []).append(lane)
    again.lanes.widen(np.full(book.lanes.tree.shape[1] - book.fixed, WHOLE, dtype=np.int32))
    again._lane_node, again.lane_count = book._lane_node, book.lane_count
    for hold in there.holds.values():
        again.take(hold.seat, hold.start, hold.end)
    return all(
        (
            mine.tree[mine.size : mine.size + len(book.edges)]
            == theirs.tree[theirs.size : theirs.size + len(book.edges)]
        ).all()
        for mine, theirs in ((book.pool, again.pool), (book.lanes, again.lanes))
    )


# Cases


def chain() -> tuple[Admission, Ask]:
    """What has to move can only move if what is there moves, too."""
    there = admission(gpus("large", 1, 80), gpus("middle", 1, 40), gpus("small", 1, 24))
    kept(there, booked("a", 35, 0, 4), "large")
    kept(there, booked("b", 20, 0, 4), "middle")
    return there, booked("c", 70, 1, 3)


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


def test_two_large_ones_do_not_share_one_large_node() -> None:
    """Counted in GPUs there is enough; counted in nodes there is not."""
    there = admission(gpus("large", 4, 80), gpus("a", 2, 80), gpus("b", 2, 80), gpus("c", 2, 80))
    kept(there, booked("first", 300, 0, 4, gpus=4), "large")
    assert question(there, booked("second", 230, 1, 2, gpus=3)).full_at == at(1)


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
    return dict(there.holds), dict(there.asks), list(there._journal)


@pytest.mark.parametrize("what", ["moved", "started", "gone", "taken", "edited", "node lost"])
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
        there = admission(gpus("large", 1, 80), gpus("middle", 1, 40))
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


def of_few_models(chance: random.Random) -> list[Ask]:
    """Bookings of few models, so that they overlap and touch each other."""
    asks = []
    for number in range(chance.randint(4, 8)):
        model = chance.randint(0, 3)
        gib, asked = [(20.0, None), (35.0, 1), (70.0, 1), (45.0, None)][model]
        start, replicas = chance.randint(0, 5), chance.choice([1, 1, 2])
        end = start + chance.randint(1, 4)
        asks.append(booked(f"b{number}", gib, start, end, gpus=asked, replicas=replicas, model=f"m{model}"))
    return asks


def test_what_is_found_can_be_done_whatever_is_shared() -> None:
    chance, found = random.Random(5), 0
    for _ in range(1_000):
        shapes = [(chance.choice([1, 2]), chance.choice([40.0, 80.0])) for _ in range(chance.randint(1, 3))]
        there = admission(*(gpus(f"n{number}", *shape) for number, shape in enumerate(shapes)), now=0)
        for ask in of_few_models(chance):
            if not there.book.possible(ask.need) or there.admit(ask, settle_for_less=True)[0] == ask.replicas:
                continue
            opinion = solve(question(there, ask), SECONDS)
            if opinion.state is OpinionState.FOUND:
                found += 1
                before = list(there.holds.values())
                assert follow(there, ask, opinion)
                assert there.covered(ask) == ask.replicas
                assert_kept(there, before)
    assert found > 10
