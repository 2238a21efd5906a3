"""The next hours as text: golden texts at fixed widths."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from rich.console import Console

from scheduler.render.timeline import NOW, show_timeline, timeline
from scheduler.types import Directory, Plan, Promises, Stay
from tests.scheduler.builders import NOON, booking, cluster, gpus, known, planned
from tests.scheduler.handmade import at, eventful_plan, model

GOLDEN = Path(__file__).parent / "golden"


def drawn(plan: Plan, hours: float, width: int, zone: tzinfo = UTC) -> str:
    return "\n".join(line.plain for line in timeline(plan, hours, width, zone)) + "\n"


def crowded_plan() -> Plan:
    """Many short and long stays on a node that has been there for days, and forty idle ones."""
    stays = [
        Stay(
            model=model(f"model-{n}").key,
            node="gpu-07",
            start=at(n / 2),
            end=at(n / 2 + 1 + n % 3),
            events=(),
        )
        for n in range(12)
    ]
    stays.append(Stay(model=model("always").key, node="gpu-21", start=at(-100), end=at(100), events=()))
    nodes = cluster(*(gpus(f"gpu-{n:02}", 8, 80) for n in range(42)))
    return Plan(
        at=NOON + timedelta(minutes=34),
        cluster=nodes,
        directory=Directory(),
        promises=Promises(stays=tuple(stays)),
    )


@pytest.mark.parametrize(
    ("name", "make", "hours", "width"),
    [
        ("eventful_100", eventful_plan, 24, 100),
        ("eventful_60", eventful_plan, 24, 60),
        ("eventful_week", eventful_plan, 7 * 24, 120),
        ("crowded_120", crowded_plan, 12, 120),
    ],
)
def test_the_timeline(name: str, make: object, hours: float, width: int, update_golden: bool) -> None:
    written = drawn(make(), hours, width)  # type: ignore[operator]
    path = GOLDEN / f"timeline_{name}.txt"
    if update_golden:
        path.write_text(written)
    assert written == path.read_text()


@pytest.mark.parametrize("width", [32, 45, 60, 61, 79, 80, 132, 250])
@pytest.mark.parametrize("hours", [1, 5.5, 24, 72, 14 * 24, 366 * 24])
@pytest.mark.parametrize("make", [eventful_plan, crowded_plan])
def test_no_line_is_wider_than_the_terminal(make: object, hours: float, width: int) -> None:
    lines = drawn(make(), hours, width).splitlines()  # type: ignore[operator]
    assert max(map(len, lines)) <= width


def test_it_is_as_narrow_as_the_terminal() -> None:
    console = Console(file=io.StringIO(), width=40)
    show_timeline(console, eventful_plan(), 24, UTC)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 40
    assert any(line.startswith("gpu-c") and "[nig" in line for line in lines)


@pytest.mark.parametrize(("hours", "says"), [(12.0, ") a-model-of-a-long-name x2"), (3.0, "… x2)")])
def test_two_replicas_are_told_where_the_name_is_cut_too(hours: float, says: str) -> None:
    name = "a-model-of-a-long-name"
    plan = planned([booking(f"org/{name}", 2, 3, replicas=2)], cluster(gpus("x", 2, 80)), known(**{name: 70}))
    assert says in drawn(plan, hours, 60)


def test_the_present_is_one_column_in_every_row() -> None:
    lines = drawn(crowded_plan(), 12, 120).splitlines()
    columns = {line.index(NOW) for line in lines if NOW in line and "now" not in line}
    assert len(columns) == 1


@pytest.mark.parametrize(
    ("zone", "labels"),
    [
        ("UTC", ["12:00", "15:00", "18:00", "21:00", "Tue 03"]),
        ("Europe/Berlin", ["15:00", "18:00", "21:00", "Tue 03"]),
        ("Asia/Kolkata", ["18:00", "21:00", "Tue 03", "03:00"]),
    ],
)
def test_hours_are_those_of_the_zone(zone: str, labels: list[str]) -> None:
    head = drawn(eventful_plan(), 24, 100, ZoneInfo(zone)).splitlines()[0]
    words = head.removeprefix("Mon 02 Mar").replace("Tue 03", "Tue_03").split()
    assert words[: len(labels)] == [one.replace(" ", "_") for one in labels]


def test_hours_go_on_over_a_change_of_clocks() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    evening = datetime(2026, 3, 28, 22, 0, tzinfo=berlin)
    plan = Plan(at=evening, cluster=cluster(gpus("a", 1, 80)), directory=Directory())
    head = drawn(plan, 8, 120, berlin).splitlines()[0]
    assert head.split() == [
        "Sat",
        "28",
        "Mar",
        "22:00",
        "23:00",
        "Sun",
        "29",
        "01:00",
        "03:00",
        "04:00",
        "05:00",
        "06:00",
    ]


def test_a_plan_without_promises_shows_what_runs_and_what_comes() -> None:
    plan = planned(
        [booking("org/a"), booking("org/b", start=0.01, end=3)], cluster(gpus("n", 2, 80)), known(a=10, b=10)
    )
    plan = plan.model_copy(update={"promises": Promises()})
    shown = drawn(plan, 6, 80)
    assert "a=" in shown
    assert "b=" in shown


def test_the_verdict_stands_above_and_colour_is_for_terminals() -> None:
    for terminal in (False, True):
        console = Console(
            file=io.StringIO(),
            width=100,
            force_terminal=terminal,
            color_system="standard" if terminal else None,
        )
        show_timeline(console, eventful_plan(), 24, UTC, supposing=("gpu-d is gone",))
        written = console.file.getvalue()  # type: ignore[attr-defined]
        assert ("\x1b[" in written) is terminal
        if not terminal:
            lines = written.splitlines()
            assert lines[0] == "Supposing that gpu-d is gone:"
            assert lines[1].startswith("1 to take down, 1 to deploy; 3 bookings cannot be met")
