"""The note of a running service, and what a killed one leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.errors import OperatorError
from scheduler.launch import health
from scheduler.launch.processes import ProcessId
from scheduler.launch.runtime import RuntimeFile, port_settings
from scheduler.settings import Settings, load_settings


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def note_of_another(path: Path, pid: int, created: float, ray: ProcessId) -> RuntimeFile:
    """What a service in process ``pid`` would have written."""
    file = RuntimeFile(path / "runtime.json")
    file.write({"serve": {"port": 4321}}, ray, is_up=True)
    content = json.loads(file.path.read_text()) | {"pid": pid, "created": created}
    file.path.write_text(json.dumps(content))
    return file


def test_other_commands_find_the_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NDIF_STATE_DIR", str(tmp_path))
    settings = load_settings(serve={"port": 4321}, ray={"dashboard_port": 4322})
    file = RuntimeFile(settings.runtime_file)
    file.write(port_settings(settings), ProcessId.of(os.getpid()), is_up=True)
    found = load_settings()
    assert (found.serve.port, found.ray.dashboard_port) == (4321, 4322)
    file.remove()
    assert load_settings().serve.port != 4321
    assert list(tmp_path.iterdir()) == []


def test_ports_of_a_killed_run_mean_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]
) -> None:
    monkeypatch.setenv("NDIF_STATE_DIR", str(tmp_path))
    note_of_another(tmp_path, child.pid, 1.0, ProcessId.of(child.pid))
    assert load_settings().serve.port == Settings.model_fields["serve"].default.port


def test_the_ray_of_a_killed_run_is_stopped(tmp_path: Path, child: subprocess.Popen[bytes]) -> None:
    file = note_of_another(tmp_path, child.pid, 1.0, ProcessId.of(child.pid))
    file.clear_leftovers()
    assert child.wait(1) != 0
    assert not file.path.exists()


def test_a_process_that_only_has_the_pid_of_an_old_ray_is_left_alone(
    tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    file = note_of_another(tmp_path, child.pid, 1.0, ProcessId(child.pid, 1.0))
    file.clear_leftovers()
    assert child.poll() is None
    assert not file.path.exists()


def test_a_service_that_runs_is_not_disturbed(tmp_path: Path, child: subprocess.Popen[bytes]) -> None:
    other = ProcessId.of(child.pid)
    file = note_of_another(tmp_path, other.pid, other.created, other)
    with pytest.raises(OperatorError, match=str(child.pid)):
        file.clear_leftovers()
    assert child.poll() is None
    assert file.path.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', "\xff"])
def test_a_damaged_note_is_no_note(tmp_path: Path, content: str) -> None:
    file = RuntimeFile(tmp_path / "runtime.json")
    file.path.write_text(content, encoding="latin-1")
    assert file.read() is None
    file.clear_leftovers()
    assert not file.path.exists()


class TestHealth:
    def test_nothing_runs(self, tmp_path: Path) -> None:
        assert "neither" in str(health.problem(Settings(state_dir=tmp_path)))

    def test_ray_has_ended(self, tmp_path: Path) -> None:
        settings = Settings(state_dir=tmp_path)
        RuntimeFile(settings.runtime_file).write({}, ProcessId(os.getpid(), 1.0), is_up=True)
        assert "Ray has ended" in str(health.problem(settings))

    def test_a_worker_is_well_once_its_ray_is_up(self, tmp_path: Path) -> None:
        note = RuntimeFile(tmp_path / "worker.json")
        note.write({}, ProcessId.of(os.getpid()), is_up=False)
        assert "Ray is starting" in str(health.problem(Settings(state_dir=tmp_path)))
        note.write({}, ProcessId.of(os.getpid()), is_up=True)
        assert health.problem(Settings(state_dir=tmp_path)) is None

    def test_the_launcher_has_ended(self, tmp_path: Path, child: subprocess.Popen[bytes]) -> None:
        note_of_another(tmp_path, child.pid, 1.0, ProcessId.of(child.pid))
        assert "has ended" in str(health.problem(Settings(state_dir=tmp_path)))
