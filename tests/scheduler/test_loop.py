"""The parts of the loop: steps that get stuck, clocks that are set, nodes that blink, what is recorded."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from calendars.reservation import Reading, Reservation
from calendars.write_back import Report
from scheduler import jobs
from scheduler.cluster.absence import Absence
from scheduler.front import Request
from scheduler.guard import GuardRule, MassChangeGuard
from scheduler.jobs import ClockJobs
from scheduler.orders import CALENDAR as PINS
from scheduler.parking import Parking, ParkRule
from scheduler.recording import Chronicle
from scheduler.requests import model_name, ordered
from scheduler.settings_loop import ControllerSettings
from scheduler.signals import Asked
from scheduler.steps import Steps, Stuck
from scheduler.store.history import FILE, Recorder
from scheduler.store.orders import OrderBook, OrderKind
from scheduler.store.records import Parked
from scheduler.types import DeploymentStatus, Model, Observed, Plan, UnknownSize
from tests.scheduler.builders import (
    NOON,
    booking,
    carried_out,
    cluster,
    cpu,
    deployed,
    gpus,
    known,
    planned,
)

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)

# Steps


def test_a_step_gives_what_it_made_and_raises_what_it_raised() -> None:
    steps = Steps()
    assert steps.take("adding", lambda: 1 + 1, 1.0) == 2
    with pytest.raises(ZeroDivisionError):
        steps.take("dividing", lambda: 1 / 0, 1.0)


def test_a_step_that_gets_stuck_is_given_up_and_not_begun_twice() -> None:
    steps, gate, begun = Steps(), threading.Event(), []

    def wait() -> str:
        begun.append(1)
        gate.wait()
        return "at last"

    with pytest.raises(Stuck, match="Reading has taken 0 s"):
        steps.take("reading", wait, 0.01)
    with pytest.raises(Stuck):
        steps.take("reading", wait, 0.01)
    assert (len(begun), list(steps.stuck)) == (1, ["reading"])
    assert steps.take("planning", lambda: "goes on", 1.0) == "goes on"
    gate.set()
    steps._under_way["reading"][0].join()
    assert steps.stuck == {}
    assert steps.take("reading", wait, 1.0) == "at last"


# Clock


def test_steps_that_are_given_up_hold_up_nobody_and_no_other_is_begun() -> None:
    begun, ended, told = threading.Event(), threading.Event(), list[str]()
    steps = Steps()

    def wait() -> None:
        begun.set()
        ended.wait(30)

    def take() -> None:
        try:
            steps.take("applying", wait, 60)
        except Stuck as stuck:
            told.append(stuck.reason)

    loop = threading.Thread(target=take)
    loop.start()
    assert begun.wait(5)
    steps.give_up()
    loop.join(5)
    assert not loop.is_alive()
    assert len(told) == 1
    with pytest.raises(Stuck, match="not begun"):
        steps.take("observing", lambda: None, 60)
    ended.set()


@pytest.fixture
def clock_jobs() -> Iterator[ClockJobs]:
    found = ClockJobs()
    found.start()
    yield found
    found.stop()


def test_a_job_is_done_now_at_its_instants_and_when_it_is_asked_for(clock_jobs: ClockJobs) -> None:
    done: list[str] = []
    arrived = threading.Semaphore(0)

    def do(name: str) -> None:
        done.append(name)
        arrived.release()

    clock_jobs.every("poll", 3600, lambda: do("poll"))
    assert arrived.acquire(timeout=5)
    now = datetime.now(UTC)
    clock_jobs.at([now + SECOND * 0.1, now + timedelta(hours=1)], lambda: do("boundary"))
    assert arrived.acquire(timeout=5)
    clock_jobs.soon(lambda: do("soon"))
    assert arrived.acquire(timeout=5)
    assert done == ["poll", "boundary", "soon"]
    assert clock_jobs.has("poll")
    clock_jobs.cancel("poll")
    clock_jobs.cancel("poll")
    assert not clock_jobs.has("poll")


def test_a_boundary_that_is_no_longer_wanted_is_forgotten(clock_jobs: ClockJobs) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    clock_jobs.at([later, later + MINUTE], lambda: None)
    clock_jobs.at([later + MINUTE], lambda: None)
    assert len(clock_jobs._scheduler.get_jobs()) == 1


@pytest.mark.parametrize("jump", [-7200.0, 7200.0])
def test_after_the_clock_was_set_everything_is_looked_at_again(
    clock_jobs: ClockJobs, jump: float, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    arrived = threading.Semaphore(0)
    clock_jobs.every("poll", 3600, arrived.release)
    assert arrived.acquire(timeout=5)
    clock_jobs.look_at_clock()
    assert not arrived.acquire(timeout=0.2)
    offset = time.time() - time.monotonic()
    monkeypatch.setattr(jobs, "_offset", lambda: offset + jump)
    clock_jobs.look_at_clock()
    assert arrived.acquire(timeout=5)
    assert [line for line in said if "The clock was set" in line]


def test_a_stop_is_asked_for_once_and_a_reload_each_time() -> None:
    asked = Asked()
    assert not asked.to_stop(0)
    asked._has_terminal = False
    asked._hung_up(1, None)
    assert [asked.to_reload(), asked.to_reload()] == [True, False]
    asked._has_terminal = True  # and it cannot be opened here any more, or never could
    asked.stop()
    assert asked.to_stop(0)


# Nodes that blink


def test_a_node_that_blinks_is_kept_closed_and_comes_back_open() -> None:
    absence = Absence(20)
    both, one = cluster(gpus("a", 1, 80), gpus("b", 1, 80)), cluster(gpus("a", 1, 80))
    assert absence.complete(both, NOON) == both
    away = absence.complete(one, NOON + 10 * SECOND)
    assert [(node.name, node.closed) for node in away.nodes] == [("a", False), ("b", True)]
    assert absence.away(one) == ("b",)
    assert absence.complete(both, NOON + 15 * SECOND) == both


def test_a_node_that_stays_away_is_gone_also_after_the_clock_was_set_back() -> None:
    both, one = cluster(gpus("a", 1, 80), gpus("b", 1, 80)), cluster(gpus("a", 1, 80))
    for since in (NOON, NOON - timedelta(hours=1)):
        absence = Absence(20)
        absence.complete(both, NOON)
        assert absence.complete(one, since + 10 * SECOND) != one
        assert absence.complete(one, since + 19 * SECOND) != one
        assert absence.complete(one, since + 30 * SECOND) == one


# The mass change guard

RULE = GuardRule(max_share=0.5, min_models=2, second_reading_seconds=8)
NAMES = ("a", "b", "c", "d")
LARGE = cluster(cpu("n", 64))
SIZES = known(a=1, b=1, c=1, d=1)


def read(*reservations: Reservation) -> tuple[Reading, ...]:
    return (Reading(calendar="test", reservations=reservations),)


def guarded(before: tuple[str, ...], after: tuple[str, ...], **rule: object) -> tuple[bool, bool]:
    """Whether the plan after the change waits, at the first reading and at a second one ten seconds later."""
    full = read(*(booking(f"org/{name}", key=name) for name in before))
    less = read(*(booking(f"org/{name}", key=name) for name in after))
    running = carried_out(planned(full[0].reservations, LARGE, SIZES))
    guard = MassChangeGuard(RULE.model_copy(update=rule), full)
    held = []
    for at in (NOON, NOON + 10 * SECOND):
        doubted = guard.believable(less, {"test": at}, at)
        plan = planned(less[0].reservations, LARGE, SIZES, running=running, at=at)
        hold = guard.judge(plan, Observed(cluster=LARGE, deployments=running), at)
        held.append(bool(doubted and hold))
    return held[0], held[1]


def test_what_would_take_down_much_waits_for_a_second_reading_and_no_longer() -> None:
    assert guarded(NAMES, ("a",)) == (True, False)
    assert guarded(NAMES, ()) == (True, False)


def test_what_was_loaded_ahead_of_its_booking_counts_among_what_would_go() -> None:
    now, ahead = booking("org/a", key="a"), booking("org/b", key="b", start=0.01, end=1)
    full = read(now, ahead)
    running = carried_out(planned(full[0].reservations, LARGE, SIZES))
    assert len(running) == 2
    guard = MassChangeGuard(RULE.model_copy(update={"min_models": 1}), full)
    assert guard.believable(read(), {"test": NOON}, NOON) is not None
    plan = planned([], LARGE, SIZES, running=running)
    hold = guard.judge(plan, Observed(cluster=LARGE, deployments=running), NOON)
    assert hold is not None
    assert hold.models == ("org/a", "org/b")


def test_what_takes_down_little_does_not_wait() -> None:
    assert guarded(NAMES, ("a", "b", "c")) == (False, False)
    assert guarded(NAMES, ("a", "b")) == (False, False)
    assert guarded(("a",), ()) == (False, False)
    assert guarded(NAMES, ("a",), max_share=0.75) == (False, False)


def test_bookings_that_are_back_at_the_second_reading_are_not_doubted() -> None:
    full = read(*(booking(f"org/{name}", key=name) for name in NAMES))
    guard = MassChangeGuard(RULE, full)
    doubted = guard.believable(read(), {"test": NOON}, NOON)
    assert doubted is not None
    assert len(doubted[0].reservations) == 4
    assert guard.believable(full, {"test": NOON + MINUTE}, NOON + MINUTE) is None


def test_a_reading_that_is_only_remembered_confirms_nothing() -> None:
    full = read(*(booking(f"org/{name}", key=name) for name in NAMES))
    guard = MassChangeGuard(RULE, full)
    guard.believable(read(), {"test": NOON}, NOON)
    assert guard.believable(read(), {"test": NOON}, NOON + MINUTE) is not None


def test_what_ended_by_itself_has_not_vanished() -> None:
    guard = MassChangeGuard(RULE, read(booking("org/a", start=-2, end=-1)))
    assert guard.believable(read(), {"test": NOON}, NOON) is None


# Parking

PARK = ParkRule(first_seconds=60, longest_seconds=600, load_deadline_seconds=3600)


def failing(message: str = "OSError: no") -> tuple[Observed, Plan, tuple[Reading, ...]]:
    wanted = (booking("org/a"),)
    plan = planned(wanted, LARGE, SIZES)
    failed = deployed(plan.placements[0], DeploymentStatus.FAILED, message=message, gave_up=True)
    observed = Observed(cluster=LARGE, deployments=(failed,))
    return observed, planned(wanted, LARGE, SIZES, running=(failed,)), read(*wanted)


def test_pauses_grow_up_to_the_longest() -> None:
    parking, (observed, plan, readings) = Parking(PARK, {}), failing()
    at, pauses = NOON, []
    for _ in range(6):
        (parked,) = parking.look(observed, plan, readings, {}, at)
        assert isinstance(parked, Parked)
        assert parking.look(observed, plan, readings, {}, at + SECOND) == []
        pauses.append((parked.retry_at - at).total_seconds())
        at = parked.retry_at
    assert pauses == [60, 120, 240, 480, 600, 600]


def test_a_clock_that_was_set_back_does_not_make_a_pause_longer_than_any() -> None:
    parking, (observed, plan, readings) = Parking(PARK, {}), failing()
    parking.look(observed, plan, readings, {}, NOON)
    assert parking.resting(NOON - 300 * SECOND)
    assert not parking.resting(NOON - 3600 * SECOND)


def test_a_change_that_may_help_frees_it_and_one_elsewhere_does_not() -> None:
    observed, plan, readings = failing()
    parking = Parking(PARK, {})
    parking.look(observed, plan, readings, {}, NOON)
    nothing = observed.model_copy(update={"deployments": ()})
    assert parking.look(nothing, plan, readings, {}, NOON + SECOND) == []
    other_node = nothing.model_copy(update={"cluster": cluster(cpu("n", 64), cpu("m", 64))})
    assert parking.look(other_node, plan, readings, {}, NOON + SECOND) == [Model(repo_id="org/a").key]
    assert parking.resting(NOON + SECOND) == {}


def test_what_loads_for_longer_than_the_deadline_has_failed() -> None:
    observed, plan, readings = failing()
    loading = observed.deployments[0].model_copy(
        update={"status": DeploymentStatus.LOADING, "gave_up": False, "message": "no room"}
    )
    observed = observed.model_copy(update={"deployments": (loading,)})
    parking = Parking(PARK, {})
    assert parking.look(observed, plan, readings, {loading.application: 3599.0}, NOON) == []
    (parked,) = parking.look(observed, plan, readings, {loading.application: 3601.0}, NOON)
    assert isinstance(parked, Parked)
    assert parked.error == "it did not serve within 60 minutes: no room"


def test_a_replica_that_died_is_serves_affair() -> None:
    observed, plan, readings = failing()
    unhealthy = observed.deployments[0].model_copy(update={"gave_up": False})
    observed = observed.model_copy(update={"deployments": (unhealthy,)})
    assert Parking(PARK, {}).look(observed, plan, readings, {}, NOON) == []


# Requests of other services


def test_requests_become_orders_and_the_last_one_counts(tmp_path: Path) -> None:
    book, settings = OrderBook(tmp_path), ControllerSettings(minimum_deployment_seconds=600)
    key = Model(repo_id="org/a").key
    ordered([Request("deploy", (key, "org/b", "nonsense:{", ""), "api")], book, settings, NOON)
    orders = book.read()
    assert [(one.kind, one.subject) for one in orders.orders] == [
        (OrderKind.PIN, "org/a"),
        (OrderKind.PIN, "org/b"),
    ]
    assert orders.orders[0].until == NOON + 10 * MINUTE
    ordered([Request("evict", (key,))], book, settings, NOON + SECOND)
    assert book.read().on(OrderKind.EVICT, "org/a", NOON + SECOND) is not None
    assert book.read().on(OrderKind.PIN, "org/a", NOON + SECOND) is None


def test_a_model_key_is_parsed_and_never_compared_as_text() -> None:
    assert model_name(Model(repo_id="org/a").key) == "org/a"
    assert model_name('os.system:{"repo_id": "org/a"}') is None
    assert model_name(f"{Model(repo_id='org/a').key.partition(':')[0]}:[1]") is None


# The record


@pytest.fixture
def history(tmp_path: Path) -> Iterator[Recorder]:
    found = Recorder(tmp_path / FILE, keep_days=30)
    yield found
    found.close()


def lived(
    history: Recorder, *steps: tuple[float, str], starts: float = 0
) -> list[tuple[str, float | None, str | None]]:
    """A booking from noon to one is told these states at these minutes; what was known of it at the end."""
    chronicle = Chronicle(history, NOON)
    for minutes, state in steps:
        at = NOON + minutes * MINUTE
        asked = [booking("org/a", start=starts, end=1, key="e")]
        plan = planned(asked, LARGE, SIZES, at=min(at, NOON + 59 * MINUTE))
        report = Report(key="e", state=state, lines=(f"It is {state}.",))  # type: ignore[arg-type]
        gone = state == "gone"
        chronicle.note(plan, {} if gone else {"test": [report]}, ["test"], at)
    return [(one.state, one.lateness_seconds, one.broken_why) for one in history.promises(NOON)]


@pytest.mark.parametrize(
    ("steps", "known_at_the_end"),
    [
        ([(-60, "scheduled")], ("waiting", None, None)),
        ([(-60, "scheduled"), (-5, "loading"), (-1, "serving"), (60, "ended")], ("kept", 0.0, None)),
        ([(-60, "scheduled"), (0, "loading"), (2, "serving"), (60, "ended")], ("late", 120.0, None)),
        ([(-60, "scheduled"), (0, "loading"), (60, "ended")], ("broken", None, "It never served.")),
        ([(-60, "scheduled"), (0, "refused"), (60, "ended")], ("broken", None, "It is refused.")),
        ([(-60, "scheduled"), (-9, "refused"), (-1, "serving")], ("kept", 0.0, None)),
        ([(0, "serving"), (9, "loading"), (11, "serving"), (60, "ended")],
         ("broken", 0.0, "It ceased to serve at 2026-03-02 12:09:00 UTC.")),
    ],
)  # fmt: skip
def test_what_came_of_a_promise(
    history: Recorder, steps: list[tuple[float, str]], known_at_the_end: tuple[object, ...]
) -> None:
    assert lived(history, *steps) == [known_at_the_end]


@pytest.mark.parametrize(
    ("steps", "lateness_seconds"),
    [
        ([(0, "loading"), (1, "serving")], 0.0),
        ([(20, "loading"), (21, "serving")], 0.0),
        ([(20, "loading"), (23, "serving")], 119.0),
        ([(-0.5, "loading"), (0.5, "serving")], 0.0),
        ([(-9, "scheduled"), (1, "loading"), (2, "serving")], 120.0),
    ],
    ids=["for now", "begun long ago", "slower than said", "too late for its start", "in good time"],
)
def test_what_is_booked_too_late_to_serve_at_its_start_is_late_only_after_its_lead(
    history: Recorder, steps: list[tuple[float, str]], lateness_seconds: float
) -> None:
    """Loading takes a minute, and a second for each GiB."""
    ((state, late, _),) = lived(history, *steps, (60, "ended"))
    assert (late, state) == (lateness_seconds, "late" if lateness_seconds else "kept")


def test_a_booking_that_is_moved_to_now_is_promised_anew(history: Recorder) -> None:
    lived(history, (-60, "scheduled"), starts=0.9)
    assert lived(history, (10, "loading"), (11, "serving")) == [("kept", 0.0, None)]


def test_looking_up_what_is_booked_for_now_is_part_of_its_lead(history: Recorder) -> None:
    chronicle, asked = Chronicle(history, NOON), [booking("org/a", start=0, end=1, key="e")]
    pending = UnknownSize(reason="it is looked up", remedy="Wait.", pending=True)
    for minutes, state, sizes in (
        (0, "scheduled", {Model(repo_id="org/a").key: pending}),
        (3, "loading", SIZES),
        (4, "serving", SIZES),
    ):
        plan = planned(asked, LARGE, sizes, at=NOON + minutes * MINUTE)  # type: ignore[arg-type]
        chronicle.note(plan, {"test": [Report(key="e", state=state)]}, ["test"], plan.at)  # type: ignore[arg-type]
    assert [one.state for one in history.promises(NOON)] == ["kept"]


def test_a_pin_is_no_promise(history: Recorder) -> None:
    pin = booking("org/a", start=0, end=1, key="pin").model_copy(update={"calendar": PINS})
    plan = planned([pin], LARGE, SIZES)
    Chronicle(history, NOON).note(plan, {PINS: [Report(key="pin", state="loading")]}, ["test"], NOON)
    assert [one.state for one in history.changes(NOON)] == ["loading"]
    assert history.promises(NOON) == []


def test_what_was_refused_from_the_start_was_never_promised(history: Recorder) -> None:
    assert lived(history, (-60, "refused"), (0, "refused")) == []


def test_a_booking_that_is_cancelled_is_withdrawn_unless_its_calendar_cannot_be_read(
    history: Recorder,
) -> None:
    chronicle = Chronicle(history, NOON)
    plan = planned([booking("org/a", start=0, end=1, key="e")], LARGE, SIZES)
    chronicle.note(plan, {"test": [Report(key="e", state="scheduled")]}, ["test"], NOON)
    empty = planned([], LARGE, SIZES)
    chronicle.note(empty, {}, [], NOON + MINUTE)
    assert [one.state for one in history.promises(NOON)] == ["waiting"]
    chronicle.note(empty, {}, ["test"], NOON + 2 * MINUTE)
    assert [one.state for one in history.promises(NOON)] == ["withdrawn"]


def test_nothing_is_written_twice_over_a_restart_either(history: Recorder) -> None:
    for _ in range(2):
        lived(history, (-60, "scheduled"), (-50, "scheduled"))
    assert len(history.changes(NOON - timedelta(days=1))) == 1


def test_the_past_of_a_private_booking_is_private_too(history: Recorder) -> None:
    chronicle = Chronicle(history, NOON)
    bookings = [booking("org/a", start=0, end=1, key="e", private=True), booking("org/a", start=0, end=1)]
    told = [Report(key=one.key, state="scheduled") for one in bookings]
    chronicle.note(planned(bookings, LARGE, SIZES), {"test": told}, ["test"], NOON)
    assert {one.event: one.private for one in history.promises(NOON)} == {"e": True, "org/a@0": False}
    assert {one.event: one.private for one in history.changes(NOON)} == {"e": True, "org/a@0": False}
