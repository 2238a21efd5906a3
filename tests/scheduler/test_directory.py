"""Private bookings: for whom a model is, whatever its bookings share."""

from __future__ import annotations

from datetime import timedelta
from typing import TypeAlias

import pytest

from calendars.reservation import Reading, Reservation
from scheduler.amend import amended
from scheduler.orders import Ordered, letting_the_operator_pass, with_orders
from scheduler.planning.plan import Known, Policy, make_plan
from scheduler.store.orders import Order, OrderKind, Orders
from scheduler.store.records import Parked
from scheduler.types import (
    ActionKind,
    Catalog,
    CatalogEntry,
    Checkpoint,
    Directory,
    Observed,
    Plan,
    ReasonCode,
    Rules,
    UnknownSize,
    VerdictState,
)
from scheduler.what_if import answer, booking_from, reading_of
from tests.scheduler.builders import NOON, booking, carried_out, cluster, gpus, key, known, planned

ON = cluster(gpus("x", 2, 10))
SIZES = known(a=5)
NONE = Orders()
Sizes: TypeAlias = dict[str, Checkpoint | UnknownSize]
ADA, BOB, EVE = "ada@e.org", "bob@e.org", "eve@e.org"
OURS = booking("org/a", key="ours", owner=ADA, people=(ADA, BOB), private=True)


def allowed(plan: Plan) -> tuple[str, ...] | None:
    (route,) = plan.directory.routes
    return route.private_to


def announced(plan: Plan) -> list[tuple[str, tuple[str, ...] | None]]:
    return [(one.names[0], one.private_to) for one in plan.directory.announcements]


def test_a_private_model_is_for_the_people_of_its_event() -> None:
    assert allowed(planned([OURS], ON, SIZES)) == (ADA, BOB)


def test_people_alone_make_nothing_private() -> None:
    assert allowed(planned([booking("org/a", people=(ADA, BOB))], ON, SIZES)) is None


def test_without_known_people_it_is_for_its_owner_and_without_owner_for_nobody() -> None:
    assert allowed(planned([booking("org/a", owner=ADA, private=True)], ON, SIZES)) == (ADA,)
    assert allowed(planned([booking("org/a", owner=None, private=True)], ON, SIZES)) == ()


def test_private_bookings_that_share_a_model_share_their_people() -> None:
    theirs = booking("org/a", key="theirs", owner=EVE, replicas=2, private=True)
    assert allowed(planned([OURS, theirs], ON, SIZES)) == (ADA, BOB, EVE)
    apart = cluster(gpus("x", 1, 10), gpus("y", 1, 10))
    plan = planned([OURS, theirs], apart, known(a=8))
    assert len(plan.placements) == 2, "on two nodes"
    assert allowed(plan) == (ADA, BOB, EVE)


def test_one_public_booking_opens_the_model_while_it_lasts() -> None:
    public = booking("org/a", key="public", start=1, end=2)
    both = [OURS.model_copy(update={"end": NOON + timedelta(hours=4)}), public]
    open_to, plan = [], None
    for hours in (0.0, 1.0, 1.9, 2.0):
        running = carried_out(plan) if plan else ()
        at = NOON + timedelta(hours=hours)
        plan = planned(both, ON, SIZES, running=running, previous=plan, at=at)
        open_to.append(allowed(plan))
    assert open_to == [(ADA, BOB), None, None, (ADA, BOB)]
    start = planned(both, ON, SIZES)
    assert start.next_boundary is not None and start.next_boundary <= public.start


def test_a_public_booking_that_is_refused_opens_nothing() -> None:
    refused = booking("org/a", key="refused", accelerator="H100")
    plan = planned([OURS, refused], cluster(gpus("x", 1, 10)), SIZES)
    (route,) = plan.directory.routes
    assert [one.event for one in plan.refused] == ["refused"]
    assert route.private_to == (ADA, BOB)


