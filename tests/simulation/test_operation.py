"""What an operator orders, and what the daemon looks at twice: the whole daemon on a simulated day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from calendars.google_events import STATE_PROPERTY
from scheduler.cluster.dashboard import Dashboard
from scheduler.errors import OperatorError
from scheduler.settings import Settings
from scheduler.store.orders import OrderKind
from tests.simulation.harness import World, world

OPTIONS = {"poll_seconds": 600.0, "load_seconds": 8.0}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[World]:
    """Phi is booked from ten to twelve and serves; llama from eleven to one; it is half past ten."""
    with world(tmp_path, "2026-03-25T09:50", **OPTIONS) as found:  # type: ignore[arg-type]
        found.calendar.add("phi", "2026-03-25T10:00", "2026-03-25T12:00", id="running")
        found.calendar.add("llama", "2026-03-25T11:00", "2026-03-25T13:00", id="later0")
        found.run_until("2026-03-25T10:30")
        assert found.serving() == {"phi"}
        yield found
        assert found.faults_of_the_loop() == []


def said(lab: World, words: str) -> list[str]:
    return [line for line in lab.said if words in line]


# The hand brake


def test_paused_nothing_is_changed_and_everybody_can_see_it(lab: World) -> None:
    lab.order(OrderKind.PAUSE)
    puts = len(lab.ray.puts)
    lab.run_until("2026-03-25T12:30")
    assert (lab.serving(), len(lab.ray.puts)) == ({"phi"}, puts)
    assert lab.heartbeat.pause is not None
    assert len(said(lab, "Paused by op@desk")) == 1
    lab.take_back()
    lab.run_for(seconds=30)
    assert lab.serving() == {"llama"}
    assert lab.heartbeat.pause is None
    assert said(lab, "Not paused any more")


def test_a_pause_with_an_end_ends(lab: World) -> None:
    lab.order(OrderKind.PAUSE, hours=1)
    lab.run_until("2026-03-25T11:29")
    assert lab.serving() == {"phi"}
    lab.run_until("2026-03-25T11:31")
    assert lab.serving() == {"phi", "llama"}


def test_a_pause_stands_over_a_restart(lab: World) -> None:
    lab.order(OrderKind.PAUSE)
    lab.start()
    lab.run_until("2026-03-25T12:30")
    assert lab.serving() == {"phi"}


def test_orders_that_cannot_be_read_stop_everything_until_they_can(lab: World) -> None:
    lab.settings.in_state_dir("orders.json").write_text("{")
    puts = len(lab.ray.puts)
    lab.run_until("2026-03-25T12:30")
    assert (lab.serving(), len(lab.ray.puts)) == ({"phi"}, puts)
    assert "orders.json" in lab.heartbeat.problem
    lab.settings.in_state_dir("orders.json").unlink()
    lab.poll()
    lab.run_for(seconds=20)
    assert lab.serving() == {"llama"}


# Bookings by hand


def test_a_pinned_model_serves_for_as_long_as_it_was_pinned(lab: World) -> None:
    lab.order(OrderKind.PIN, "mistral", hours=1)
    lab.run_for(seconds=20)
    assert lab.serving() == {"phi", "mistral"}
    lab.run_until("2026-03-25T11:29:59")
    assert "mistral" in lab.serving()
    lab.run_until("2026-03-25T11:31")
    assert "mistral" not in lab.serving()
    (record,) = lab.history().manual(lab.clock() - timedelta(hours=3))
    assert (record.kind, record.subject, record.by) == ("pin", "mistral", "op@desk")


def test_an_evicted_model_goes_is_told_and_comes_back(lab: World) -> None:
    lab.order(OrderKind.EVICT, "Phi", hours=0.5)
    lab.run_for(minutes=1)
    assert lab.serving() == set()
    event = lab.calendar.event("running")
    assert event["extendedProperties"]["private"][STATE_PROPERTY] == "refused"
    assert "taken it down until 2026-03-25 10:00 UTC" in event["description"]
    lab.run_until("2026-03-25T11:02")
    assert lab.serving() == {"phi", "llama"}
    assert lab.state("running") == "serving"


def test_on_a_cordoned_node_what_runs_stays_and_nothing_new_comes(lab: World) -> None:
    (node,) = {app.config["args"]["node"] for app in lab.ray.serve.apps.values() if "phi" in app.name}
    lab.order(OrderKind.CORDON, node)
    lab.run_until("2026-03-25T11:30")
    where = {
        app.config["args"]["repo_id"]: app.config["args"]["node"]
        for app in lab.ray.serve.apps.values()
        if "node" in app.config.get("args", {})
    }
    assert where["lab/phi"] == node
    assert where["lab/llama"] != node


def test_what_runs_on_a_node_that_is_drained_moves(lab: World) -> None:
    (node,) = {app.config["args"]["node"] for app in lab.ray.serve.apps.values() if "phi" in app.name}
    lab.order(OrderKind.DRAIN, node)
    lab.run_for(minutes=2)
    assert lab.serving() == {"phi"}
    where = {app.config["args"]["node"] for app in lab.ray.serve.apps.values() if "phi" in app.name}
    assert node not in where


# What is looked at twice


def test_a_calendar_that_shrinks_at_once_is_read_twice_before_it_is_believed(tmp_path: Path) -> None:
    with world(tmp_path, "2026-03-25T08:00", **OPTIONS) as lab:  # type: ignore[arg-type]
        for alias in ("phi", "llama", "mistral"):
            lab.calendar.add(alias, "2026-03-25T09:00", "2026-03-25T12:00", id=f"{alias}00"[:5])
        lab.run_until("2026-03-25T10:00:10")
        assert lab.serving() == {"phi", "llama", "mistral"}
        for alias in ("phi", "llama", "mistral"):
            lab.calendar.cancel(f"{alias}00"[:5])
        lab.poll()
        assert lab.serving() == {"phi", "llama", "mistral"}
        assert "second reading" in lab.heartbeat.held
        lab.poll()
        assert lab.models() == {}
        assert lab.heartbeat.held == ""


def test_a_calendar_that_was_empty_for_a_moment_takes_nothing_down(tmp_path: Path) -> None:
    with world(tmp_path, "2026-03-25T08:00", **OPTIONS) as lab:  # type: ignore[arg-type]
        names = [f"{alias}00"[:5] for alias in ("phi", "llama", "mistral")]
        for alias, name in zip(("phi", "llama", "mistral"), names, strict=True):
            lab.calendar.add(alias, "2026-03-25T09:00", "2026-03-25T12:00", id=name)
        lab.run_until("2026-03-25T10:00:10")
        replicas = {one.number for app in lab.ray.serve.apps.values() for one in app.replicas}
        for name in names:
            lab.calendar.cancel(name)
        lab.poll()
        for alias in ("phi", "llama", "mistral"):
            lab.calendar.add(alias, "2026-03-25T09:00", "2026-03-25T12:00")
        lab.poll()
        lab.poll()
        assert {one.number for app in lab.ray.serve.apps.values() for one in app.replicas} == replicas


def test_one_booking_that_is_deleted_goes_at_the_next_reading(lab: World) -> None:
    lab.calendar.cancel("running")
    lab.poll()
    assert "phi" not in lab.serving()


def test_what_comes_to_a_gpu_whose_memory_is_still_in_use_waits_and_says_so(tmp_path: Path) -> None:
    options: dict[str, Any] = OPTIONS | {"gpus": {"gpu-a": 1}, "guard": {"held_memory_seconds": 7200}}
    with world(tmp_path, "2026-03-25T10:00", **options) as lab:
        lab.calendar.add("llama", "2026-03-25T11:00", "2026-03-25T13:00")
        lab.ray.left_over = {"gpu-a": 1}
        lab.run_until("2026-03-25T11:05")
        assert lab.models() == {}
        assert lab.heartbeat.in_use.startswith(
            "Nobody has it by Ray's books, but the memory of a GPU of gpu-a"
        )
        assert len(said(lab, "is still in use, so what shall come there waits")) == 1
        lab.ray.left_over.clear()
        lab.run_for(minutes=10)
        assert lab.serving() == {"llama"}
        assert lab.heartbeat.in_use == ""


def test_memory_that_stays_in_use_is_done_without(tmp_path: Path) -> None:
    options: dict[str, Any] = OPTIONS | {"gpus": {"gpu-a": 1, "gpu-b": 1}}
    with world(tmp_path, "2026-03-25T10:00", **options) as lab:
        lab.calendar.add("llama", "2026-03-25T11:00", "2026-03-25T13:00")
        lab.poll()
        plan = lab.daemon.last_plan
        assert plan is not None
        node = plan.upcoming[0].node
        lab.ray.left_over = {node: 1}
        lab.run_until("2026-03-25T11:00")
        assert lab.serving() == {"llama"}
        assert node not in {one.config["args"].get("node") for one in lab.ray.serve.apps.values()}
        assert f"the memory of a GPU of {node} stays in use, and is done without" in lab.heartbeat.in_use


def test_a_node_that_is_gone_for_a_moment_moves_nothing(lab: World) -> None:
    (app,) = [one for one in lab.ray.serve.apps.values() if "phi" in one.name]
    node = app.config["args"]["node"]
    lab.poll_seconds = 5
    lab.poll()
    lab.ray.kill_node(node)
    lab.run_for(seconds=15)
    assert lab.heartbeat.away == (node,)
    lab.ray.add_node(node, gpus=2 if node == "gpu-a" else 1)
    lab.run_for(seconds=30)
    assert lab.serving() == {"phi"}
    assert [one.config["args"]["node"] for one in lab.ray.serve.apps.values() if "phi" in one.name] == [node]


def test_a_node_that_stays_away_is_done_without(lab: World) -> None:
    (app,) = [one for one in lab.ray.serve.apps.values() if "phi" in one.name]
    node = app.config["args"]["node"]
    lab.poll_seconds = 5
    lab.poll()
    lab.ray.kill_node(node)
    lab.run_for(seconds=45)
    assert lab.serving() == {"phi"}
    assert [a.config["args"]["node"] for a in lab.ray.serve.apps.values() if "phi" in a.name] != [node]


# What fails to load


def test_a_model_that_fails_to_load_is_parked_told_and_tried_less_and_less_often(lab: World) -> None:
    lab.ray.serve.fail_start["llama"] = "Traceback\n  x\nOSError: no such file"
    lab.run_until("2026-03-25T11:00:10")
    assert "llama" not in lab.models()
    (parked,) = lab.heartbeat.parked
    assert parked.error.endswith("OSError: no such file")
    assert lab.state("later0") == "refused"
    assert "OSError: no such file" in lab.calendar.event("later0")["description"]
    lab.run_until("2026-03-25T12:55")
    tries = said(lab, "Left alone until")
    assert 5 <= len(tries) <= 9
    assert lab.serving() == set()
    (promise,) = [
        one for one in lab.history().promises(lab.clock() - timedelta(hours=9)) if "later0" in one.event
    ]
    assert promise.state == "broken"


def test_a_parked_model_that_can_be_loaded_again_serves_and_keeps_its_room(lab: World) -> None:
    lab.ray.serve.fail_start["llama"] = "OSError: for a while"
    lab.run_until("2026-03-25T11:03")
    lab.ray.serve.fail_start.clear()
    lab.run_until("2026-03-25T11:20")
    assert lab.serving() == {"phi", "llama"}
    assert lab.heartbeat.parked == ()
    assert lab.state("later0") == "serving"


def test_it_is_tried_at_once_when_its_booking_is_changed(lab: World) -> None:
    lab.ray.serve.fail_start["llama"] = "OSError: for a while"
    lab.run_until("2026-03-25T11:31")
    lab.ray.serve.fail_start.clear()
    lab.calendar.move("later0", "2026-03-25T11:00", "2026-03-25T14:00")
    lab.poll()
    lab.run_for(seconds=20)
    assert "llama" in lab.serving()


def test_a_restart_does_not_make_a_parked_model_flap(lab: World) -> None:
    lab.ray.serve.fail_start["llama"] = "OSError: for ever"
    lab.run_until("2026-03-25T11:20")
    puts = len(lab.ray.puts)
    for _ in range(3):
        lab.start()
        lab.run_for(seconds=5)
    assert len(lab.ray.puts) == puts


def test_a_model_that_fails_on_one_node_and_serves_on_another_keeps_serving(tmp_path: Path) -> None:
    with world(tmp_path, "2026-03-25T08:00", gpus={"gpu-a": 1, "gpu-b": 1}, **OPTIONS) as lab:  # type: ignore[arg-type]
        lab.calendar.add("qwen", "2026-03-25T09:00", "2026-03-25T10:00", "replicas: 2")
        lab.ray.serve.fail_start["gpu-b"] = "OSError: bad disk"
        lab.run_until("2026-03-25T09:30")
        apps = {name: status for name, status in lab.ray.statuses().items() if name.startswith("ndif-model")}
        assert sorted(apps.values()) == ["DEPLOY_FAILED", "RUNNING"]


# What is not ours any more


def test_one_application_of_ours_that_cannot_be_read_stops_nothing(lab: World) -> None:
    dashboard = Dashboard(lab.ray.url, lab.settings.token_file, 5)
    listed = [app.config for app in lab.ray.serve.apps.values() if app.declarative and app.gone_at is None]
    strange = {
        "name": "ndif-model-strange",
        "route_prefix": None,
        "import_path": "serve_apps.model.app:build",
        "args": {"marker": "ndif-ray-service", "kind": "model", "contract": 77, "later": 1},
        "deployments": [{"name": "Model"}],
    }
    dashboard.put_serve_config({"applications": [*listed, strange]})
    dashboard.close()
    lab.run_until("2026-03-25T11:30")
    statuses = lab.ray.statuses()
    running = [name for name, status in statuses.items() if status == "RUNNING"]
    assert [any(f"-{alias}-" in name for name in running) for alias in ("phi", "llama")] == [True, True]
    assert "ndif-model-strange" in statuses
    assert list(lab.heartbeat.unreadable) == ["ndif-model-strange"]
    assert len(said(lab, "ndif-model-strange")) == 1


# Settings


def test_settings_are_read_anew_when_asked_and_bad_ones_are_told_and_not_taken(
    lab: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    calendar = lab.settings.calendar.model_copy(update={"warn_before_end_minutes": 30.0})
    changed = lab.settings.model_copy(update={"calendar": calendar})

    def unusable() -> Settings:
        raise OperatorError("NDIF_SERVE__PORT is 'x'.", "Correct it.")

    monkeypatch.setattr("scheduler.daemon.set_up_logging", lambda *_: None)
    monkeypatch.setattr(lab.daemon, "_reload", unusable)
    lab.daemon._asked._reload.set()
    lab.poll()
    assert len(said(lab, "NDIF_SERVE__PORT is 'x'")) == 1
    monkeypatch.setattr(lab.daemon, "_reload", lambda: changed)
    lab.daemon._asked._reload.set()
    lab.poll()
    assert said(lab, "The settings were read anew")
    lab.run_until("2026-03-25T11:29:59")
    assert "It ends at" not in lab.calendar.event("running")["description"]
    lab.run_until("2026-03-25T11:30:01")
    assert "It ends at" in lab.calendar.event("running")["description"]


# The end


def test_an_event_is_told_beforehand_that_it_ends(lab: World) -> None:
    lab.run_until("2026-03-25T11:49:59")
    assert "It ends at" not in lab.calendar.event("running")["description"]
    lab.run_until("2026-03-25T11:50:01")
    assert "It ends at 11:00 UTC" in lab.calendar.event("running")["description"]
    assert "It ends at" not in lab.calendar.event("later0")["description"]


# History


def test_the_history_tells_what_became_of_last_nights_booking(lab: World) -> None:
    lab.run_until("2026-03-25T11:30")
    lab.start()
    lab.run_until("2026-03-25T13:30")
    history = lab.history()
    since = lab.clock() - timedelta(days=1)
    found = {one.title: one for one in history.promises(since)}
    assert {title: (one.state, one.lateness_seconds) for title, one in found.items()} == {
        "phi": ("kept", 0.0),
        "llama": ("kept", 0.0),
    }
    assert [one.state for one in history.changes(since) if one.title == "phi"] == [
        "scheduled",
        "loading",
        "serving",
        "serving",
        "ended",
    ]
    assert {one.outcome for one in history.plans(since)} == {"applied"}
    (phi,) = [one for one in history.load_times().values() if "phi" in one.model_key]
    assert 8 <= phi.seconds_last <= 13


def test_a_history_that_cannot_be_written_stops_nothing(lab: World) -> None:
    lab.history()._database._connection.execute("PRAGMA query_only = 1")
    lab.run_until("2026-03-25T11:30")
    assert lab.serving() == {"phi", "llama"}
    assert lab.heartbeat.lost_records > 0
    assert len(said(lab, "cannot be kept")) == 1


def test_a_daemon_that_was_killed_while_something_loads_does_not_note_a_wrong_time(lab: World) -> None:
    while "llama" not in lab.models():
        lab.run_for(seconds=1)
    lab.run_for(seconds=5)
    lab.start()
    lab.run_for(seconds=30)
    assert "llama" in lab.serving()
    assert [one for one in lab.history().load_times().values() if "llama" in one.model_key] == []
