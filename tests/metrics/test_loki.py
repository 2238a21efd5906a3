"""Logs: their form, their way to Loki, and how decisions are found by the booking they are about."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger
from pydantic_settings import BaseSettings

from scheduler.logutil import logger as logutil
from scheduler.logutil.decisions import DecisionLog
from scheduler.logutil.logger import json_line, logging_of_the_service, set_up_logging
from scheduler.settings import ENVIRONMENT_NAMES, Settings
from scheduler.settings_telemetry import LogSettings
from serve_apps.telemetry.logs import LokiHandler
from serve_apps.telemetry.loki import LABELS, LokiShipper
from tests.metrics.stand_ins import LokiServer, serving
from tests.simulation.harness import world

RAYS_FIELDS = {"asctime", "levelname", "message", "filename", "lineno", "process", "component_name"}


@pytest.fixture
def loki() -> Iterator[LokiServer]:
    with serving(LokiServer()) as server:
        yield server


class Written:
    """What was written to standard error so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def getvalue(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Written]:
    """What is written there; loguru is as it was afterwards."""
    yield Written(capsys)
    if logutil._Sinks.number is not None:
        logger.remove(logutil._Sinks.number)
    logutil._Sinks.number = None
    logger.add(sys.__stderr__ or sys.stdout)


def ship(loki: LokiServer, component: str = "daemon") -> LokiShipper:
    return LokiShipper(loki.url, component, "gpu-a", every_seconds=0.05)


