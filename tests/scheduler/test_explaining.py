"""What a refusal tells is true, and as much as can be told."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest

from calendars.reservation import Reservation
from scheduler.cluster.node import Cluster, Node
from scheduler.planning.admission import Admission
from scheduler.planning.book import Book
from scheduler.planning.holds import Ask
from scheduler.planning.needs import Need
from scheduler.planning.verdicts import MAX_EXPLAINED, MAX_FIGURES
from scheduler.render.refusals import around, node_lines
from scheduler.render.sentences import sentence
from scheduler.types import (
    Candidacy,
    HelpCode,
    NodeAnswer,
    NodeCount,
    Plan,
    ReasonCode,
    Refusal,
    Verdict,
    VerdictState,
)
from tests.scheduler.builders import NOON, booking, cluster, cpu, gpus, known, planned

SIZES = known(
    **{f"m{gib}{letter}": float(gib) for gib in (7, 14, 30, 60, 80, 140, 300) for letter in "abcdef"}
)
ONE_GPU = cluster(gpus("x", 1, 80))


def asked(name: str, model: str, start: float, end: float, booked: float = -1, **more: object) -> Reservation:
    """A booking by its own name, which is its title, too."""
    made = booking(f"org/{model}", start, end, key=name, booked=booked, **more)  # type: ignore[arg-type]
    return made.model_copy(update={"title": name})


def told(plan: Plan, name: str) -> Verdict:
    return next(one for one in plan.verdicts if one.event == name)


def refusal(plan: Plan, name: str) -> Refusal:
    found = told(plan, name)
    assert found.state is VerdictState.REFUSED and found.refusal is not None
    return found.refusal


def said_of(plan: Plan, name: str, node: str) -> NodeAnswer:
    return next(one for one in told(plan, name).considered if one.node == node)


def met(bookings: Iterable[Reservation], on: Cluster, name: str, previous: Plan) -> bool:
    return told(planned(bookings, on, SIZES, previous=previous), name).state is not VerdictState.REFUSED


def hours(instant: datetime | None) -> float | None:
    return None if instant is None else (instant - NOON) / timedelta(hours=1)


def kind(node: Node, accelerator: str) -> Node:
    return node.model_copy(update={"accelerator": accelerator})


# Fewer GPUs, and other changes to a booking


@pytest.mark.parametrize(
    ("on", "others", "wanted", "offered"),
    [
        (ONE_GPU, [asked("a", "m14a", 0, 4, -20)], asked("b", "m14b", 1, 3, -3, gpus=1), None),
        (
            cluster(gpus("x", 4, 80)),
            [asked("a", "m14a", 0, 4, -21), asked("c", "m14c", 0, 4, -20, gpus=3)],
            asked("b", "m14b", 1, 3, -3, gpus=2),
            None,
        ),
        (
            cluster(gpus("x", 8, 80)),
            [asked("c", "m14c", 0, 4, -20, gpus=5)],
            asked("b", "m140a", 1, 3, -9, gpus=8),
            "3",
        ),
        (
            cluster(gpus("x", 8, 80)),
            [asked("c", "m14c", 0, 4, -20, gpus=7)],
            asked("b", "m140a", 1, 3, -9, gpus=4),
            None,
        ),
        (
            cluster(gpus("x", 8, 80), gpus("y", 2, 80)),
            [],
            asked("b", "m14b", 1, 3, replicas=2, gpus=8),
            "4",
        ),
        (cluster(cpu("x", 32)), [], asked("b", "m14b", 1, 3, gpus=1), None),
        (cluster(gpus("x", 8, 80)), [], asked("b", "m14b", 1, 3, gpus=9), "8"),
    ],
    ids=["asks for one", "only shares", "some", "too few for it", "two replicas", "a CPU", "too large"],
)
def test_fewer_gpus_are_so_many_as_fit_when_they_are_written_into_the_booking(
    on: Cluster, others: list[Reservation], wanted: Reservation, offered: str | None
) -> None:
    plan = planned([*others, wanted], on, SIZES)
    found = [one.value for one in refusal(plan, "b").helps if one.code is HelpCode.FEWER_GPUS]
    assert found == ([offered] if offered else [])
    for number in range(1, wanted.request.gpus or 1):
        request = wanted.request.model_copy(update={"gpus": number})
        fits = met([*others, wanted.model_copy(update={"request": request})], on, "b", plan)
        assert fits == (offered is not None and number <= int(offered))


def test_what_was_got_of_several_replicas_does_not_hide_what_would_help_all() -> None:
    on = cluster(gpus("x", 1, 40))
    plan = planned([asked("b", "m30a", 1, 3, replicas=2)], on, SIZES)
    assert [(one.code, one.value) for one in refusal(plan, "b").helps] == [
        (HelpCode.FEWER_REPLICAS, "1"),
        (HelpCode.SMALLER_DTYPE, "int8"),
    ]
    assert met([asked("b", "m30a", 1, 3, replicas=2, dtype="int8")], on, "b", plan)


# When, and for how long


def test_the_longest_window_is_told_of_several_replicas() -> None:
    on = cluster(gpus("x", 1, 40), gpus("y", 1, 40))
    other = asked("a", "m30b", 3, 6, -30)
    plan = planned([other, asked("b", "m30a", 1, 5, replicas=2)], on, SIZES)
    assert hours(refusal(plan, "b").longest_until) == 3
    assert met([other, asked("b", "m30a", 1, 3, replicas=2)], on, "b", plan)


def test_the_earliest_slot_may_be_beside_a_stay_of_its_own_model() -> None:
    before, own = asked("before", "m80a", 0, 3, -30), asked("own", "m80b", 4, 7, -20)
    plan = planned([before, own, asked("b", "m80b", 1, 3)], ONE_GPU, SIZES)
    assert hours(refusal(plan, "b").earliest) == 3
    assert met([before, own, asked("b", "m80b", 3, 5)], ONE_GPU, "b", plan)


def test_the_earliest_slot_is_not_beside_a_stay_of_its_own_model_that_takes_other_gpus() -> None:
    on = cluster(gpus("x", 3, 80))
    others = [asked("own", "m14a", 1, 6, -30, gpus=1), asked("other", "m60a", 0, 2, -20, gpus=2)]
    plan = planned([*others, asked("b", "m14a", 0.5, 2.5, gpus=2)], on, SIZES)
    assert hours(refusal(plan, "b").earliest) == 6
    assert met([*others, asked("b", "m14a", 6, 8, gpus=2)], on, "b", plan)


def test_the_longest_window_goes_on_from_a_stay_of_its_own_model_which_is_not_in_the_way() -> None:
    own, after = asked("own", "m80b", 0, 3, -20), asked("after", "m80a", 4, 7, -30)
    plan = planned([own, after, asked("b", "m80b", 1, 5)], ONE_GPU, SIZES)
    assert hours(refusal(plan, "b").longest_until) == 4
    assert refusal(plan, "b").in_the_way == ("after",)
    assert met([own, after, asked("b", "m80b", 1, 4)], ONE_GPU, "b", plan)


def test_of_a_node_is_told_until_when_there_is_enough_and_from_when_there_is_more() -> None:
    taken = [asked("a", "m80a", 2, 4, -20), asked("c", "m80c", 4, 6, -10), asked("d", "m80d", 7, 9, -9)]
    plan = planned([*taken, asked("b", "m80b", 1, 5)], ONE_GPU, SIZES)
    answer = said_of(plan, "b", "x")
    assert (hours(answer.free_until), hours(answer.free_from)) == (2, 6)
    (line,) = node_lines(told(plan, "b"), NOON, UTC)
    assert line.endswith("held by org/m80a and org/m80c; enough until 14:00, more from 18:00 on")


def test_what_is_free_of_a_shared_gpu_is_followed_lane_by_lane() -> None:
    """20 GiB beside the first until the second comes, then 6, and more when the first is gone."""
    taken = [asked("a", "m60a", 0, 6, -20), asked("c", "m14c", 3, 8, -10)]
    plan = planned([*taken, asked("b", "m14b", 1, 5)], ONE_GPU, SIZES)
    answer = said_of(plan, "b", "x")
    assert (hours(answer.free_until), hours(answer.free_from)) == (3, 6)
    assert round(answer.free_bytes / 1024**3) == 6


def test_no_time_is_told_of_a_node_of_another_kind() -> None:
    on = cluster(kind(gpus("x", 1, 80), "L4"), kind(gpus("y", 1, 80), "H100"))
    others = [
        asked("a", "m80a", -1, 2, -20, accelerator="L4"),
        asked("b", "m80b", -1, 2, -19, accelerator="H100"),
    ]
    plan = planned([*others, asked("c", "m80c", 1, 3, -1, accelerator="L4")], on, SIZES)
    assert [(one.node, hours(one.free_from)) for one in told(plan, "c").considered] == [("x", 2), ("y", None)]


# What is in the way


def test_the_bookings_in_the_way_are_the_fewest() -> None:
    """Of three short ones one after the other, and two that go on all the time."""
    on = cluster(gpus("x", 4, 80))
    short = [asked(f"short{n}", f"m14{'abc'[n]}", n, n + 1, -30 + n, gpus=2) for n in range(3)]
    long = [asked(f"long{n}", f"m14{'de'[n]}", 0, 90, -20, gpus=1) for n in range(2)]
    plan = planned([*short, *long, asked("b", "m14f", 0, 3, gpus=2)], on, SIZES)
    assert refusal(plan, "b").in_the_way == ("long0", "long1")


def test_of_a_stay_of_several_bookings_those_in_the_window_are_in_the_way() -> None:
    first, second = asked("first", "m80a", 0, 3, -30), asked("second", "m80a", 3, 6, -29)
    plan = planned([first, second, asked("b", "m80b", 4, 5)], ONE_GPU, SIZES)
    assert refusal(plan, "b").in_the_way == ("second",)


@pytest.mark.parametrize(
    ("replicas", "words"),
    [(2, "In the way: “a”."), (3, "In the way of one more replica: “a”.")],
    ids=["one is short", "two are"],
)
def test_what_is_in_the_way_of_several_replicas_frees_room_for_one(replicas: int, words: str) -> None:
    on = cluster(gpus("x", 1, 80), gpus("y", 1, 80))
    plan = planned([asked("a", "m80a", 0, 4, -30), asked("b", "m80b", 1, 3, replicas=replicas)], on, SIZES)
    assert words in list(around(told(plan, "b"), NOON, UTC))


# What is told when not all is


def many(count: int) -> list[Reservation]:
    """A GPU that is shared by 30 GiB for days, and so many bookings that find no room beside that."""
    other = asked("share", "m60a", -1, 80, -29)
    return [
        other,
        *(asked(f"r{n:03}", f"m60{'bcdef'[n % 5]}", 1 + n / 2, 1.4 + n / 2, -20) for n in range(count)),
    ]


def test_a_refusal_that_is_not_explained_has_a_true_reason() -> None:
    plan = planned(many(MAX_EXPLAINED + MAX_FIGURES + 10), ONE_GPU, SIZES)
    refused = [one for one in plan.verdicts if one.state is VerdictState.REFUSED]
    explained = [one for one in refused if one.refusal is not None]
    assert len(explained) == MAX_EXPLAINED
    reasons = {sentence(one.reason) for one in refused}
    assert reasons == {
        "it needs 60.0 GiB on one device; the most that is free is 20.0 GiB on x, where org/m60a runs",
        "it needs 60.0 GiB on one device, and no open node has that free for as long as it lasts",
    }
    bare = [one for one in refused if one.reason.node is None]
    assert len(bare) == 10 and min(bare[0].start for _ in bare) > max(one.start for one in explained[:-1])


def test_who_booked_last_is_told_all_however_far_ahead() -> None:
    bookings = many(MAX_EXPLAINED + 10)
    last = asked("last", "m60f", 70, 72, booked=-1)
    plan = planned([*bookings, last], ONE_GPU, SIZES)
    assert refusal(plan, "last").in_the_way == ("share",)


def test_the_largest_node_is_told_of_all_there_are() -> None:
    on = cluster(*(gpus(f"n{number:02}", 1, 24) for number in range(39)), gpus("z", 8, 80))
    verdict = told(planned([asked("b", "m300a", 1, 3, gpus=9)], on, SIZES), "b")
    assert verdict.reason.code is ReasonCode.TOO_LARGE
    assert (verdict.reason.node, verdict.reason.free_gpus, verdict.reason.needed_gpus) == ("z", 8, 9)
    assert verdict.considered[0].node == "z"
    assert verdict.candidates == (NodeCount(candidacy=Candidacy.NEVER, nodes=40),)
    *_, last = node_lines(verdict, NOON)
    assert last == "and 36 more nodes (of all 40: 40 that never could); --json has 28 of them"


def test_the_node_that_comes_nearest_is_found_among_all() -> None:
    """Half of what it takes is nearer than nothing of it, though two GPUs are short and not one."""
    on = cluster(*(gpus(f"n{number:02}", 1, 400) for number in range(40)), gpus("z", 8, 80))
    taken = [
        asked("a", "m300c", 0, 4, -30, gpus=1, replicas=40),
        asked("z", "m30b", 0, 4, -40, gpus=6),
    ]
    plan = planned([*taken, asked("b", "m300a", 1, 3)], on, SIZES)
    said = sentence(told(plan, "b").reason)
    assert said == "it needs 4 GPUs empty on one node; z comes nearest, with 2 GPUs, where org/m30b runs"


def test_a_kind_of_gpu_that_no_node_has_is_named() -> None:
    on = cluster(kind(gpus("x", 8, 80), "L4"), cpu("y", 64))
    verdict = told(planned([asked("b", "m14b", 1, 3, accelerator="H100")], on, SIZES), "b")
    assert sentence(verdict.reason) == "it asks for H100, and the cluster has L4"


def test_a_node_that_is_closed_is_not_told_as_having_most() -> None:
    closed = gpus("x", 1, 80).model_copy(update={"cordoned": True})
    verdict = told(planned([asked("b", "m14b", 1, 3)], cluster(closed), SIZES), "b")
    assert verdict.reason.code is ReasonCode.NO_ROOM
    assert sentence(verdict.reason).endswith("no open node has that free for as long as it lasts")


def test_what_would_fit_takes_nothing_from_anybody_whoever_lost_a_promise() -> None:
    """What is told of a refusal is true in the next plan, too, when nobody makes way for it any more."""
    admission = Admission(Book(ONE_GPU))
    need = Need(80 * 1024**3)
    later = Ask("later", "m2", need, replicas=1, start=5, end=10, booked_at=2)
    lost = Ask("lost", "m1", need, replicas=1, start=5, end=10, booked_at=1)
    assert admission.admit(later) == (1, [])
    admission.asks["lost"] = lost
    admission.robbed = frozenset({"lost"})
    assert admission.would(lost) == 0
    assert admission.admit(lost) == (1, ["later"])


def test_what_would_fit_has_the_claim_of_its_booking() -> None:
    """Whose claim is the stronger one says as what several bookings share a model."""
    claims = list[tuple[int, float, str]]()

    class Listening(Admission):
        def _seat(self, ask: Ask, used: set[int], displaced: list[str]) -> bool:
            claims.append(ask.claim)
            return super()._seat(ask, used, displaced)

    ask = Ask("b", "m1", Need(80 * 1024**3), replicas=1, start=5, end=10, priority=3, booked_at=1)
    assert Listening(Book(ONE_GPU)).would(ask) == 1
    assert claims == [ask.claim]
