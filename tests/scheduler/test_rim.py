"""What comes in from outside: settings, the catalog, checkpoints, times, the state directory."""

from __future__ import annotations

import ast
import json
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
import yaml

from scheduler.catalog import load_catalog
from scheduler.checkpoints import Checkpoints, read_checkpoint
from scheduler.errors import OperatorError
from scheduler.moments import parse_moment
from scheduler.render.settings import settings_markdown
from scheduler.settings import ROOT, load_settings
from scheduler.state_lock import StateLock, holder
from scheduler.types import Checkpoint, Model, UnknownSize
from tests.scheduler.builders import NOON
from tests.tiny_model import TINY_REPO_ID, write_tiny_model

# Settings


def test_the_environment_beats_the_file_and_its_old_names_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.yml"
    file.write_text(yaml.safe_dump({"serve": {"port": 9001}, "calendar": {"check_interval_seconds": 99}}))
    monkeypatch.setenv("NDIF_CONFIG", str(file))
    monkeypatch.setenv("NDIF_STATE_DIR", str(tmp_path))
    assert load_settings().serve.port == 9001
    monkeypatch.setenv("SCHEDULING_CHECK_INTERVAL_S", "7")
    monkeypatch.setenv("DEV_RAY_SERVE_PORT", "9002")
    settings = load_settings()
    assert (settings.serve.port, settings.calendar.check_interval_seconds) == (9002, 7)
    monkeypatch.setenv("NDIF_SERVE__PORT", "9003")
    assert load_settings().serve.port == 9003
    assert load_settings(serve={"port": 9004}).serve.port == 9004


