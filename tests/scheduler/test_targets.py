"""From reservations to what must serve, and what each event is told."""

from __future__ import annotations

from datetime import timedelta

import pytest

from calendars.reservation import Misunderstood
from scheduler.planning.footprint import MIB, Loads, Sizing
from scheduler.planning.targets import Booked, Refused, merge, resolve
from scheduler.types import Catalog, CatalogEntry, Checkpoint, Plan, ReasonCode, Target, Tier, UnknownSize
from tests.scheduler.builders import (
    GIB,
    NOON,
    PLAIN,
    actions,
    booking,
    carried_out,
    cluster,
    gpus,
    key,
    known,
    planned,
    verdicts,
    where,
)

CATALOG = Catalog(
    entries=(
        CatalogEntry(repo_id="org/alpha", aliases=("Alpha",), dtype="float32", replicas=2),
        CatalogEntry(repo_id="org/secret", aliases=("Secret",), bookable_by=("ada@example.org", "@lab.org")),
        CatalogEntry(repo_id="org/given", parameters=2 * GIB),
        CatalogEntry(repo_id="org/code", trust_remote_code=True),
    )
)
ON = cluster(gpus("g", 8, 80))


def one_target(*bookings: object, hours: float = 0.0) -> Target:
    resolved = [resolve(one, CATALOG, known(alpha=1, a=1), PLAIN) for one in bookings]  # type: ignore[arg-type]
    group = [one for one in resolved if isinstance(one, Booked)]
    return merge(group, NOON + timedelta(hours=hours), max(one.reservation.end for one in group))


def test_a_footprint_is_parameters_at_their_dtype_and_the_padding() -> None:
    checkpoint = Checkpoint(parameters=1_000_000_000, source="test")
    assert Sizing().footprint_bytes(checkpoint, "bfloat16") == 2_300_000_000 + 500 * MIB
    assert Sizing().footprint_bytes(checkpoint, "float32") == 4_600_000_000 + 500 * MIB


def test_weights_of_a_byte_are_padded_like_those_of_two() -> None:
    checkpoint = Checkpoint(parameters=1_000_000_000, source="test")
    assert Sizing().footprint_bytes(checkpoint, "int8") == 1_300_000_000 + 500 * MIB
    assert PLAIN.footprint_bytes(checkpoint, "int8") == 1_000_000_000


def test_a_load_that_was_measured_as_no_time_at_all_is_reckoned() -> None:
    node, measured = gpus("x", 1, 80), {("m", "gpu", Tier.REMOTE): float("nan")}
    assert Loads(PLAIN, measured).lead_seconds("m", node, GIB) == Loads(PLAIN).lead_seconds("m", node, GIB)


def test_an_alias_a_repo_id_and_any_case_of_them_mean_the_same_model() -> None:
    target = one_target(
        booking("alpha", key="1"), booking("ORG/Alpha", key="2"), booking("org/alpha", key="3")
    )
    assert target.model.repo_id == "org/alpha"
    assert target.names == ("org/alpha", "Alpha")
    assert target.reservations == ("1", "2", "3")


def test_what_the_event_says_beats_the_catalog_and_that_the_checkpoint() -> None:
    assert one_target(booking("alpha")).dtype == "float32"
    assert one_target(booking("alpha", dtype="float16")).dtype == "float16"
    assert one_target(booking("org/a")).dtype == "bfloat16"
    assert one_target(booking("alpha")).replicas == 2
    assert one_target(booking("alpha", replicas=3)).replicas == 3


@pytest.mark.parametrize(
    ("hours", "there"), [(-0.02, False), (-0.016, True), (0, True), (0.999, True), (1, False)]
)
def test_a_booking_counts_from_its_lead_before_the_start_up_to_but_not_at_its_end(
    hours: float, there: bool
) -> None:
    """The lead is a minute, and a second for the GiB."""
    plan = planned([booking("org/a", start=0, end=1)], ON, known(a=1), at=NOON + timedelta(hours=hours))
    assert bool(plan.placements) is there