def test_what_lingers_is_no_less_private_than_it_was() -> None:
    ended = OURS.model_copy(update={"end": NOON})
    before = planned([ended], ON, SIZES, at=NOON - timedelta(minutes=1))
    after = planned(
        [ended],
        ON,
        SIZES,
        running=carried_out(before),
        at=NOON + timedelta(minutes=1),
        policy=Policy(linger_seconds=600),
    )
    assert allowed(after) == (ADA, BOB)


def test_a_private_booking_to_come_or_refused_is_told_to_its_people() -> None:
    coming = booking("org/a", start=48, end=50, owner=ADA, private=True)
    assert announced(planned([coming], ON, SIZES)) == [("org/a", (ADA,))]
    refused = booking("org/a", owner=ADA, private=True)
    assert announced(planned([refused], ON, known(a=999))) == [("org/a", (ADA,))]


def test_the_gateway_learns_of_a_new_guest() -> None:
    more = OURS.model_copy(update={"people": (ADA, BOB, EVE)})
    before, after = planned([OURS], ON, SIZES), planned([more], ON, SIZES)
    assert before.directory.version != after.directory.version


def observed(plan: Plan) -> Observed:
    return Observed(cluster=ON, deployments=carried_out(plan))


def test_what_is_parked_is_told_to_its_people() -> None:
    plan = planned([OURS], ON, SIZES)
    parked = Parked(
        model_key=key("org/a"), error="out of memory", since=NOON, tries=1, retry_at=NOON, signature=""
    )
    reading = Reading(calendar="test", reservations=(OURS,))
    ordered = with_orders((reading,), Orders(), Catalog(), NOON, NOON + timedelta(days=1))
    told = amended(plan, observed(plan), {parked.model_key: parked}, ordered)
    assert told.directory.routes == ()
    assert announced(told) == [("org/a", (ADA, BOB))]


def test_what_is_evicted_is_told_to_its_people() -> None:
    evict = Orders(orders=(Order(kind=OrderKind.EVICT, subject="org/a", since=NOON),))
    reading = Reading(calendar="test", reservations=(OURS, booking("org/b", key="b")))
    ordered: Ordered = with_orders((reading,), evict, Catalog(), NOON, NOON + timedelta(days=1))
    assert [one.event for one in ordered.evicted] == ["ours"]
    plan = planned(ordered.readings[0].reservations, ON, known(a=5, b=5))
    assert announced(amended(plan, observed(plan), {}, ordered)) == [("org/a", (ADA, BOB))]


@pytest.mark.parametrize(("by", "owner"), [("ada@desk", "ada@desk"), ("", "the operator")])
def test_a_pin_is_of_who_ordered_it_and_passes_the_rules_about_persons(by: str, owner: str) -> None:
    pin = Orders(orders=(Order(kind=OrderKind.PIN, subject="org/a", since=NOON, by=by),))
    ordered = with_orders((), pin, Catalog(), NOON, NOON + timedelta(days=1))
    rules, catalog = letting_the_operator_pass(
        Rules(organisers=("@e.org",)),
        Catalog(entries=(CatalogEntry(repo_id="org/a", bookable_by=("@e.org",)),)),
    )
    seen = Observed(cluster=ON)
    plan = make_plan(ordered.readings, seen, NOON, Known(catalog=catalog, checkpoints=SIZES, rules=rules))
    (verdict,) = amended(plan, seen, {}, ordered).verdicts
    assert (verdict.state, verdict.owner) == (VerdictState.PLACED, owner)


ALIASES = Catalog(entries=(CatalogEntry(repo_id="org/a", aliases=("ay",)),))
EVICTED = Orders(
    orders=(Order(kind=OrderKind.EVICT, subject="ay", since=NOON, until=NOON + timedelta(hours=1)),)
)


def told(
    *bookings: Reservation, orders: Orders = NONE, sizes: Sizes = SIZES, catalog: Catalog = ALIASES
) -> Plan:
    """What is planned for these bookings on two GPUs, and said of it, when the gateway knows nothing."""
    reading = Reading(calendar="test", reservations=bookings)
    ordered = with_orders((reading,), orders, catalog, NOON, NOON + timedelta(days=1))
    seen = Observed(cluster=ON, directory_version="")
    plan = make_plan(ordered.readings, seen, NOON, Known(catalog=catalog, checkpoints=sizes))
    return amended(plan, seen, {}, ordered)


