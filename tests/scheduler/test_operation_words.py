"""How the daemon is and what was ordered, in words; and ``status --watch``."""

from __future__ import annotations

import io
from datetime import timedelta
from pathlib import Path

import pytest
from rich.console import Console

from scheduler.errors import OperatorError
from scheduler.heartbeat import Heartbeat, OnItsWay, beat, last_beat
from scheduler.progress import Follower, Said, Step
from scheduler.render.operation import (
    on_its_way_words,
    order_words,
    show_heartbeat,
    show_orders,
    taken_back_words,
)
from scheduler.render.watch import keep_showing
from scheduler.store.orders import Order, OrderKind
from scheduler.store.records import Parked
from scheduler.types import DeploymentStatus, Model
from tests.scheduler.builders import NOON, booking, cluster, cpu, deployed, known, planned

PLACEMENT = planned([booking("org/a")], cluster(cpu("c", 8)), known(a=1)).placements[0]


def shown(beat: Heartbeat) -> str:
    paper = Console(file=io.StringIO(), width=200)
    show_heartbeat(paper, beat, NOON)
    assert isinstance(paper.file, io.StringIO)
    return paper.file.getvalue()


def test_an_order_says_what_until_when_by_whom_and_why() -> None:
    pause = Order(kind=OrderKind.PAUSE, since=NOON, by="op@desk", note="new disks")
    assert order_words(pause, NOON) == (
        "Paused: nothing is changed until it is taken back (by op@desk: new disks)."
    )
    drain = Order(kind=OrderKind.DRAIN, subject="gpu-a", since=NOON, until=NOON + timedelta(hours=1))
    assert order_words(drain, NOON, NOON.tzinfo) == "gpu-a takes nothing new, and is emptied until 13:00."
    paper = Console(file=io.StringIO(), width=200)
    show_orders(paper, (pause,), NOON)
    assert isinstance(paper.file, io.StringIO)
    assert paper.file.getvalue().startswith("Paused")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (OrderKind.PAUSE, "No longer paused: what is booked is carried out again"),
        (OrderKind.PIN, "gpu-a is no longer pinned, and serves only while it is booked"),
        (OrderKind.EVICT, "gpu-a is no longer kept down, and serves again while it is booked"),
        (OrderKind.CORDON, "gpu-a takes models again"),
        (OrderKind.DRAIN, "gpu-a is no longer emptied, and takes models again"),
    ],
)
def test_an_order_that_is_taken_back_says_what_holds_instead(kind: OrderKind, words: str) -> None:
    order = Order(kind=kind, subject="gpu-a", since=NOON)
    assert taken_back_words(order) == f"{words}."
    noted = order.model_copy(update={"by": "op@desk", "note": "new disks"})
    assert taken_back_words(noted) == f"{words} (it was ordered by op@desk: new disks)."


def test_everything_that_hinders_the_daemon_is_shown() -> None:
    parked = Parked(
        model_key=Model(repo_id="org/a").key,
        error="Traceback\nOSError: no disk",
        since=NOON,
        tries=3,
        retry_at=NOON,
        signature="s",
    )
    said = shown(
        Heartbeat(
            pid=1,
            started=NOON,
            at=NOON,
            problem="Ray is away.",
            waits_for="other (process 7)",
            held="3 bookings vanished at once.",
            parked=(parked,),
            away=("gpu-b",),
            in_use="The memory of a GPU of gpu-c is still in use.",
            stuck={"planning": 99.0},
            unreadable={"ndif-model-x": "node: Field required"},
            lost_records=4,
        )
    )
    for words in (
        "Ray is away.",
        "other (process 7)",
        "3 bookings vanished",
        "org/a failed to load 3 times (OSError: no disk)",
        "node gpu-b is gone",
        "memory of a GPU of gpu-c",
        "planning is stuck, for 99 s",
        "ndif-model-x cannot be read: node: Field required",
        "4 records",
    ):
        assert words in said


def test_progress_is_by_what_the_replica_says_else_by_how_long_it_took_before() -> None:
    loading = deployed(PLACEMENT, DeploymentStatus.LOADING)
    follower, name = Follower(), loading.application
    follower.update([loading], 0.0)
    assert follower.loading(loading, 5.0).fraction is None
    assert follower.loading(loading, 5.0, {}, {name: 20.0}).fraction == 0.25
    assert follower.loading(loading, 90.0, {}, {name: 20.0}).fraction == 0.99
    told = follower.loading(loading, 5.0, {name: Said(Step.DOWNLOADING, 0.5)}, {name: 20.0})
    assert (told.step, told.fraction) == (Step.DOWNLOADING, 0.5)
    (change,) = follower.update([loading], 6.0, {name: Said(Step.WARMING)})
    assert change.step is Step.WARMING


def test_how_far_a_model_is_is_drawn() -> None:
    one = OnItsWay(application="a", model="org/a", node="c", step="loading", seconds=5.0, fraction=0.25)
    assert on_its_way_words(one) == "org/a on c: loading █████░░░░░░░░░░░░░░░ 25%, for 5 s"
    unknown = one.model_copy(update={"fraction": None})
    assert on_its_way_words(unknown) == "org/a on c: loading, for 5 s"


def test_watching_shows_again_what_it_can_and_says_what_it_cannot() -> None:
    console, looks = Console(file=io.StringIO(), width=80, force_terminal=True), []

    def show(paper: Console) -> None:
        looks.append(1)
        if len(looks) == 2:
            raise OperatorError("Ray is away.", "Wait.")
        paper.print(f"look {len(looks)}")

    keep_showing(console, show, times=3, every_seconds=0)
    assert isinstance(console.file, io.StringIO)
    seen = console.file.getvalue()
    assert len(looks) == 3
    for words in ("look 1", "Ray is away.", "look 3"):
        assert words in seen


def test_the_heartbeat_is_read_back_and_a_broken_one_is_none(tmp_path: Path) -> None:
    folder = tmp_path
    one = Heartbeat(pid=1, started=NOON, at=NOON)
    assert beat(folder, one) == ""
    assert last_beat(folder) == one
    (folder / "daemon.json").write_text("{")
    assert last_beat(folder) is None
    assert beat(folder / "none", one) != ""
