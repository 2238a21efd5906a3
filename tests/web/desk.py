"""A desk to serve the page from: a week at a laboratory, planned by the planner itself.

with served(desk_for(tmp_path, week())) as url: ...
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn

from calendars.reservation import Misunderstood, ModelRequest, Reading, Reservation
from scheduler.board import Board, CalendarView, View
from scheduler.cluster.node import Cluster
from scheduler.errors import OperatorError
from scheduler.front import Lease
from scheduler.heartbeat import Heartbeat, OnItsWay
from scheduler.orders import closed_by
from scheduler.planning.footprint import Loads, Sizing
from scheduler.planning.plan import Known, Policy, make_plan
from scheduler.settings import Settings
from scheduler.store.history import FILE, Recorder
from scheduler.store.orders import Order, OrderKind, Orders
from scheduler.store.records import PromiseRecord
from scheduler.supposing import Supposed, Supposition, judged
from scheduler.types import Checkpoint, Deployment, DeploymentStatus, Model, Observed, Plan, UnknownSize
from scheduler.web.app import Exposition, make_app
from scheduler.web.desk import Desk
from tests.scheduler.builders import GIB, NOON, cluster, cpu, deployed, gib_model, gpus

NOW = NOON + timedelta(hours=2, minutes=20)
KEY = "a key of at least sixteen characters"
CALENDAR = "lab@group.calendar.google.com"
SIZES = {
    "meta-llama/Llama-3.3-70B-Instruct": 131.5,
    "Qwen/Qwen3-32B": 66.0,
    "google/gemma-3-27b-it": 55.0,
    "openai/gpt-oss-120b": 240.0,
    "deepseek-ai/DeepSeek-V3": 1340.0,
    "allenai/OLMo-2-1124-13B": 28.0,
    "EleutherAI/pythia-12b": 24.0,
    "openai-community/gpt2": 0.6,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 0.3,
    "secret-lab/unpublished-9b": 18.0,
}
OTHER_GIB = 30.0
"""Of any other model."""
SIZING = Sizing(load_bytes_per_second=0.6 * GIB, download_bytes_per_second=0.3 * GIB)


def book(
    title: str,
    model: str,
    start: float,
    end: float,
    owner: str = "ada@example.org",
    *,
    booked: float = -48,
    **request: object,
) -> Reservation:
    """A booking; times are hours from noon of the first day."""
    return Reservation(
        key=f"{title}@{start}",
        calendar=CALENDAR,
        title=title,
        start=NOON + timedelta(hours=start),
        end=NOON + timedelta(hours=end),
        booked_at=NOON + timedelta(hours=booked),
        owner=owner,
        people=(owner,),
        request=ModelRequest.model_validate({"model": model, **request}),
    )


def week() -> list[Reservation]:
    """What a laboratory books."""
    llama, qwen, gemma = list(SIZES)[:3]
    found = [
        book("Llama-70B for the steering seminar", llama, -5, 6, "ada@example.org"),
        book("Qwen3-32B, probing runs", qwen, -20, 30, "grace@example.org", replicas=2),
        book("gemma circuits", gemma, 2.2, 9, "alan@example.org"),
        book("SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct", -30, 120, "ops@example.org"),
        book("gpt-oss-120b evaluation", "openai/gpt-oss-120b", 8, 20, "katherine@example.org", gpus=4),
        book("DeepSeek-V3 red team", "deepseek-ai/DeepSeek-V3", 30, 54, "mary@example.org", gpus=8),
        book("OLMo checkpoints", "allenai/OLMo-2-1124-13B", 20, 68, "ida@example.org"),
        book("secret review", "secret-lab/unpublished-9b", 1, 26, "rosalind@example.org", private=True),
        book("Llama-70B, again", llama, 44, 62, "ada@example.org", replicas=2),
        book("pythia-12b scaling laws", "EleutherAI/pythia-12b", 74, 140, "grace@example.org"),
        book("gpt2 for the tutorial", "openai-community/gpt2", 90, 94, "alan@example.org", replicas=4),
        book("Llama-70B, all of a node", llama, 5, 11, "edsger@example.org", booked=-0.5, gpus=8),
        book("Qwen3-32B, 8 GPUs each", qwen, 4, 12, "barbara@example.org", booked=-1, gpus=8),
    ]
    for day in range(1, 6):
        found.append(book("gemma, daily", gemma, 24 * day - 3, 24 * day + 1, "alan@example.org"))
    return found


def lab() -> Cluster:
    """Two nodes of large GPUs, an older one, and one without."""
    kinds = {"gpu-a": "NVIDIA-H100", "gpu-b": "NVIDIA-H100", "gpu-old": "NVIDIA-A100-40G"}
    nodes = (gpus("gpu-a", 8, 80), gpus("gpu-b", 8, 80), gpus("gpu-old", 4, 40, taken=1.0), cpu("login", 64))
    return cluster(*(one.model_copy(update={"accelerator": kinds.get(one.name)}) for one in nodes))


def seen(
    bookings: list[Reservation],
    on: Cluster | None = None,
    *,
    at: datetime = NOW,
    misunderstood: tuple[Misunderstood, ...] = (),
    orders: tuple[Order, ...] = (),
    **beat: Any,
) -> View:
    """What the daemon knows then: planned at an earlier moment, carried out, and planned again."""
    on = closed_by(lab() if on is None else on, Orders(orders=orders), at)
    checkpoints: dict[str, Checkpoint | UnknownSize] = {
        Model(repo_id=name).key: gib_model(SIZES.get(name, OTHER_GIB))
        for name in (*SIZES, *(one.request.model for one in bookings))
    }
    reading = Reading(calendar=CALENDAR, reservations=tuple(bookings), misunderstood=misunderstood)
    known = Known(checkpoints=checkpoints, loads=Loads(SIZING), policy=Policy())
    earlier = at - timedelta(hours=1)
    begun = make_plan((reading,), Observed(cluster=on, fingerprint="a"), earlier, known)
    running = [deployed(one, since=earlier) for one in begun.placements]
    known = Known(checkpoints=checkpoints, loads=Loads(SIZING), policy=Policy(), previous=begun.promises)
    before = Observed(cluster=on, deployments=tuple(running), fingerprint="b")
    plan = make_plan((reading,), before, at, known)
    there = {one.identity: one for one in running}
    shown = tuple(_as_seen(one, there) for one in plan.placements)
    coming = tuple(
        OnItsWay(
            application=one.application,
            model=one.model.name,
            node=one.node,
            step="downloading",
            seconds=74.0,
            fraction=0.62,
        )
        for one in shown
        if one.status is DeploymentStatus.LOADING
    )
    return View(
        beat=Heartbeat(
            pid=1,
            started=at - timedelta(days=12),
            at=at,
            passes=8412,
            orders=orders,
            on_its_way=coming,
            **beat,
        ),
        plan=plan,
        observed=Observed(cluster=on, deployments=shown, fingerprint="c"),
        gateway=("RUNNING", ""),
        readings=(reading,),
        calendars=(CalendarView(CALENDAR, at - timedelta(seconds=3)),),
        lease=Lease(ours=True),
        next_pass=at + timedelta(seconds=10),
    )


def _as_seen(placement: Any, there: dict[tuple[str, str], Deployment]) -> Deployment:
    found = there.get(placement.identity)
    return found or deployed(placement, DeploymentStatus.LOADING, since=NOW)


def remember(folder: Path, at: datetime = NOW) -> None:
    """A past day: what was done, and what came of what was promised."""
    history = Recorder(folder / FILE, keep_days=30)
    llama, _, gemma = list(SIZES)[:3]

    def hours(ago: float) -> datetime:
        return at - timedelta(hours=ago)

    for ago, kind, model, node in (
        (20, "deploy", gemma, "gpu-a"),
        (16, "undeploy", gemma, "gpu-a"),
        (15, "deploy", "openai-community/gpt2", "gpu-old"),
        (12, "undeploy", "openai-community/gpt2", "gpu-old"),
        (11, "deploy", "openai/gpt-oss-120b", "gpu-b"),
        (9, "undeploy", "openai/gpt-oss-120b", "gpu-b"),
        (7.5, "deploy", llama, "gpu-a"),
        (0.4, "undeploy", "secret-lab/unpublished-9b", "gpu-old"),
    ):
        words = "1 to deploy." if kind == "deploy" else "1 to take down."
        history.planned(hours(ago), words, [f"{kind} {model} {node}"], "applied", seconds=1.3)
    past = [
        ("gemma, daily", gemma, 20, 16, {"state": "kept", "ready_at": hours(20.1), "lateness_seconds": 0.0}),
        ("gpt2 for the tutorial", "openai-community/gpt2", 15, 12,
         {"state": "late", "ready_at": hours(14.95), "lateness_seconds": 190.0}),
        ("gpt-oss smoke test", "openai/gpt-oss-120b", 11, 7,
         {"state": "broken", "broken_why": "It ceased to serve: node gpu-b was gone."}),
        ("Llama-70B for the steering seminar", llama, 7.3, -3.6,
         {"state": "kept", "ready_at": hours(7.4), "lateness_seconds": 0.0}),
        ("secret rehearsal", "secret-lab/unpublished-9b", 3, 0.4,
         {"state": "kept", "ready_at": hours(3), "lateness_seconds": 0.0, "private": True}),
    ]  # fmt: skip
    history.promised(
        PromiseRecord.model_validate(
            {
                "calendar": CALENDAR,
                "event": f"past {title}",
                "title": title,
                "model": model,
                "owner": "ada@example.org",
                "start": hours(start),
                "end": hours(end),
                **more,
            }
        )
        for title, model, start, end, more in past
    )
    history.close()


def not_understood() -> tuple[Misunderstood, ...]:
    """An event that is no booking."""
    return (
        Misunderstood(
            key="odd",
            calendar=CALENDAR,
            title="lama 3 big",
            start=NOON + timedelta(hours=50),
            end=NOON + timedelta(hours=60),
            owner="niklaus@example.org",
            reason="“lama 3 big” is not a model’s name.",
            example="model: Llama-70B",
        ),
    )


def cordoned(node: str = "gpu-old") -> Order:
    """The operator lets nothing new onto a node."""
    return Order(
        kind=OrderKind.CORDON, subject=node, since=NOW - timedelta(hours=3), by="ops@desk", note="fan"
    )


class Here:
    """Judges in this very process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def ask(self, booking: Reservation, view: View) -> Supposed:
        if view.observed is None:
            raise OperatorError("The daemon has not seen the cluster yet.", "Ask again in a moment.")
        return judged(Supposition(booking, view.readings, view.observed, view.beat.orders), self._settings)


