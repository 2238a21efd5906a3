"""The examples of docs/plan.md are what the code prints."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from datetime import UTC, timedelta

import click
import pytest
from rich.console import Console

from calendars.reservation import Reservation
from scheduler.cluster.node import Cluster, Node
from scheduler.decisions import differences
from scheduler.planning_commands import Exit, apply, plan
from scheduler.render.differences import show_differences
from scheduler.render.text import show_plan
from scheduler.render.timeline import show_timeline
from scheduler.render.what_if import show_answer
from scheduler.settings import ROOT
from scheduler.types import Plan
from scheduler.what_if import answer, booking_from
from tests.scheduler.builders import NOON, booking, carried_out, cluster, gpus, known, planned

PAGE = ROOT / "docs/plan.md"
SIZES = known(**{"Qwen3-8B": 18, "Llama-70B": 160, "vision": 40, "seminar": 600, "old": 30, "judge": 300})
WIDTH = 100


def kind(node: Node, accelerator: str) -> Node:
    return node.model_copy(update={"accelerator": accelerator})


ON = cluster(
    kind(gpus("gpu-a", 8, 80), "H100"), kind(gpus("gpu-b", 8, 80), "H100"), kind(gpus("gpu-c", 4, 24), "L4")
)
BOOKED = [
    booking("org/Llama-70B", -2, 4),
    booking("org/Qwen3-8B", -0.5, 6, replicas=2),
    booking("org/seminar", 1, 5, gpus=8, booked=-20),
    booking("org/vision", 3, 7, gpus=8, booked=-4),
]
TITLED = [one.model_copy(update={"title": one.title.removeprefix("org/")}) for one in BOOKED]


def the_plan(more: tuple[Reservation, ...] = (), on: Cluster = ON, minutes: float = 0) -> Plan:
    """What is planned at noon, or so many minutes later; an old model and Llama-70B run."""
    before = planned([booking("org/old", -5, 3), TITLED[0]], ON, SIZES, at=NOON - timedelta(hours=1))
    return planned(
        [*TITLED, *more],
        on,
        SIZES,
        running=carried_out(before),
        directory_version="old",
        at=NOON + timedelta(minutes=minutes),
    )


def printed(show: Callable[[Console], None]) -> str:
    console = Console(file=io.StringIO(), width=WIDTH, highlight=False, soft_wrap=True)
    show(console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def what_if(text: str) -> str:
    asked = booking_from(text, NOON)
    request = asked.request.model_copy(update={"model": f"org/{asked.request.model}"})
    found = answer(asked, the_plan(), the_plan((asked.model_copy(update={"request": request}),)))
    return printed(
        lambda console: show_answer(
            *(console, found.verdict, found.fits, found.nodes, found.affected),
            *(the_plan(), found.command, UTC),
        )
    )


EXAMPLES: dict[str, Callable[[], str]] = {
    "ndif-ray plan": lambda: printed(lambda console: show_plan(console, the_plan(), UTC)),
    "ndif-ray plan --timeline --hours 12": lambda: printed(
        lambda console: show_timeline(console, the_plan(), 12, UTC)
    ),
    "ndif-ray plan --without-node gpu-b": lambda: printed(
        lambda console: show_plan(
            console, the_plan(on=ON.without("gpu-b")), UTC, supposing=("gpu-b is gone",)
        )
    ),
    'ndif-ray plan --what-if "Llama-70B 8xH100 today 18:00-22:00"': lambda: what_if(
        "Llama-70B 8xH100 today 18:00-22:00"
    ),
    'ndif-ray plan --what-if "judge, 8xH100 today 14:00-18:00"': lambda: what_if(
        "judge, 8xH100 today 14:00-18:00"
    ),
    "ndif-ray apply plan.json": lambda: printed(
        lambda console: show_differences(console, differences(the_plan(), the_plan(on=ON.without("gpu-c"))))
    ),
}


@pytest.mark.parametrize("command", EXAMPLES)
def test_examples_are_what_is_printed(command: str, update_golden: bool) -> None:
    page = PAGE.read_text()
    block = re.compile(rf"(?<=^\$ {re.escape(command)}\n).*?(?=^(?:\$ |```))", re.DOTALL | re.MULTILINE)
    found = block.search(page)
    assert found, f"docs/plan.md does not show {command}"
    shown = found[0]
    written = EXAMPLES[command]()
    begins, cut, _ = shown.partition("…\n")
    stands = shown == written or bool(cut and begins and written.startswith(begins))
    if update_golden and not stands:
        PAGE.write_text(block.sub(lambda _: written, page, count=1))
        return
    assert stands, f"python -m pytest --update-golden writes it anew, as:\n{written}"


def test_every_option_is_on_the_page_and_the_other_way_round() -> None:
    page = PAGE.read_text()
    options = {
        name
        for command in (plan, apply)
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    }
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page))
    assert options - shown == set()
    assert shown - options <= {"--from", "--to", "--gpus", "--accelerator"}, "those of calendar book"


def test_every_exit_code_is_on_the_page_and_in_the_help() -> None:
    page, words = PAGE.read_text(), f"{plan.help}\n{apply.help}"
    for code in Exit:
        assert f"\n| {code.value} |" in page
        assert re.search(rf"^ +{code.value}  \w", words, re.MULTILINE)
