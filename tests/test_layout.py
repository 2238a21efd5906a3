"""The files around the code agree with each other and with the code."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from scheduler.catalog import load_catalog
from scheduler.settings import ENVIRONMENT_NAMES, ROOT, Settings, load_settings

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONDA = yaml.safe_load((ROOT / "conda-env.yml").read_text())
PINS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def program(name: str) -> str:
    """A linter installed beside this Python or on the PATH; the test is skipped without it."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def leaves(tree: dict[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for key, value in tree.items():
        found |= leaves(value, (*path, key)) if isinstance(value, dict) else {(*path, key): value}
    return found


def default_of(path: tuple[str, ...]) -> Any:
    value: Any = Settings.model_construct()
    for part in path:
        assert isinstance(value, BaseModel), path
        assert part in type(value).model_fields, f"{'.'.join(path)} is no setting"
        value = getattr(value, part)
    return str(value) if isinstance(value, Path) else value


def uncommented(text: str) -> str:
    """ray_config.yml with the settings that are commented out inside its groups."""
    return re.sub(r"(?m)^  # (?=\w+: )", "  ", text)


def test_every_constraint_is_an_exact_pin() -> None:
    assert [line for line in PINS if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line)] == []


def test_every_dependency_is_pinned() -> None:
    pinned = {canonical(line.partition("==")[0]) for line in PINS}
    extras = PYPROJECT["project"]["optional-dependencies"].values()
    wanted = [*PYPROJECT["project"]["dependencies"], *(one for extra in extras for one in extra)]
    names = {canonical(re.split(r"[\s\[<>=!~;]", requirement)[0]) for requirement in wanted}
    assert names - pinned == set()


def test_conda_env_has_a_python_the_project_takes_and_gets_the_rest_from_pip() -> None:
    python, pip, pip_section = CONDA["dependencies"]
    major, minor = map(int, python.removeprefix("python=").split("."))
    lowest, below = re.findall(r"3\.(\d+)", PYPROJECT["project"]["requires-python"])
    assert (major, pip) == (3, "pip")
    assert int(lowest) <= minor < int(below)
    assert pip_section["pip"] == ["-c constraints.txt", "-e ."]


def test_config_file_loads_and_shows_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DEV_RAY_SERVE_PORT", "HOST_IP", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    assert load_settings()
    written = leaves(yaml.safe_load((ROOT / "config" / "ray_config.yml").read_text()))
    assert {path: default_of(path) for path in written} == written


def test_settings_that_are_commented_out_would_be_accepted() -> None:
    text = uncommented((ROOT / "config" / "ray_config.yml").read_text())
    tree = yaml.safe_load(text)
    assert tree["ray"]["address"]
    assert Settings(**tree)


def test_catalog_loads_and_has_the_demo_model() -> None:
    entries = load_catalog(ROOT / default_of(("models", "catalog"))).entries
    assert "SmolLM2-135M-Instruct" in {alias for entry in entries for alias in entry.aliases}


def test_example_in_the_catalog_is_accepted(tmp_path: Path) -> None:
    text = (ROOT / "config" / "models.yml").read_text()
    example = [line[3:] for line in text.splitlines() if line.startswith("#   ")]
    (tmp_path / "models.yml").write_text("models:\n" + "\n".join(example))
    (entry,) = load_catalog(tmp_path / "models.yml").entries
    assert (entry.gpus, entry.accelerator, entry.bookable_by) == (
        1,
        "H100",
        ("ada@example.org", "lab.example.org"),
    )


def test_dockerfile_copies_and_runs_what_is_there() -> None:
    named = [part for line in DOCKERFILE if line.startswith("COPY") for part in line.split()[2:-1]]
    named += [part for line in DOCKERFILE for part in re.findall(r"--file (\S+)", line)]
    named += ["start.sh"] if any(line == 'ENTRYPOINT ["./start.sh"]' for line in DOCKERFILE) else []
    assert {"conda-env.yml", "constraints.txt", "start.sh"} <= set(named)
    assert [name for name in named if not (ROOT / name).exists()] == []
    modules = [name for line in DOCKERFILE for name in re.findall(r'"-m", "([\w.]+)"', line)]
    assert modules
    assert [one for one in modules if not (ROOT / (one.replace(".", "/") + ".py")).is_file()] == []


def test_image_runs_as_an_ordinary_user_and_tells_its_health() -> None:
    users = [line.split()[1] for line in DOCKERFILE if line.startswith("USER")]
    assert users[-1] != "root"
    assert any(line.startswith("HEALTHCHECK") for line in DOCKERFILE)


def test_image_sets_settings_that_exist() -> None:
    ports = dict(re.findall(r"(\w+_INTERNAL_PORT)=(\d+)", "\n".join(DOCKERFILE)))
    assert len(ports) == 4
    (exposed,) = (line.split()[1:] for line in DOCKERFILE if line.startswith("EXPOSE"))
    for name, port in ports.items():
        assert default_of(ENVIRONMENT_NAMES[name])
        assert port in exposed


def test_image_leaves_nothing_out_that_the_code_needs() -> None:
    left_out = (ROOT / ".dockerignore").read_text().split()
    assert not {"scheduler", "serve_apps", "calendars", "config", "constraints.txt"} & set(left_out)
    assert {".venv", "var", ".env"} <= set(left_out)


@pytest.mark.parametrize("script", ["start.sh", ".ci/run", "compose/dev/make-env.sh"])
def test_shell_scripts_pass_shellcheck(script: str) -> None:
    checked = subprocess.run([program("shellcheck"), script], cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_dockerfile_passes_hadolint() -> None:
    # DL3066 asks for a numeric user; this base image gives the number by a variable
    command = [program("hadolint"), "--ignore", "DL3066", "Dockerfile"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
