"""Plans as people read them: golden texts."""

from __future__ import annotations

import io
import json
from datetime import UTC
from pathlib import Path

import pytest
from rich.console import Console

from calendars.reservation import Misunderstood
from scheduler.render.secrets import plan_without_secrets, without_secrets
from scheduler.render.text import show_plan
from scheduler.types import DeploymentStatus, Plan
from tests.scheduler.builders import booking, carried_out, cluster, cpu, deployed, gpus, known, planned
from tests.scheduler.handmade import eventful_plan

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


@pytest.mark.parametrize("make", [busy_plan, quiet_plan, full_plan, failed_plan, eventful_plan])
def test_the_text_of_a_plan(make: object, update_golden: bool) -> None:
    written = text(make())  # type: ignore[operator]
    path = GOLDEN / f"{make.__name__}.txt"  # type: ignore[attr-defined]
    if update_golden:
        path.write_text(written)
    assert written == path.read_text()


@pytest.mark.parametrize("make", [full_plan, eventful_plan])
def test_the_json_of_a_plan(make: object, update_golden: bool) -> None:
    plan: Plan = make()  # type: ignore[operator]
    written = json.dumps(json.loads(plan.model_dump_json()), indent=1) + "\n"
    path = GOLDEN / f"{make.__name__}.json"  # type: ignore[attr-defined]
    if update_golden:
        path.write_text(written)
    assert written == path.read_text()
    assert Plan.model_validate_json(written) == plan, "nothing is lost on the way"


@pytest.mark.parametrize("make", [busy_plan, eventful_plan])
def test_symbols_stand_at_column_0(make: object) -> None:
    lines = text(make()).splitlines()[1:]  # type: ignore[operator]
    assert {line[0] for line in lines} <= {"-", "+", "~", "!", "#", " ", "L"}


def test_removals_come_first_and_drift_stands_apart() -> None:
    lines = text(eventful_plan()).splitlines()
    symbols = [line[0] for line in lines[1:] if line[0] in "-+~!#"]
    assert symbols == ["-", "+", "!", "!", "!", "!", "!", "#", "!"]


def test_a_replica_that_goes_while_another_stays_is_told_among_what_comes_next() -> None:
    long, short = booking("org/a", 0, 4, key="1"), booking("org/a", 0, 2, key="2", replicas=2)
    plan = planned([long, short, booking("org/b", 1, 3)], cluster(gpus("x", 4, 80)), known(a=70, b=7))
    coming = [line.strip() for line in text(plan).splitlines() if "next:" in line]
    assert coming == [
        "next: 12:58 + org/b to x, to serve from 13:00 until 15:00",
        "next: 14:00 ~ org/a on x, replicas 2 -> 1",
        "next: 15:00 - org/b leaves x",
        "next: 16:00 - org/a leaves x",
    ]


def test_a_plan_of_a_thousand_refusals_is_not_a_thousand_paragraphs() -> None:
    plan = eventful_plan()
    (huge,) = (one for one in plan.verdicts if one.title == "huge")
    late = next(one for one in plan.verdicts if one.late_seconds)
    many = plan.model_copy(
        update={"verdicts": (huge,) * 1000 + (late,) * 1000, "placements": plan.placements * 1000}
    )
    lines = text(many).splitlines()
    assert lines[0].startswith("1 to take down, 1 to deploy; 1000 bookings cannot be met, 1000 will be late")
    assert "! and 950 more that cannot be met; --json has them" in lines
    assert len(lines) < 900


SECRETS = {
    "of the Hub": ("401 for hf_abcdefghijklmnopqrstuvwxyz0123", "hf_abc"),
    "in an address": ("GET https://bob:pw123@hub.example.org/x", "pw123"),
    "in an address, token alone": ("https://:glpat1@git.example.org", "glpat1"),
    "in a header": ("Authorization: Bearer abcdef123456", "abcdef"),
    "in the environment": ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7", "wJalr"),
    "in JSON": ('{"api_key": "a123456789", "x": 1}', "a123"),
    "in a query": ("https://x.org/?access_token=a123456789&y=2", "a123"),
    "in Google's calendar address": (
        "calendar/ical/a/private-0123456789abcdef0123/basic.ics",
        "0123456789abcdef",
    ),
    "a private key": ("-----BEGIN PRIVATE KEY-----\nMIIEvQ\n-----END PRIVATE KEY-----", "MIIEvQ"),
}


@pytest.mark.parametrize(("message", "secret"), SECRETS.values(), ids=SECRETS)
def test_secrets_are_not_printed(message: str, secret: str) -> None:
    assert secret in message
    assert secret not in without_secrets(message)
    plan = eventful_plan()
    plan = plan.model_copy(update={"drift": (plan.drift[0].model_copy(update={"message": message}),)})
    assert secret not in text(plan)
    clean = plan_without_secrets(plan)
    assert secret not in clean.model_dump_json()
    assert clean.model_copy(update={"drift": ()}) == plan.model_copy(update={"drift": ()})


def test_what_is_no_secret_is_left_alone() -> None:
    plan = full_plan()
    assert plan_without_secrets(plan) is plan
    for words in ("the tokenizer: fast", "https://hub.example.org:8443/a@b", "tokens: 51200 of 4096"):
        assert without_secrets(words) == words


def test_colour_is_for_terminals() -> None:
    assert "\x1b[" not in text(busy_plan())
    assert "\x1b[" in text(busy_plan(), force_terminal=True, color_system="standard")