def test_bookings_of_one_model_are_one_target_with_the_most_replicas_and_the_latest_end() -> None:
    target = one_target(
        booking("org/a", end=1, key="1", replicas=3), booking("org/a", end=2, key="2", booked=-50)
    )
    assert (target.replicas, target.until) == (3, NOON + timedelta(hours=2))
    assert target.booked_at == NOON - timedelta(hours=50), "the strongest claim counts"


def test_back_to_back_bookings_of_one_model_are_one_stay() -> None:
    first, second = booking("org/a", start=-1, end=0, key="1"), booking("org/a", start=0, end=1, key="2")
    before = planned([first, second], ON, known(a=1), at=NOON - timedelta(seconds=1))
    after = planned([first, second], ON, known(a=1), running=carried_out(before), at=NOON)
    assert [action.kind.value for action in after.actions if action.model] == ["update"]


def test_more_replicas_are_loaded_ahead_of_the_booking_that_asks_for_them() -> None:
    now, soon = booking("org/a", key="1"), booking("org/a", start=0.01, key="2", end=2, replicas=4)
    assert one_target(now, soon).reservations == ("1",)
    assert where(planned([now, soon], ON, known(a=1))) == {"a": {"g": 4}}
    assert where(planned([now, soon], ON, known(a=1), at=NOON - timedelta(minutes=5))) == {"a": {"g": 1}}


@pytest.mark.parametrize(
    ("written", "code", "says"),
    [
        (booking("Alhpa"), ReasonCode.UNKNOWN_MODEL, "Did you mean Alpha?"),
        (booking("lunch"), ReasonCode.UNKNOWN_MODEL, "such as Alpha"),
        (booking("Secret", owner="bob@example.org"), ReasonCode.NOT_ALLOWED, "bookable_by"),
        (booking("Secret", owner=None), ReasonCode.NOT_ALLOWED, "bookable_by"),
        (booking("org/alpha", trust_remote_code=True), ReasonCode.NOT_ALLOWED, "trust_remote_code"),
        (booking("org/unseen"), ReasonCode.SIZE_UNKNOWN, "download it"),
    ],
    ids=["misspelt", "no model", "not allowed", "nobody", "remote code", "size"],
)
def test_a_booking_that_no_cluster_can_serve_is_refused_with_a_remedy(
    written: object, code: ReasonCode, says: str
) -> None:
    sizes = known(alpha=1, secret=1) | {key("org/unseen"): UnknownSize(reason="no", remedy="download it")}
    refused = resolve(written, CATALOG, sizes, PLAIN)  # type: ignore[arg-type]
    assert isinstance(refused, Refused)
    assert refused.reason.code is code
    assert says in (refused.reason.remedy or "")


@pytest.mark.parametrize("owner", ["ada@example.org", "ADA@example.org", "anyone@lab.org"])
def test_those_who_may_book_can(owner: str) -> None:
    assert isinstance(resolve(booking("Secret", owner=owner), CATALOG, known(secret=1), PLAIN), Booked)


def test_a_size_in_the_catalog_needs_no_checkpoint() -> None:
    booked = resolve(booking("org/given"), CATALOG, {}, PLAIN)
    assert isinstance(booked, Booked)
    assert booked.footprint_bytes == 4 * GIB


def test_a_model_that_serves_is_not_taken_down_because_its_size_cannot_be_looked_up_any_more() -> None:
    first = planned([booking("org/a")], ON, known(a=7))
    for sizes in ({}, {key("org/a"): UnknownSize(reason="the Hub is away", remedy="wait")}):
        again = planned([booking("org/a")], ON, sizes, running=carried_out(first))
        assert actions(again) == []
        assert verdicts(again) == {"a": "placed: already there"}


def test_a_size_that_is_still_being_looked_up_is_no_refusal() -> None:
    pending = {key("org/a"): UnknownSize(reason="", remedy="", pending=True)}
    plan = planned([booking("org/a")], ON, pending)
    assert verdicts(plan) == {"a": "coming: looking up"}
    assert plan.refused == ()


