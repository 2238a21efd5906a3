"""Plans as people read them: golden texts."""

from __future__ import annotations

import io
import json
from datetime import UTC
from pathlib import Path

import pytest
from rich.console import Console

from calendars.reservation import Misunderstood
from scheduler.render.text import show_plan
from scheduler.types import DeploymentStatus, Plan
from tests.scheduler.builders import booking, carried_out, cluster, cpu, deployed, gpus, known, planned

GOLDEN = Path(__file__).parent / "golden"


def text(plan: Plan, **options: object) -> str:
    console = Console(file=io.StringIO(), width=200, highlight=False, soft_wrap=True, **options)  # type: ignore[arg-type]
    show_plan(console, plan, UTC)
    written = console.file
    assert isinstance(written, io.StringIO)
    return written.getvalue()


def busy_plan() -> Plan:
    on = cluster(gpus("gpu-a", 8, 80), gpus("gpu-b", 2, 80, taken=1), cpu("login", 16))
    sizes = known(old=140, kept=7, grown=20, new=150, huge=5000, later=7)
    before = planned([booking("org/old"), booking("org/kept"), booking("org/grown")], on, sizes)
    return planned(
        [
            booking("org/kept"),
            booking("org/grown", replicas=2, end=30),
            booking("org/new", end=2),
            booking("org/huge"),
            booking("nwe"),
            booking("org/later", start=20, end=22),
        ],
        on,
        sizes,
        running=carried_out(before),
        others=("someone-elses",),
        misunderstood=(
            Misunderstood(
                key="m",
                calendar="test",
                title="Team lunch",
                reason="no model is named",
                example="SmolLM2-135M-Instruct",
            ),
        ),
    )


def quiet_plan() -> Plan:
    on, sizes = cluster(cpu("laptop", 8)), known(a=3)
    first = planned([booking("org/a")], on, sizes)
    version = first.directory.version
    return planned([booking("org/a")], on, sizes, running=carried_out(first), directory_version=version)


def full_plan() -> Plan:
    on, sizes = cluster(cpu("laptop", 8)), known(a=5, b=5)
    return planned([booking("org/a"), booking("org/b", booked=-1)], on, sizes)


def failed_plan() -> Plan:
    on, sizes = cluster(cpu("laptop", 8)), known(a=3)
    first = planned([booking("org/a")], on, sizes)
    message = "Traceback (most recent call last):\n  ...\nOSError: [the file] is not there\n"
    failed = deployed(first.placements[0], DeploymentStatus.FAILED, message=message)
    return planned([booking("org/a")], on, sizes, running=[failed], directory_version=first.directory.version)


@pytest.mark.parametrize("make", [busy_plan, quiet_plan, full_plan, failed_plan])
def test_the_text_of_a_plan(make: object, update_golden: bool) -> None:
    written = text(make())  # type: ignore[operator]
    path = GOLDEN / f"{make.__name__}.txt"  # type: ignore[attr-defined]
    if update_golden:
        path.write_text(written)
    assert written == path.read_text()


def test_the_json_of_a_plan(update_golden: bool) -> None:
    written = json.dumps(json.loads(full_plan().model_dump_json()), indent=1) + "\n"
    path = GOLDEN / "full_plan.json"
    if update_golden:
        path.write_text(written)
    assert written == path.read_text()
    assert Plan.model_validate_json(written) == full_plan(), "nothing is lost on the way"


def test_symbols_stand_at_column_0() -> None:
    lines = text(busy_plan()).splitlines()[1:]
    assert {line[0] for line in lines} == {"-", "+", "~", "!", " ", "L"}


def test_colour_is_for_terminals() -> None:
    assert "\x1b[" not in text(busy_plan())
    assert "\x1b[" in text(busy_plan(), force_terminal=True, color_system="standard")