def test_an_evicted_booking_is_told_once_though_it_outlasts_the_eviction() -> None:
    long = booking("ay", key="e", start=-1, end=4).model_copy(update={"title": "seminar"})
    plan = told(long, orders=EVICTED)
    (verdict,) = plan.verdicts
    assert (verdict.state, verdict.start, verdict.end) == (VerdictState.REFUSED, long.start, long.end)
    assert verdict.reason.detail == "until 2026-03-02 13:00 UTC"
    assert "served again" in (verdict.reason.remedy or "")
    assert [(one.kind, one.model and one.model.name) for one in plan.upcoming][:1] == [
        (ActionKind.DEPLOY, "org/a")
    ]
    short = booking("ay", key="e", start=-1, end=0.5)
    assert [one.reason.remedy for one in told(short, orders=EVICTED).verdicts] == ["Ask the operator."]


def test_the_gateway_knows_an_evicted_model_by_its_names_not_by_the_title_of_its_booking() -> None:
    short = booking("ay", end=0.5).model_copy(update={"title": "seminar"})
    (announced,) = told(short, orders=EVICTED).directory.announcements
    assert announced.names == ("org/a", "ay")
    assert announced.refused and announced.refused.code is ReasonCode.EVICTED


@pytest.mark.parametrize(
    ("sizes", "bookable_by", "code"),
    [
        (
            {key("org/a"): UnknownSize(reason="nothing says it", remedy="Say it.")},
            (),
            ReasonCode.SIZE_UNKNOWN,
        ),
        (SIZES, ("eve@e.org",), ReasonCode.NOT_ALLOWED),
        ({key("org/a"): UnknownSize(reason="wait", remedy="Wait.", pending=True)}, (), None),
    ],
    ids=["of unknown size", "not allowed", "being looked up"],
)
def test_the_gateway_is_told_of_bookings_that_planning_could_not_size_or_may_not_place(
    sizes: Sizes, bookable_by: tuple[str, ...], code: ReasonCode | None
) -> None:
    catalog = Catalog(entries=(ALIASES.entries[0].model_copy(update={"bookable_by": bookable_by}),))
    one = booking("ay", owner=ADA, private=True)
    plan = told(one, sizes=sizes, catalog=catalog)
    (announced,) = plan.directory.announcements
    assert (announced.names, announced.private_to) == (("org/a", "ay"), (ADA,))
    assert (announced.refused and announced.refused.code) == code
    assert [action.reason.code for action in plan.actions] == [ReasonCode.ROUTES_CHANGED]
    assert plan.directory.version == Directory(announcements=(announced,)).version != Directory().version


def test_a_refused_booking_is_announced_with_when_it_would_fit() -> None:
    before, after = booking("org/b", start=-1, end=3, gpus=2), booking("ay", start=1, end=2, booked=-1)
    (announced,) = (
        one for one in told(before, after, sizes=known(a=5, b=5)).directory.announcements if one.refused
    )
    assert announced.earliest == NOON + timedelta(hours=3)


def test_what_if_keeps_to_what_was_asked_when_it_says_how_to_book() -> None:
    asked = booking_from("org/a, private: yes tomorrow 14:00-16:00", NOON)
    assert asked.request.private
    without = planned([], ON, SIZES)
    with_it = planned(reading_of(asked).reservations, ON, SIZES)
    verdict = with_it.verdicts[0].model_copy(update={"calendar": asked.calendar})
    found = answer(asked, without, with_it.model_copy(update={"verdicts": (verdict,)}))
    assert found.command is not None and found.command.endswith(" --private")


def test_a_copy_with_other_content_does_not_keep_what_was_worked_out_before() -> None:
    routed = planned([booking("org/a")], cluster(gpus("x", 1, 80)), known(a=7)).directory
    empty = Directory()
    assert routed.version != empty.version
    assert routed.model_copy(update={"routes": ()}).version == empty.version
    assert ALIASES.find("ay") is not None
    assert ALIASES.model_copy(update={"entries": ()}).find("ay") is None