def test_one_bad_event_never_hides_the_others() -> None:
    bad = Misunderstood(key="bad", calendar="test", title="Lunch", reason="no model", example="SmolLM2")
    plan = planned(
        [booking("org/a"), booking("nonsense"), booking("org/unseen"), booking("org/huge")],
        ON,
        known(a=1, huge=10_000) | {key("org/unseen"): UnknownSize(reason="no", remedy="download it")},
        misunderstood=(bad,),
    )
    assert where(plan) == {"a": {"g": 1}}
    assert verdicts(plan) == {
        "a": "placed: booked",
        "nonsense": "refused: unknown model",
        "unseen": "refused: size unknown",
        "huge": "refused: too large",
        "Lunch": "misunderstood: misunderstood",
    }


def test_a_booking_that_no_node_can_ever_take_is_refused_when_it_is_booked() -> None:
    plan = planned([booking("org/a", start=48, end=50)], ON, known(a=10_000))
    assert verdicts(plan) == {"a": "refused: too large"}


def test_a_booking_that_will_find_no_room_is_told_so_when_it_is_booked() -> None:
    on, sizes = cluster(gpus("g", 1, 80)), known(a=80, b=80, c=80)
    first = booking("org/a", start=24, end=30, booked=-9)
    second = booking("org/b", start=28, end=34, booked=-5)
    third = booking("org/c", start=31, end=33, booked=-1)
    assert verdicts(planned([first, second, third], on, sizes)) == {
        "a": "coming: starts later",
        "b": "refused: no room",
        "c": "coming: starts later",
    }, "what is refused holds nothing"
    slots = {v.title: v.earliest for v in planned([first, second, third], on, sizes).verdicts}
    assert slots == {
        "org/a": None,
        "org/b": NOON + timedelta(hours=33),
        "org/c": None,
    }
    apart = booking("org/b", start=30, end=34, booked=-5)
    assert verdicts(planned([first, apart], on, sizes))["b"] == "coming: starts later"


def test_a_booking_that_is_too_large_is_told_so_however_many_come_before_it() -> None:
    many = [booking("org/a", start=n, end=n + 1, key=f"k{n}") for n in range(1, 70)]
    plan = planned([*many, booking("org/huge", start=300, end=301)], ON, known(a=1, huge=10_000))
    assert verdicts(plan)["huge"] == "refused: too large"


def test_a_booking_that_starts_later_is_announced_and_its_lead_is_the_next_boundary() -> None:
    plan = planned([booking("org/a", start=48, end=50)], ON, known(a=1))
    assert verdicts(plan) == {"a": "coming: starts later"}
    assert plan.next_boundary == NOON + timedelta(hours=48) - timedelta(seconds=61)
    assert [one.names for one in plan.directory.announcements] == [("org/a",)]


def test_an_end_takes_the_model_down_and_ended_events_are_not_spoken_of() -> None:
    first = planned([booking("org/a", end=0)], ON, known(a=1), at=NOON - timedelta(minutes=1))
    plan = planned([booking("org/a", end=0)], ON, known(a=1), running=carried_out(first), at=NOON)
    assert actions(plan) == ["undeploy a g (no booking)"]
    assert plan.verdicts == ()


def test_the_same_input_gives_the_same_plan_byte_for_byte_in_any_order() -> None:
    bookings = [booking("org/a"), booking("org/b", booked=-2), booking("org/c", priority=1)]
    sizes = known(a=300, b=300, c=300)

    def text(plan: Plan) -> str:
        return plan.model_dump_json()

    assert text(planned(bookings, ON, sizes)) == text(planned(reversed(bookings), ON, sizes))


def test_the_gateway_is_told_only_when_what_it_knows_has_changed() -> None:
    plan = planned([booking("org/a")], ON, known(a=1))
    assert plan.actions[-1].reason.code is ReasonCode.GATEWAY_MISSING
    running = carried_out(plan)
    same = planned(
        [booking("org/a")], ON, known(a=1), running=running, directory_version=plan.directory.version
    )
    assert same.actions == ()
    later = booking("org/a", start=5, end=6, key="later")
    more = planned(
        [booking("org/a"), later], ON, known(a=1), running=running, directory_version=plan.directory.version
    )
    assert [action.reason.code for action in more.actions] == [ReasonCode.ROUTES_CHANGED]
