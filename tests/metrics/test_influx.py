"""Points: what is written, over the real line protocol, and that nobody waits for it."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from scheduler.board import Board
from scheduler.metrics.influx import DAEMON_POINTS, MODEL_LOAD, PROMISE, RESERVATION, InfluxMeter
from scheduler.metrics.telemetry import Telemetry
from scheduler.settings import Settings
from scheduler.types import Model
from serve_apps.telemetry.influx import INFLUX_FILE, InfluxServer, Points, saved_server
from serve_apps.telemetry.labels import OTHER, Bounded
from serve_apps.telemetry.metric import Measurement
from tests.metrics.stand_ins import InfluxServerStandIn, Point, parse_point, serving
from tests.simulation.harness import world

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


@pytest.fixture
def influx() -> Iterator[InfluxServerStandIn]:
    with serving(InfluxServerStandIn()) as server:
        yield server


def server_of(influx: InfluxServerStandIn, token: str = "") -> InfluxServer:
    secret = SecretStr(token or influx.token)
    return InfluxServer(address=influx.url, org=influx.org, bucket=influx.bucket, token=secret)


def points_to(influx: InfluxServerStandIn) -> Points:
    return Points(server_of(influx), every_seconds=0.05)


def test_the_stand_in_reads_the_line_protocol_as_influxdb_does() -> None:
    line = r'a\ b,t\,ag=v\=al\ ue f=1.5,i=3i,s="q\"uo,te d" 1700000000000000000'
    point = Point("a b", {"t,ag": "v=al ue"}, {"f": 1.5, "i": 3, "s": 'q"uo,te d'}, 1_700_000_000_000_000_000)
    assert parse_point(line) == point
    for bad in ("a,t= f=1 1", "a f=x 1", "a f=1", 'a s="x 1'):
        with pytest.raises(ValueError):
            parse_point(bad)


def test_points_arrive_as_they_were_meant_in_one_batch(influx: InfluxServerStandIn) -> None:
    points = points_to(influx)
    strange = Measurement("strange one", "", ("name, of it", "empty"), ("text", "size", "share"))
    points.put(
        strange, {"name, of it": "a=b c", "empty": ""}, {"text": 'say "hi"', "size": 3, "share": 0.5}, NOW
    )
    points.put(strange, {"name, of it": "d"}, {"size": 4}, NOW)
    first, second = influx.take()
    points.close()
    assert influx.refused == []
    assert first == Point(
        "strange one",
        {"name, of it": "a=b c"},
        {"text": 'say "hi"', "size": 3, "share": 0.5},
        int(NOW.timestamp()) * 10**9,
    )
    assert second.fields == {"size": 4}


@pytest.mark.parametrize(("status", "headers"), [(503, {"Retry-After": "0"}), (429, {"Retry-After": "0"})])
def test_a_busy_server_is_given_the_points_when_it_said(
    influx: InfluxServerStandIn, status: int, headers: dict[str, str]
) -> None:
    influx.answers.put((status, headers))
    points = points_to(influx)
    points.put(MODEL_LOAD, {"model": "m"}, {"seconds": 1.0}, NOW)
    assert influx.wait_asked() == status
    assert [one.measurement for one in influx.take()] == ["model_load"]
    points.close()
    assert (points.outbox.sent, points.outbox.dropped) == (1, 0)


def test_a_wrong_token_or_bucket_costs_a_counter(influx: InfluxServerStandIn) -> None:
    said: list[str] = []
    points = Points(server_of(influx, "wrong"), every_seconds=0.01, on_problem=said.append)
    points.put(MODEL_LOAD, {"model": "m"}, {"seconds": 1.0}, NOW)
    assert influx.wait_asked() == 401
    points.close()
    assert points.outbox.dropped == 1
    assert "401" in said[0] and "wrong" not in said[0]


def test_a_server_that_is_away_costs_a_counter_and_no_time() -> None:
    nowhere = InfluxServer(address="http://127.0.0.1:9", org="o", bucket="b", token=SecretStr("t"))
    points = Points(nowhere, every_seconds=0.01)
    began = time.monotonic()
    for _ in range(1000):
        points.put(MODEL_LOAD, {"model": "m"}, {"seconds": 1.0}, NOW)
    assert time.monotonic() - began < 5
    points.close(1.0)
    assert points.outbox.dropped == 1000


def test_the_daemon_writes_the_life_of_a_reservation_and_how_long_loading_took(
    influx: InfluxServerStandIn, tmp_path: Path
) -> None:
    with world(tmp_path, "2026-03-25T08:00", poll_seconds=300) as lab:
        points = points_to(influx)
        lab.meter = InfluxMeter(points, lab.clock)
        lab.start()
        lab.calendar.add("phi", "2026-03-25T08:30", "2026-03-25T09:00")
        lab.run_until("2026-03-25T09:10")
        points.close(10.0)
    written: list[Point] = []
    while not influx.taken.empty():
        written += influx.take()
    assert influx.refused == []
    known = {one.name: one for one in DAEMON_POINTS}
    for one in written:
        assert set(one.tags) <= set(known[one.measurement].tags)
        assert set(one.fields) == set(known[one.measurement].fields)
    states = [one.tags["state"] for one in written if one.measurement == RESERVATION.name]
    assert states == ["scheduled", "loading", "serving", "serving", "ended"]
    (load,) = (one for one in written if one.measurement == MODEL_LOAD.name)
    assert load.tags == {"model": "lab/phi", "node": "gpu-b", "kind": "gpu", "tier": "remote"}
    assert 20 < float(load.fields["seconds"]) < 60
    kept = [one for one in written if one.measurement == PROMISE.name]
    assert [one.tags["state"] for one in kept] == ["waiting", "kept"]
    assert {one.fields["event"] for one in kept} == {
        one.fields["event"] for one in written if one.measurement == RESERVATION.name
    }


def test_tags_have_few_values_whatever_people_book() -> None:
    bounded = Bounded(3)
    assert [bounded(name) for name in "abcdeab"] == ["a", "b", "c", OTHER, OTHER, "a", "b"]
    lines: list[dict[str, str]] = []

    class Kept:
        def put(self, measurement: Measurement, tags: dict[str, str], *_: object) -> None:
            lines.append(tags)

    meter = InfluxMeter(Kept(), lambda: NOW)  # type: ignore[arg-type]
    for number in range(1000):
        meter.loaded(Model(repo_id=f"lab/m{number}"), "gpu-a", "gpu", "cold", 1.0)
    assert len({one["model"] for one in lines}) == 201


def test_the_gateways_are_left_word_that_only_we_can_read(tmp_path: Path) -> None:
    settings = Settings(
        state_dir=tmp_path,
        influx={"address": "http://influxdb:8086", "admin_token": "s3cret", "org": "o", "bucket": "b"},
    )
    Telemetry(settings, Board()).close()
    folder = tmp_path / "gateway"
    assert stat.S_IMODE((folder / INFLUX_FILE).stat().st_mode) == 0o600
    found = saved_server(folder)
    assert found is not None and found.token.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(found) + repr(settings)
    Telemetry(Settings(state_dir=tmp_path), Board()).close()
    assert saved_server(folder) is None


def test_a_file_that_names_no_server_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / INFLUX_FILE).write_text(json.dumps({"address": 3}))
    with pytest.raises(ValueError, match="names no server"):
        saved_server(tmp_path)


def test_an_address_without_a_token_is_refused_with_what_to_set() -> None:
    with pytest.raises(ValueError, match="INFLUXDB_ADMIN_TOKEN"):
        Settings(influx={"address": "http://influxdb:8086"})