def entries(streams: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of a push, read as JSON."""
    return [json.loads(line) for one in streams for _, line in one["values"]]


def test_lines_are_pushed_as_loki_wants_them_with_few_labels(loki: LokiServer) -> None:
    shipper = ship(loki)
    shipper.put(1_700_000_000_000_000_000, "INFO", "one")
    shipper.put(1_700_000_000_000_000_001, "INFO", "two")
    shipper.put(1_700_000_000_000_000_002, "ERROR", "three")
    streams = {one["stream"]["level"]: one for one in loki.take()}
    shipper.close()
    assert loki.refused == []
    assert streams["info"] == {
        "stream": {"service": "ndif-ray", "component": "daemon", "node": "gpu-a", "level": "info"},
        "values": [["1700000000000000000", "one"], ["1700000000000000001", "two"]],
    }
    assert set(streams["error"]["stream"]) == set(LABELS)


def test_the_path_of_the_push_protocol_may_stand_in_the_url(loki: LokiServer) -> None:
    shipper = LokiShipper(f"{loki.url}/loki/api/v1/push", "daemon", "a", every_seconds=0.01)
    shipper.put(1_700_000_000_000_000_000, "INFO", "one")
    assert loki.take()
    shipper.close()


@pytest.mark.parametrize(("status", "headers"), [(503, {}), (429, {"Retry-After": "0"}), (500, {})])
def test_a_busy_loki_gets_the_lines_later(
    loki: LokiServer, status: int, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_apps.telemetry.outbox.FIRST_PAUSE_SECONDS", 0.01)
    loki.answers.put((status, headers))
    shipper = ship(loki)
    shipper.put(1_700_000_000_000_000_000, "INFO", "one")
    assert loki.wait_asked() == status
    assert [value for one in loki.take() for value in one["values"]] == [["1700000000000000000", "one"]]
    shipper.close()
    assert (shipper.outbox.sent, shipper.outbox.dropped) == (1, 0)


def test_what_loki_refuses_is_dropped_and_counted(loki: LokiServer) -> None:
    shipper = ship(loki)
    loki.answers.put((400, {}))
    shipper.put(1_700_000_000_000_000_000, "INFO", "one")
    assert loki.wait_asked() == 400
    shipper.close()
    assert shipper.outbox.dropped == 1


def test_a_loki_that_is_away_costs_a_counter_and_one_line() -> None:
    problems: list[str] = []
    shipper = LokiShipper("http://127.0.0.1:9", "daemon", "a", every_seconds=0.01, on_problem=problems.append)
    shipper.put(1_700_000_000_000_000_000, "INFO", "one")
    shipper.close(1.0)
    assert shipper.outbox.dropped == 1
    assert len(problems) == 1 and "http://127.0.0.1:9" in problems[0]


def test_a_line_that_loki_would_refuse_for_its_length_loses_its_end(loki: LokiServer) -> None:
    shipper = ship(loki)
    shipper.put(1_700_000_000_000_000_000, "INFO", "x" * 1_000_000)
    ((at, line),) = loki.take()[0]["values"]
    shipper.close()
    assert at and len(line) < 70_000 and line.endswith("…")


def test_json_has_rays_names_of_fields_and_ours_beside_them(stderr: Written) -> None:
    set_up_logging("INFO", "json")
    logger.bind(event="lab/one", nothing="", events=("a", "b"), none=()).info(
        "Something about {}.", "ä model"
    )
    line = json.loads(stderr.getvalue())
    assert set(line) >= RAYS_FIELDS and line["event"] == "lab/one"
    assert line["events"] == "a b" and not {"nothing", "none"} & set(line)
    assert (line["message"], line["levelname"], line["filename"]) == (
        "Something about ä model.",
        "INFO",
        "test_loki.py",
    )


def test_the_names_are_those_of_rays_own_json() -> None:
    from ray._common.formatters import JSONFormatter

    record = logging.getLogger("x").makeRecord("x", logging.INFO, "f.py", 1, "hello", (), None)
    theirs = set(json.loads(JSONFormatter().format(record)))
    assert theirs <= RAYS_FIELDS | {"timestamp_ns", "job_id", "worker_id", "node_id"}
    assert theirs >= RAYS_FIELDS - {"component_name"}


def test_a_fault_is_whole_in_one_line(stderr: Written) -> None:
    set_up_logging("INFO", "json")
    try:
        raise ZeroDivisionError("oops")
    except ZeroDivisionError:
        logger.exception("It failed.")
    line = json.loads(stderr.getvalue())
    assert "Traceback" in line["exc_text"] and "ZeroDivisionError: oops" in line["exc_text"]


def test_no_secret_is_in_the_log(stderr: Written) -> None:
    set_up_logging("INFO", "json")
    logger.error("It answered: token=hf_abcdefghijklmnopqrstuvwxyz")
    assert "hf_abc" not in stderr.getvalue() and json.loads(stderr.getvalue())["levelname"] == "ERROR"


def test_people_get_text_and_no_lines_for_programs(stderr: Written) -> None:
    set_up_logging("INFO", "text")
    logger.info("For people.")
    logger.bind(**{logutil.DECISION: True}).info("For programs.")
    assert stderr.getvalue().endswith("INFO    For people.\n")


def test_what_a_launcher_tells_is_in_the_log_where_that_is_json(stderr: Written) -> None:
    text = logutil.console_of_the_service(LogSettings(format="text"))
    text.print("Ray is up.")
    assert stderr.getvalue() == "Ray is up.\n"
    told = logutil.console_of_the_service(LogSettings(format="json"))
    told.print("Ray is [up]; " + "a long line " * 30, markup=False, soft_wrap=True)
    told.print("Stopped.")
    one, other = map(json.loads, stderr.getvalue().splitlines()[1:])
    assert one["message"].startswith("Ray is [up]; a long line") and one["component_name"] == "launcher"
    assert other["message"] == "Stopped."


def test_auto_is_text_on_a_terminal_only(stderr: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    assert logutil.is_json("auto")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert not logutil.is_json("auto") and logutil.is_json("json")


def test_the_service_ships_its_log_and_not_what_is_about_shipping(loki: LokiServer, stderr: Written) -> None:
    with logging_of_the_service(LogSettings(loki_url=loki.url, format="json"), "daemon", "head") as shipper:
        assert shipper is not None
        set_up_logging("INFO", "json")  # as after settings were read anew
        logger.bind(model="lab/phi").warning("Hello.")
        logger.bind(**{logutil.SHIPPED: False}).warning("Points cannot be written.")
    (line,) = entries(loki.take())
    assert (line["message"], line["model"], line["component_name"]) == ("Hello.", "lab/phi", "daemon")
    assert "Points cannot be written." in stderr.getvalue()
    assert shipper.outbox.sent == 1


def test_every_decision_about_a_booking_is_found_by_its_key(tmp_path: Path) -> None:
    found: list[dict[str, Any]] = []
    sink = logger.add(lambda message: found.append(json.loads(json_line(message.record))), level="INFO")
    try:
        with world(tmp_path, "2026-03-25T08:00", poll_seconds=300) as lab:
            lab.meter = DecisionLog()
            lab.start()
            lab.calendar.add("phi", "2026-03-25T08:00", "2026-03-25T09:00")
            lab.calendar.add("giant", "2026-03-25T08:00", "2026-03-25T09:00")
            lab.run_until("2026-03-25T09:10")
            plan = lab.daemon.last_plan
            reservation = next(
                one
                for reading in lab.daemon._controller.bookings.readings
                for one in reading.reservations
                if one.title == "phi"
            )
        assert plan is not None
    finally:
        logger.remove(sink)
    mine = [
        one
        for one in found
        if one.get("event") == reservation.key or reservation.key in one.get("events", "").split()
    ]
    told = [(one.get("action") or one.get("state"), one.get("outcome")) for one in mine]
    assert [what for what in told if what[0] in ("deploy", "undeploy")] == [
        ("deploy", "applied"),
        ("undeploy", "applied"),
    ]
    states = [one.get("state") for one in mine if one.get("state")]
    assert [one for one in states if one in ("loading", "serving", "ended", "kept")] == [
        "loading",
        "serving",
        "kept",
        "serving",  # and ends soon
        "ended",
    ]
    assert any(one["message"].startswith("Serving lab/phi") for one in mine)
    refused = [one for one in found if one.get("state") == "refused"]
    assert refused and all(one["event"] != reservation.key for one in refused)


def test_a_replicas_log_has_the_same_fields_and_no_line_for_each_request(loki: LokiServer) -> None:
    shipper = ship(loki, "gateway")
    own = logging.getLogger("test.serve")
    own.setLevel(logging.INFO)
    own.propagate = False
    own.addHandler(handler := LokiHandler(shipper, "gateway", "gpu-a"))
    own.info("GET / 200 3.2ms", extra={"serve_access_log": True})
    own.info("points cannot be written", extra={"skip_loki": True})
    try:
        raise ZeroDivisionError("oops")
    except ZeroDivisionError:
        own.exception(
            "a round of %s failed", "jobs", extra={"application": "ndif-gateway", "request_id": "r1"}
        )
    own.removeHandler(handler)
    (line,) = entries(loki.take())
    shipper.close()
    assert set(line) >= RAYS_FIELDS and line["message"] == "a round of jobs failed"
    assert (line["application"], line["request_id"], line["node"]) == ("ndif-gateway", "r1", "gpu-a")
    assert "ZeroDivisionError: oops" in line["exc_text"]


def test_nodes_are_told_of_loki_and_of_no_secret_of_the_daemon() -> None:
    from scheduler.launch.options import environment

    settings = Settings(log={"loki_url": "http://loki:3100"})
    secret = [path for path, field in secrets_among(Settings) if field]
    names = ["NDIF_" + "__".join(path).upper() for path in secret]
    names += [name for name, path in ENVIRONMENT_NAMES.items() if path in secret]
    assert "INFLUXDB_ADMIN_TOKEN" in names and "NDIF_WEB__KEY" in names
    found = environment(settings, dict.fromkeys([*names, "OTHER"], "s3cret"), head=True, has_gpu=False)
    assert found["LOKI_URL"] == "http://loki:3100" and found["OTHER"] == "s3cret"
    assert not set(names) & set(found)


def secrets_among(tree: type[BaseSettings]) -> Iterator[tuple[tuple[str, str], bool]]:
    """Each setting of a group, and whether it is a secret."""
    for name, group in tree.model_fields.items():
        for inner, field in getattr(group.annotation, "model_fields", {}).items():
            yield (name, inner), "SecretStr" in str(field.annotation)
