"""The daemon's metrics over simulated days: what is counted, and what is read off the board."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from scheduler.board import Board, CalendarView, View
from scheduler.front import Lease
from scheduler.heartbeat import Heartbeat
from scheduler.metrics import table
from scheduler.metrics.prometheus import PrometheusMeter, exposition_of, new_registry
from scheduler.metrics.state import BoardCollector
from scheduler.metrics.telemetry import Telemetry
from scheduler.store.orders import OrderKind
from tests.metrics.table_of import LINUX, samples
from tests.scheduler.builders import NOON
from tests.simulation.harness import World, world

GIB = 1024**3


class Watched:
    """A world whose daemon is measured; ``value`` reads the exposition as Prometheus would."""

    def __init__(self, lab: World) -> None:
        self.lab = lab
        self.telemetry = Telemetry(lab.settings, lab.board, now=lab.clock)
        lab.meter = self.telemetry.meter
        lab.start()

    def exposition(self) -> str:
        return self.telemetry.exposition()[0].decode()

    def value(self, name: str, **labels: str) -> float:
        return sum(
            one.value
            for one in samples(self.exposition())
            if one.name == name and labels.items() <= one.labels.items()
        )


@contextmanager
def watched(folder: Path, start: str, **options: object) -> Iterator[Watched]:
    with world(folder, start, **options) as lab:  # type: ignore[arg-type]
        found = Watched(lab)
        yield found
        found.telemetry.close()


def test_a_booking_that_is_kept_is_counted_from_reading_to_unloading(tmp_path: Path) -> None:
    with watched(tmp_path, "2026-03-25T08:00") as seen:
        lab = seen.lab
        lab.calendar.add("phi", "2026-03-25T09:00", "2026-03-25T10:00")
        lab.calendar.add("giant", "2026-03-25T09:00", "2026-03-25T10:00")
        lab.calendar.add("no model of this name", "2026-03-25T09:00", "2026-03-25T10:00")
        lab.run_until("2026-03-25T08:10")
        assert seen.value("ndif_reservations", state="coming") == 1
        assert (
            seen.value("ndif_reservations", state="refused")
            + seen.value("ndif_reservations", state="misunderstood")
            == 2
        )
        assert seen.value("ndif_models", tier="remote", state="booked") == 1
        assert seen.value("ndif_promises_at_risk") == 0

        lab.poll_seconds = 600
        lab.run_until("2026-03-25T09:30")
        assert seen.value("ndif_promises_total", outcome="kept") == 1
        assert seen.value("ndif_promise_late_seconds_count") == 1
        assert seen.value("ndif_promise_late_seconds_sum") == 0
        assert seen.value("ndif_models", tier="hot", state="serving") == 1
        assert seen.value("ndif_models", tier="remote") == 0
        assert seen.value("ndif_model_replicas", model="lab/phi", state="ready") == 1
        assert seen.value("ndif_model_load_duration_seconds_count", tier="remote") == 1
        assert seen.value("ndif_gateway_up") == 1
        assert seen.value("ndif_actions_total", kind="deploy", outcome="applied") == 1

        lab.run_until("2026-03-25T10:30")
        assert seen.value("ndif_models", tier="hot") == 0
        assert seen.value("ndif_models", tier="cold", state="on disk") == 1
        assert seen.value("ndif_actions_total", kind="undeploy", outcome="applied") == 1
        for state in ("scheduled", "loading", "serving", "ended"):
            assert seen.value("ndif_reservation_changes_total", state=state) >= 1, state
        assert seen.value("ndif_daemon_passes_total", outcome="done") >= lab.passes - 3
        assert seen.value("ndif_daemon_passes_total", outcome="fault") == 0
        for step in ("read", "observe", "plan", "apply", "answer"):
            assert seen.value("ndif_daemon_step_duration_seconds_count", step=step, outcome="done") > 0, step
        assert seen.value("ndif_daemon_step_duration_seconds_count", step="other") == 0


def test_memory_of_devices_is_shared_out_among_ours_others_and_nobody(tmp_path: Path) -> None:
    with watched(tmp_path, "2026-03-25T08:00", gpus={"gpu-a": 2, "gpu-b": 1}) as seen:
        seen.lab.calendar.add("qwen", "2026-03-25T08:00", "2026-03-25T10:00")
        seen.lab.run_until("2026-03-25T08:10")
        assert seen.value("ndif_devices", node="gpu-a") == 2
        capacity = seen.value("ndif_device_capacity_bytes")
        assert capacity == 3 * 80 * GIB
        assert seen.value("ndif_device_memory_bytes") == capacity
        assert 60 * GIB < seen.value("ndif_device_memory_bytes", holder="ours") <= 80 * GIB
        assert seen.value("ndif_device_memory_bytes", holder="others") == 0


def test_a_promise_that_is_late_and_one_that_breaks_are_told_with_the_reason(tmp_path: Path) -> None:
    # it loads for longer than anybody could know, and is booked for now
    with watched(tmp_path, "2026-03-25T08:00", gpus={"gpu-a": 1}, load_seconds=150.0) as seen:
        lab = seen.lab
        lab.calendar.add("phi", "2026-03-25T08:00", "2026-03-25T10:00")
        lab.run_for(seconds=5)
        assert seen.value("ndif_promises_at_risk", danger="overdue") == 1
        lab.run_until("2026-03-25T08:10")
        assert seen.value("ndif_promises_total", outcome="late") == 1
        assert 10 < seen.value("ndif_promise_late_seconds_sum") < 60
        assert seen.value("ndif_promises_at_risk") == 0

        lab.ray.kill_node("gpu-a")
        lab.run_for(minutes=5)
        assert seen.value("ndif_promises_total", outcome="broken") == 1
        broken = {
            one.labels["reason"]: one.value
            for one in samples(seen.exposition())
            if one.name == "ndif_promises_broken_total" and one.value
        }
        assert len(broken) == 1 and sum(broken.values()) == 1
        assert next(iter(broken)) != ""


def test_a_calendar_that_cannot_be_read_grows_old_and_its_polls_fail(tmp_path: Path) -> None:
    with watched(tmp_path, "2026-03-25T08:00") as seen:
        lab = seen.lab
        lab.run_for(minutes=2)
        fine = seen.value("ndif_calendar_polls_total", outcome="ok")
        assert fine > 0 and seen.value("ndif_calendar_reading_age_seconds") < 60
        lab.google.faults.add("error:backendError", times=100_000, path="/events")
        lab.run_for(minutes=20)
        assert seen.value("ndif_calendar_polls_total", outcome="failed") > 10
        assert seen.value("ndif_calendar_polls_total", outcome="ok") == fine
        assert 1100 < seen.value("ndif_calendar_reading_age_seconds") < 1300


def test_what_hinders_the_loop_is_told(tmp_path: Path) -> None:
    with watched(tmp_path, "2026-03-25T08:00") as seen:
        lab = seen.lab
        lab.run_for(minutes=1)
        assert seen.value("ndif_daemon_hindered") == 0
        lab.order(OrderKind.PAUSE)
        assert seen.value("ndif_daemon_hindered", by="paused") == 1
        lab.take_back()
        lab.ray.down = True
        lab.run_for(minutes=2)
        assert seen.value("ndif_daemon_hindered", by="problem") == 1
        assert seen.value("ndif_daemon_passes_total", outcome="problem") > 0


def test_the_lag_of_a_pass_is_the_time_since_it_was_due() -> None:
    registry = new_registry()
    meter = PrometheusMeter(registry)
    meter.passed("done", 0.0)
    meter.passed("done", 3.0)
    text = exposition_of(registry)[0].decode()
    found = {
        one.labels.get("le"): one.value
        for one in samples(text)
        if one.name.endswith("pass_lag_seconds_bucket")
    }
    assert (found["0.005"], found["2.5"], found["5.0"]) == (1, 1, 2)


def test_before_the_first_pass_there_are_settings_and_disks_only(tmp_path: Path) -> None:
    collector = BoardCollector(
        Board(),
        max_stale_seconds=60.0,
        interval_seconds=10.0,
        disks={"state": tmp_path / "not" / "yet"},
        on_disk=lambda: (),
    )
    names = {family.name for family in collector.collect()}
    assert names == {
        "ndif_calendar_max_stale_seconds",
        "ndif_daemon_interval_seconds",
        "ndif_disk_free_bytes",
        "ndif_disk_capacity_bytes",
    }


def test_a_calendar_that_was_never_read_is_infinitely_old() -> None:
    board = Board()
    beat = Heartbeat(pid=1, started=NOON, at=NOON, passes=1)
    board.publish(
        View(beat, calendars=(CalendarView("lab", None, "away", "wait"), CalendarView("ics", NOON)))
    )
    collector = BoardCollector(
        board,
        max_stale_seconds=60.0,
        interval_seconds=10.0,
        disks={},
        on_disk=lambda: (),
        now=lambda: NOON + timedelta(seconds=7),
    )
    ages = {
        sample.labels["calendar"]: sample.value
        for family in collector.collect()
        if family.name == table.CALENDAR_AGE.name
        for sample in family.samples
    }
    assert ages == {"lab": math.inf, "ics": 7.0}


def test_a_daemon_that_waits_for_another_says_nothing_of_what_it_does_not_look_at() -> None:
    board = Board()
    beat = Heartbeat(pid=1, started=NOON, at=NOON, passes=1, waits_for="another")
    board.publish(
        View(beat, calendars=(CalendarView("lab", None),), lease=Lease(ours=False, holder="another"))
    )
    collector = BoardCollector(
        board, max_stale_seconds=60.0, interval_seconds=10.0, disks={}, on_disk=lambda: ()
    )
    told = {family.name: [one.value for one in family.samples] for family in collector.collect()}
    assert told[table.LEADING.name] == [0]
    assert told[table.CALENDAR_AGE.name] == told[table.GATEWAY_UP.name] == []


@pytest.fixture(scope="module")
def eventful(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The exposition after a day on which everything happened that is counted."""
    with watched(tmp_path_factory.mktemp("day"), "2026-03-25T08:00") as seen:
        seen.lab.calendar.add("phi", "2026-03-25T08:05", "2026-03-25T08:30")
        seen.lab.run_until("2026-03-25T08:20")
        return seen.exposition()


def test_every_metric_of_the_table_is_exposed_and_none_besides(eventful: str) -> None:
    exposed = {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in text_string_to_metric_families(eventful)
    }
    assert {name: kind for name, kind in exposed.items() if name not in LINUX} == {
        one.name: one.kind for one in table.DAEMON
    }


def test_every_sample_has_the_labels_of_the_table(eventful: str) -> None:
    known = {one.name.removesuffix("_total"): set(one.labels) for one in table.DAEMON}
    for family in text_string_to_metric_families(eventful):
        if family.name in LINUX or f"{family.name}_total" in LINUX:
            continue
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == known[family.name], sample


def test_no_label_names_a_person_or_a_booking(eventful: str) -> None:
    values = {value for one in samples(eventful) for value in one.labels.values()}
    assert not [value for value in values if "@" in value and not value.endswith("calendar.google.com")]
