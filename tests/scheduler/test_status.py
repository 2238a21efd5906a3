"""``status`` and ``status --watch``: what the page shows, as a terminal shows it."""

from __future__ import annotations

import io
from datetime import timedelta

import pyte
from rich.console import Console

from scheduler.cluster.node import Node
from scheduler.heartbeat import Heartbeat, OnItsWay
from scheduler.render.memory import bar, held
from scheduler.render.operation import show_heartbeat
from scheduler.render.status import show_promises, show_status
from scheduler.render.watch import keep_showing
from scheduler.store.records import PromiseRecord
from scheduler.types import Deployment, DeploymentStatus, Observed, Plan
from tests.scheduler.builders import GIB, NOON, booking, cluster, cpu, deployed, gpus, known, planned

HOUR = timedelta(hours=1)


def full() -> tuple[Plan, Observed]:
    """A GPU that is taken until three o'clock, and one booking too many."""
    on = cluster(gpus("gpu-a", 2, 80, taken=1.0), cpu("login", 8))
    bookings = [
        booking("org/a", 0, 3),
        booking("org/b", 1, 2, key="b", booked=-1),
    ]
    plan = planned(bookings, on, known(a=70, b=70))
    running = tuple(deployed(one) for one in plan.placements)
    return plan, Observed(cluster=on, deployments=running)


def promise(title: str, start: float, **more: object) -> PromiseRecord:
    fields = {
        "calendar": "lab",
        "event": title,
        "title": title,
        "model": "org/a",
        "start": NOON + start * HOUR,
        "end": NOON + (start + 1) * HOUR,
    }
    return PromiseRecord.model_validate(fields | more)


def text(show: object, width: int = 100) -> str:
    paper = Console(file=io.StringIO(), width=width, highlight=False)
    show(paper)  # type: ignore[operator]
    assert isinstance(paper.file, io.StringIO)
    return paper.file.getvalue()


def test_what_cannot_be_met_is_told_with_its_earliest_slot() -> None:
    plan, observed = full()
    said = text(lambda paper: show_status(paper, plan, observed, ("RUNNING", ""), 7, "http://gateway"))
    assert "! “org/b” it needs 70.0 GiB on one device" in said
    assert "It would fit from" in said and "for as long as it lasts." in said


def test_nodes_have_bars_of_who_holds_their_memory() -> None:
    plan, observed = full()
    said = text(lambda paper: show_status(paper, plan, observed, ("RUNNING", ""), 7, "http://gateway"))
    assert "gpu-a ██████████▒▒▒▒▒▒▒▒▒▒▒▒░░ 10.0 GiB free of 160.0 GiB, 2 x GPU" in said
    assert "login ░░░░░░░░░░░░░░░░░░░░░░░░ 8.0 GiB free of 8.0 GiB, CPU" in said


def test_a_replica_on_whole_gpus_holds_them_whole() -> None:
    plan = planned([booking("org/a", gpus=2)], cluster(gpus("gpu-a", 4, 80)), known(a=70))
    node: Node = plan.cluster.nodes[0]
    one: Deployment = deployed(plan.placements[0])
    assert held(node, [one]).ours == 160 * GIB
    assert held(node, [one]).free == 160 * GIB
    assert bar(held(node, [one]), 8) == "████░░░░"


def test_promises_are_counted_and_those_not_kept_are_named() -> None:
    promises = [
        promise("one", -3, state="kept", lateness_seconds=0.0),
        promise("two", -2, state="late", lateness_seconds=190.0),
        promise("three", -1, state="broken", broken_why="Its node was lost."),
        promise("four", 2, state="waiting"),
    ]
    said = text(lambda paper: show_promises(paper, promises, NOON))
    assert "1 of 3 kept in 24 h, 1 late, 1 broken" in said
    assert "“two”" in said and "4 min late." in said
    assert "“three”" in said and "Its node was lost." in said
    assert "“one”" not in said and "four" not in said
    assert text(lambda paper: show_promises(paper, [], NOON)) == ""


def screen_after(show: object, times: int, rows: int = 24, columns: int = 80) -> pyte.HistoryScreen:
    """What a terminal of that size holds after so many looks."""
    written = io.StringIO()
    console = Console(
        file=written, force_terminal=True, width=columns, height=rows, highlight=False, color_system=None
    )
    keep_showing(console, show, times=times, every_seconds=0)  # type: ignore[arg-type]
    seen = pyte.HistoryScreen(columns, rows, history=1000)
    seen.set_mode(pyte.modes.LNM)
    # up to where the screen of its own is left
    before, leaves, _ = written.getvalue().rpartition("\x1b[?1049l")
    assert leaves, "it had no screen to itself"
    pyte.Stream(seen).feed(before)
    return seen


def test_watching_shows_progress_in_place() -> None:
    plan, observed = full()
    fractions = iter((0.1, 0.5, 0.75))

    def show(paper: Console) -> None:
        coming = OnItsWay(
            application="a",
            model="org/a",
            node="gpu-a",
            step="loading",
            seconds=5,
            fraction=next(fractions),
        )
        show_heartbeat(paper, Heartbeat(pid=7, started=NOON, at=NOON, on_its_way=(coming,)), NOON)
        show_status(paper, plan, observed, ("RUNNING", ""), 7, "http://gateway")

    lines = [line.rstrip() for line in screen_after(show, 3).display]
    assert lines[0] == "  org/a on gpu-a: loading ███████████████░░░░░ 75%, for 5 s"
    assert not any("10%" in line or "50%" in line for line in lines)
    assert any("Cannot be met" in line for line in lines)


def test_what_does_not_fit_on_the_screen_is_counted_and_never_scrolls() -> None:
    looks = iter(range(5))

    def show(paper: Console) -> None:
        look = next(looks)
        for number in range(100):
            paper.print(f"line {number} of look {look}")

    seen = screen_after(show, 4, rows=12)
    assert seen.display[0].startswith("line 0 of look 3")
    assert seen.display[-1].startswith("89 more lines; make the window taller")
    assert not seen.history.top, "something scrolled away"


def test_what_was_seen_last_stays_behind() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=80, height=5, color_system=None)
    keep_showing(console, lambda paper: paper.print("the end"), times=2, every_seconds=0)
    assert written.getvalue().rpartition("\x1b[?1049l")[2].strip().startswith("the end")


def test_a_failed_model_says_why() -> None:
    plan, observed = full()
    failed = observed.deployments[0].model_copy(
        update={"status": DeploymentStatus.FAILED, "message": "Traceback\nOSError: no disk"}
    )
    broken = observed.model_copy(update={"deployments": (failed,)})
    said = text(lambda paper: show_status(paper, plan, broken, ("RUNNING", ""), 7, "http://gateway"))
    assert "OSError: no disk" in said
