"""What each event is told."""

from __future__ import annotations

import pytest

from calendars.reservation import Misunderstood, Reading
from calendars.write_back import Report
from scheduler.progress import Said, Step
from scheduler.reports import reports
from scheduler.types import Deployment, DeploymentStatus, Plan
from tests.scheduler.builders import booking, carried_out, cluster, cpu, deployed, gpus, known, planned

ON = cluster(cpu("c", 8))
URL = "http://models.example.org:8267"


def told(
    plan: Plan,
    running: tuple[Deployment, ...] = (),
    took: dict[str, float] | None = None,
    progress: dict[str, Said] | None = None,
) -> list[Report]:
    return list(reports(plan, (), running, took or {}, URL, progress=progress).get("test", ()))


def test_a_booking_is_scheduled_then_loading_then_serving() -> None:
    later = planned([booking("org/a", start=5, end=6)], ON, known(a=1))
    now = planned([booking("org/a")], ON, known(a=1))
    loading, serving = (
        carried_out(now, status) for status in (DeploymentStatus.LOADING, DeploymentStatus.SERVING)
    )
    states = [told(later), told(now), told(now, loading), told(now, serving)]
    assert [one[0].state for one in states] == ["scheduled", "loading", "loading", "serving"]


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (None, "It is being loaded on c."),
        (Said(Step.DOWNLOADING), "It is being downloaded to c."),
        (Said(Step.DOWNLOADING, 0.6), "It is being downloaded to c (50% done)."),
        (Said(Step.LOADING, 0.2), "It is being loaded on c."),
        (Said(Step.LOADING, 0.8), "It is being loaded on c (75% done)."),
        (Said(Step.LOADING, 1.0), "It is being loaded on c (almost done)."),
        (Said(Step.WARMING), "It is being loaded on c (almost done)."),
    ],
)
def test_a_booking_that_is_loading_is_told_how_far_in_quarters(said: Said | None, line: str) -> None:
    plan = planned([booking("org/a")], ON, known(a=1))
    loading = carried_out(plan, DeploymentStatus.LOADING)
    (report,) = told(plan, loading, progress={loading[0].application: said} if said else {})
    assert report.lines == (line,)


def test_of_several_nodes_the_one_that_is_farthest_behind_is_told() -> None:
    both = cluster(cpu("c", 8), cpu("d", 8))
    plan = planned([booking("org/a", replicas=2)], both, known(a=5))
    loading = carried_out(plan, DeploymentStatus.LOADING)
    said = [Said(Step.LOADING, 0.8), Said(Step.DOWNLOADING, 0.3)]
    (report,) = told(
        plan, loading, progress={one.application: s for one, s in zip(loading, said, strict=True)}
    )
    assert report.lines == ("It is being downloaded to c, d (25% done).",)


def test_a_serving_booking_is_told_where_to_ask_and_how_long_loading_took() -> None:
    plan = planned([booking("org/a")], ON, known(a=1))
    running = carried_out(plan)
    (report,) = told(plan, running, {running[0].application: 12.4})
    assert report.lines == (f"Ask for org/a at {URL}.",)
    assert report.asides == ("Loading took 12 s.",)


def test_a_refused_booking_is_told_what_is_short_and_what_holds_it() -> None:
    plan = planned([booking("org/a"), booking("org/b", booked=-1)], ON, known(a=5, b=5))
    refused = next(one for one in told(plan, carried_out(plan)) if one.state == "refused")
    assert "5.0 GiB" in refused.lines[0]
    assert "org/a" in refused.lines[0]
    assert refused.asides[0] == "It would fit from 2026-03-02 13:00 UTC on."
    assert refused.asides[1].startswith("c: 3.0 GiB of CPU memory free")


def test_a_misunderstood_event_is_given_an_example() -> None:
    event = Misunderstood(
        key="k", calendar="test", title="Lunch", reason="no model is named", example="SmolLM2"
    )
    (report,) = told(planned([], ON, {}, misunderstood=(event,)))
    assert (report.state, report.lines) == ("refused", ("No model is named.", "For example: SmolLM2"))


def test_a_model_that_fails_to_load_is_told_with_the_last_line_of_its_error() -> None:
    plan = planned([booking("org/a")], ON, known(a=1))
    failed = deployed(
        plan.placements[0], DeploymentStatus.FAILED, message="Traceback\n  x\nOSError: no file\n"
    )
    (report,) = told(plan, (failed,))
    assert (report.state, report.lines) == ("refused", ("It could not be loaded: OSError: no file",))


def test_what_is_over_is_told_so_and_nothing_else() -> None:
    over = booking("org/a", start=-2, end=-0.5, key="over")
    plan = planned([over, booking("org/a", key="on")], ON, known(a=1))
    reading = Reading(calendar="test", reservations=(over,))
    said = reports(plan, (reading,), (), {}, URL)["test"]
    assert {one.key: one.state for one in said} == {"on": "loading", "over": "ended"}


def test_what_is_said_does_not_change_by_itself() -> None:
    """Each change of a report is a write to the calendar."""
    bookings = [booking("org/a"), booking("org/b", booked=-1), booking("org/c", start=5, end=6)]
    sizes = known(a=5, b=5, c=1)
    first = planned(bookings, ON, sizes)
    running = carried_out(first)
    again = planned(bookings, ON, sizes, running=running)
    third = planned(bookings, ON, sizes, running=running)
    assert told(again, running) == told(third, running)


def test_what_will_be_late_is_told_by_how_much_and_why() -> None:
    both = [booking("org/a", end=2), booking("org/b", start=2, end=4)]
    plan = planned(both, cluster(gpus("x", 1, 80)), known(a=80, b=80))
    (late,) = [one for one in told(plan) if one.key == both[1].key]
    assert late.lines == (
        "Its room is free only when “org/a” ends, so it will serve about 2 min after its start.",
    )
    verdicts = tuple(one.model_copy(update={"late_because": ()}) for one in plan.verdicts)
    (late,) = [one for one in told(plan.model_copy(update={"verdicts": verdicts})) if one.key == both[1].key]
    assert late.lines == ("It cannot be loaded sooner, so it will serve about 2 min after its start.",)