def test_a_running_local_service_says_where_it_is_and_a_dead_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NDIF_STATE_DIR", str(tmp_path))
    alive = psutil.Process()
    runtime = {"settings": {"serve": {"port": 4711}}, "pid": alive.pid, "created": alive.create_time()}
    (tmp_path / "runtime.json").write_text(json.dumps(runtime))
    assert load_settings().serve.port == 4711
    (tmp_path / "runtime.json").write_text(json.dumps(runtime | {"created": 1.0}))
    assert load_settings().serve.port == 8267


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("SCHEDULING_CHECK_INTERVAL_S", "soon", "SCHEDULING_CHECK_INTERVAL_S is 'soon'"),
        ("NDIF_SERVE__PORT", "70000", "NDIF_SERVE__PORT is '70000'"),
        ("NDIF_CALENDAR__DEFAULT_TIMEZONE", "Mars/Olympus", "not a time zone"),
        ("NDIF_PLANNING__CPU_MEMORY_SHARE", "2", "NDIF_PLANNING__CPU_MEMORY_SHARE is '2'"),
    ],
)
def test_a_bad_setting_is_named_with_its_value(
    name: str, value: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NDIF_STATE_DIR", str(tmp_path))
    monkeypatch.setenv(name, value)
    with pytest.raises(OperatorError, match=says):
        load_settings()


def test_a_settings_file_that_was_named_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NDIF_CONFIG", str(tmp_path / "none.yml"))
    with pytest.raises(OperatorError, match=r"none\.yml"):
        load_settings()


def test_a_group_of_comments_is_no_mistake_and_a_state_dir_is_where_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = psutil.Process()
    runtime = {"settings": {"serve": {"port": 4711}}, "pid": alive.pid, "created": alive.create_time()}
    (tmp_path / "runtime.json").write_text(json.dumps(runtime))
    (tmp_path / "c.yml").write_text(f"serve:\n  # port: 1\nstate_dir: {tmp_path}\n")
    monkeypatch.setenv("NDIF_CONFIG", str(tmp_path / "c.yml"))
    assert load_settings().serve.port == 4711


@pytest.mark.parametrize("content", ["serve: {prot: 1}", "- a", "serve: [", "\x00"])
def test_a_bad_settings_file_is_an_error_in_words(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.yml").write_text(content)
    monkeypatch.setenv("NDIF_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("NDIF_CONFIG", str(tmp_path / "c.yml"))
    with pytest.raises(OperatorError):
        load_settings()


def test_the_page_of_settings_is_that_of_the_code() -> None:
    assert (ROOT / "docs/settings.md").read_text() == settings_markdown()


# Catalog


def test_a_missing_catalog_is_an_empty_one(tmp_path: Path) -> None:
    assert load_catalog(tmp_path / "none.yml").entries == ()


def test_the_shipped_catalog_has_the_demo_model() -> None:
    entry = load_catalog(ROOT / "config/models.yml").find("smollm2-135m-instruct")
    assert entry is not None
    assert entry.repo_id == "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("models: [{alias: a}]", "repo_id"),
        ("models: [{repo_id: no-slash}]", "no-slash"),
        ("models: [{repo_id: o/m, dtype: int3}]", "int3"),
        ("models: [{repo_id: o/m, gpus: 0}]", "gpus"),
        ("models: [{repo_id: o/m, replicas: 65}]", r"replicas: .* less than or equal to 64 \(it is 65\)"),
        ("models: [{repo_id: o/m, colour: red}]", "colour"),
        ("models: [{repo_id: o/m, alias: x}, {repo_id: o/n, alias: X}]", "twice"),
        ("models: [", "cannot be read"),
        ("text", "cannot be used"),
    ],
)
def test_a_bad_catalog_is_an_error_that_names_the_entry(content: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "models.yml"
    path.write_text(content)
    with pytest.raises(OperatorError, match=says):
        load_catalog(path)


# Checkpoints


def test_the_size_of_a_cached_model_is_read_from_its_files(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    found = read_checkpoint(Model(repo_id=TINY_REPO_ID), tmp_path / "hub")
    assert isinstance(found, Checkpoint)
    assert found.source == "model.safetensors"
    (weights,) = tmp_path.rglob("model.safetensors")
    stored = weights.resolve().stat().st_size / {"float32": 4, "bfloat16": 2}[str(found.dtype)]
    assert found.parameters == pytest.approx(stored, rel=0.2), "the rest is the header"


def test_an_index_is_enough_where_its_files_are_not_there_yet(tmp_path: Path) -> None:
    snapshot = _cached(tmp_path, "org/sharded")
    index = {"metadata": {"total_size": 2000}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    (snapshot / "config.json").write_text(json.dumps({"dtype": "bfloat16"}))
    found = read_checkpoint(Model(repo_id="org/sharded"), tmp_path)
    assert found == Checkpoint(parameters=1000, dtype="bfloat16", source="model.safetensors.index.json")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 100, b"<html>", b"\x08\0\0\0\0\0\0\0{}      "],
    ids=["empty", "noise", "a page", "no tensors"],
)
def test_a_broken_checkpoint_is_of_unknown_size_and_hides_no_other(content: bytes, tmp_path: Path) -> None:
    (_cached(tmp_path / "hub", "org/broken") / "model.safetensors").write_bytes(content)
    write_tiny_model(tmp_path)
    models = [Model(repo_id="org/broken"), Model(repo_id=TINY_REPO_ID)]
    found = Checkpoints(tmp_path / "hub").look_up(models)
    assert isinstance(found[models[0].key], UnknownSize)
    assert isinstance(found[models[1].key], Checkpoint)


def test_a_model_that_is_nowhere_is_of_unknown_size_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = read_checkpoint(Model(repo_id="org/nowhere"), tmp_path)
    assert isinstance(found, UnknownSize)
    assert "Hub cannot be reached" in found.reason
    assert "parameters:" in found.remedy


def _cached(cache: Path, repo_id: str) -> Path:
    repository = cache / f"models--{repo_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    return snapshot


# Times


@pytest.mark.parametrize(
    ("written", "hours"),
    [
        ("14:00", 2),
        ("tomorrow 9:30", 21.5),
        ("+90m", 1.5),
        ("+2d", 48),
        ("2026-03-02T14:00", 2),
        ("2026-03-02T14:00+02:00", 0),
        (" 2026-03-03 ", 12),
    ],
)
def test_times_as_people_write_them(written: str, hours: float) -> None:
    assert parse_moment(written, NOON) == NOON + timedelta(hours=hours)


@pytest.mark.parametrize(
    "written",
    ["", "soon", "25:00", "+5 days", "2026-13-01", "tomorrow", "+9999999d", "9999-12-31", "0001-01-01"],
)
def test_what_is_no_time_is_an_error_with_examples(written: str) -> None:
    with pytest.raises(OperatorError, match="is not a time"):
        parse_moment(written, NOON)


# The state directory


def test_a_second_daemon_on_a_state_directory_is_told_who_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NDIF_STATE_DIR", str(tmp_path))
    settings = load_settings()
    script = (
        "import sys; from scheduler.settings import load_settings as load\n"
        "from scheduler.state_lock import StateLock\n"
        "with StateLock(load()): print('held', flush=True); sys.stdin.read()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert first.stdout is not None
    assert first.stdin is not None
    assert first.stdout.readline() == "held\n"
    assert holder(tmp_path) == first.pid
    with pytest.raises(OperatorError, match=str(first.pid)), StateLock(settings):
        pass
    first.kill()
    first.wait()
    with StateLock(settings):
        assert holder(tmp_path) is not None
    assert holder(tmp_path) is None


@pytest.mark.parametrize(
    ("mode", "inside", "after", "told"),
    [
        (0o755, ["daemon.lock", "promises.json"], 0o700, 1),
        (0o775, ["calendar.ics"], 0o700, 1),
        (0o777, [], 0o700, 1),
        (0o700, ["daemon.lock"], 0o700, 0),
        (0o755, ["of-somebody-else"], 0o755, 0),
        (0o1777, ["daemon.lock"], 0o1777, 0),
    ],
    ids=["of an earlier version", "prepared", "made by hand", "closed", "for others too", "like /tmp"],
)
def test_a_state_directory_is_closed_to_others_and_that_is_told_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: list[str],
    mode: int,
    inside: list[str],
    after: int,
    told: int,
) -> None:
    folder = tmp_path / "var"
    folder.mkdir()
    for name in inside:
        (folder / name).touch()
    folder.chmod(mode)
    monkeypatch.setenv("NDIF_STATE_DIR", str(folder))
    with StateLock(load_settings()):
        assert stat.S_IMODE(folder.stat().st_mode) == after
    if told:
        with StateLock(load_settings()):
            pass
    assert len([line for line in said if "open to other users" in line]) == told


def test_a_state_directory_that_cannot_be_made_is_an_error_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NDIF_STATE_DIR", str(tmp_path / "file" / "var"))
    with pytest.raises(OperatorError, match="cannot be written"), StateLock(load_settings()):
        pass


# Purity


def test_planning_knows_neither_time_nor_chance() -> None:
    for path in (ROOT / "scheduler/planning").glob("*.py"):
        tree = ast.parse(path.read_text())
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not names & {"now", "utcnow", "today", "monotonic", "perf_counter"}, path
        imported = {
            alias.name.split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert not imported & {"random", "time", "secrets", "uuid", "os", "pathlib"}, path


def test_a_moment_without_a_zone_is_in_the_zone_of_now() -> None:
    assert parse_moment("14:00", NOON).tzinfo is UTC
    assert isinstance(NOON, datetime)
