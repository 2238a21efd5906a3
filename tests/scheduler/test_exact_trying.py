"""Second opinions against trying everything, and that whatever is found can be done."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given, seed, settings
from hypothesis import strategies as st

from scheduler.planning.admission import Admission
from scheduler.planning.book import Seat
from scheduler.planning.exact import Limits, OpinionState, follow, question, solve
from scheduler.planning.holds import Ask, Hold
from tests.examples import examples
from tests.scheduler.builders import gpus
from tests.scheduler.exact_desk import SECONDS, admission, assert_kept, booked, kept, overbooked


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
@settings(max_examples=examples(60), deadline=None, database=None)
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


@seed(20260303)
@settings(max_examples=examples(40), deadline=None, database=None)
@given(layouts(), asks("asked"), st.sampled_from([0.0, 3600.0, 7200.0]))
def test_what_is_too_far_to_be_looked_at_proves_nothing(there: Admission, ask: Ask, reach: float) -> None:
    opinion = solve(question(there, ask, limits=Limits(reach_seconds=reach)), SECONDS)
    if opinion.state is OpinionState.FOUND:
        before = list(there.holds.values())
        assert follow(there, ask, opinion)
        assert_kept(there, before)
    elif opinion.state is OpinionState.PROVEN:
        assert not by_trying(there, ask, without_weaker=True)


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