def settings_for(folder: Path, **web: Any) -> Settings:
    """Settings of a service in a folder, with a catalog that knows every size."""
    lines = [
        f"  - {{alias: {name.rpartition('/')[2]}, repo_id: {name}, "
        f"parameters: {int(gib * GIB / 2)}, dtype: bfloat16}}"
        for name, gib in SIZES.items()
    ]
    (folder / "models.yml").write_text("models:\n" + "\n".join(lines) + "\n")
    return Settings(
        state_dir=folder,
        calendar={"google_calendar_id": CALENDAR, "google_creds_path": folder / "none.json"},
        models={"catalog": folder / "models.yml"},
        web={"port": 8280, **web},
    )


def desk_for(folder: Path, *views: View, at: datetime = NOW, **web: Any) -> Desk:
    """A desk at which these views were shown, the last of them last."""
    settings, board = settings_for(folder, **web), Board()
    for view in views:
        board.publish(view)
    return Desk(settings, board, Here(settings), clock=lambda: at)


@contextmanager
def served(desk: Desk, exposition: Exposition | None = None) -> Iterator[str]:
    """The page of a desk on a server of its own; its address."""
    config = uvicorn.Config(
        make_app(desk, exposition), host="127.0.0.1", port=0, log_level="error", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    started = threading.Event()
    startup = server.startup

    async def tell(*arguments: Any, **options: Any) -> None:
        await startup(*arguments, **options)
        started.set()

    server.startup = tell  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        assert started.wait(20), "the server does not start"
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


def plan_of(view: View) -> Plan:
    """The plan of a view that has one."""
    assert view.plan is not None
    return view.plan
