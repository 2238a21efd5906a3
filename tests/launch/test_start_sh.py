"""start.sh: what it teaches, what it hands on, and when it makes the environment.

A stub stands in for Python: it notes how it was called, and can make an "environment" of itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
VERBS = ("local", "head", "worker", "test", "plan", "apply", "status", "run", "help")

STUB = r"""#!/bin/bash
printf '%s|' "$@" >>"$CALLS"; echo "PYTHONPATH=${PYTHONPATH-unset}" >>"$CALLS"
printf %s "${NDIF_COMMAND-}" >"$CALLS.command"
case "$1 $2" in
  "-m venv") mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/python" ;;
  "-m pip")
    [[ $3 == install ]] || exit 0
    echo "Downloading torch-2.13.0.whl (800.0 MB)"; exit "${PIP_STATUS:-0}" ;;
  "-P -m") exit "${CLI_STATUS:-0}" ;;
esac
"""


class Project:
    """A copy of start.sh in a folder of its own, and a stub Python to run it with."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "the project"
        self.root.mkdir(parents=True)
        shutil.copy(ROOT / "start.sh", self.root)
        for name in ("pyproject.toml", "constraints.txt"):
            (self.root / name).write_text(name)
        self.calls_file = folder / "calls"
        programs = folder / "bin"
        programs.mkdir()
        self.stub = programs / "python3"
        self.stub.write_text(STUB)
        self.stub.chmod(0o755)
        self.environment = {"PATH": f"{programs}:/usr/bin:/bin", "CALLS": str(self.calls_file)}
        self.environment |= {"NDIF_PYTHON": str(self.stub), "HOME": str(folder), "NDIF_NO_TOOLS": "1"}

    def run(
        self, *arguments: str, script: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        self.calls_file.write_text("")
        return subprocess.run(
            [str(script or self.root / "start.sh"), *arguments],
            env=self.environment | variables,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines()

    @property
    def installs(self) -> list[str]:
        return [call for call in self.calls if call.startswith("-m|pip|install|")]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize("asked", ["help", "--help", "-h"])
def test_help_names_every_verb_and_needs_no_environment(project: Project, asked: str) -> None:
    answer = project.run(asked)
    assert answer.returncode == 0
    assert not [verb for verb in VERBS if verb not in answer.stdout]
    assert "Examples" in answer.stdout
    assert project.calls == []


def test_without_a_verb_it_is_local(project: Project) -> None:
    assert project.run().returncode == 0
    assert project.calls[-1].startswith("-P|-m|scheduler|local|PYTHONPATH")


def test_anything_else_goes_to_the_command_line_as_it_is(project: Project) -> None:
    project.run("plan", "--at", "2030-01-01 10:00", "")
    assert project.calls[-1].startswith("-P|-m|scheduler|plan|--at|2030-01-01 10:00||PYTHONPATH")


@pytest.mark.parametrize("called", ["./start.sh", "start.sh", "the project/start.sh", "{root}/start.sh"])
def test_commands_are_told_how_they_were_called(project: Project, called: str) -> None:
    """As it can be typed again, in the folder where it was."""
    called = called.format(root=project.root)
    folder = project.root.parent if called.startswith("the project") else project.root
    environment = project.environment
    subprocess.run(
        ["bash", called, "plan"], env=environment, cwd=folder, capture_output=True, timeout=60, check=True
    )
    named = project.calls_file.with_suffix(".command").read_text()
    again = subprocess.run(
        f"{named} help", shell=True, cwd=folder, env=environment, capture_output=True, timeout=60
    )
    assert again.returncode == 0 and b"./start.sh" in again.stdout
    assert project.run("plan", NDIF_COMMAND="ours").returncode == 0
    assert project.calls_file.with_suffix(".command").read_text() == "ours"


def test_the_exit_status_is_that_of_the_command(project: Project) -> None:
    assert project.run("plan", CLI_STATUS="3").returncode == 3


def test_the_environment_is_made_once(project: Project) -> None:
    first = project.run("status")
    assert "once, some minutes" in first.stderr
    assert "Downloading torch" in first.stderr
    (install,) = project.installs
    assert f"-c|{project.root}/constraints.txt|-e|{project.root}[demo]|" in install
    second = project.run("status")
    assert second.stderr == ""
    assert len(project.calls) == 1


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_the_environment_is_made_again_when_its_recipe_changes(project: Project, name: str) -> None:
    project.run("status")
    (project.root / name).write_text("changed")
    project.run("status")
    assert len(project.installs) == 1


def test_a_failed_installation_is_explained_and_repeated(project: Project) -> None:
    failed = project.run("status", PIP_STATUS="1")
    assert failed.returncode == 1
    assert "could not be installed" in failed.stderr
    assert "scheduler" not in "".join(project.calls)
    assert project.run("status").returncode == 0
    assert len(project.installs) == 1


def test_a_moved_project_gets_a_new_environment(project: Project) -> None:
    project.run("status")
    project.root = project.root.rename(project.root.with_name("moved"))
    project.run("status")
    assert any(call.startswith("-m|venv|--clear|") for call in project.calls)


def test_an_environment_made_by_hand_is_kept(project: Project) -> None:
    (project.root / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(project.stub, project.root / ".venv" / "bin" / "python")
    (project.root / ".venv" / "mine").write_text("")
    project.run("status")
    assert len(project.installs) == 1
    assert not any("venv|--clear" in call for call in project.calls)


def test_it_finds_itself_through_links(project: Project, tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("the project/start.sh")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    assert project.run("status", script=tmp_path / "two").returncode == 0
    assert (project.root / ".venv").is_dir()


def test_the_callers_python_settings_do_not_leak(project: Project) -> None:
    project.run("status", PYTHONPATH="/elsewhere", PYTHONHOME="/elsewhere", VIRTUAL_ENV="/elsewhere")
    assert {call.rpartition("|")[2] for call in project.calls} == {"PYTHONPATH=unset"}


def test_a_container_uses_the_python_that_is_there(project: Project) -> None:
    project.run("head", NDIF_NO_VENV="1")
    assert [call.rpartition("|")[0] for call in project.calls] == ["-P|-m|scheduler|head"]
    assert not (project.root / ".venv").exists()


def test_no_python_is_one_paragraph(project: Project, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for tool in ("bash", "env", "dirname", "readlink", "cksum", "cat"):
        (bare / tool).symlink_to(shutil.which(tool) or tool)
    answer = project.run("status", PATH=str(bare), NDIF_PYTHON="")
    assert answer.returncode == 1
    assert "Python 3.11 or 3.12" in answer.stderr.splitlines()[-1]


def test_checks_run_before_the_tests_and_arguments_go_to_pytest(project: Project) -> None:
    project.run("test", "-m", "not ray", NDIF_NO_VENV="1")
    calls = [call.rpartition("|")[0] for call in project.calls]
    assert calls[:3] == ["-m|ruff|check|.", "-m|ruff|format|--check|.", "-m|mypy"]
    assert "importlinter" in calls[3]
    assert calls[4] == "-m|pytest|-m|not ray"


def test_tests_have_an_environment_with_what_they_need(project: Project) -> None:
    project.run("test")
    assert f"-e|{project.root}[demo,test]|" in project.installs[0]


def test_ci_runs_the_same(project: Project) -> None:
    ci = project.root / ".ci"
    ci.mkdir()
    shutil.copy(ROOT / ".ci" / "run", ci)
    project.run("-q", script=ci / "run", NDIF_NO_VENV="1")
    assert project.calls[-1].startswith("-m|pytest|-q|")


def test_scripts_are_executable() -> None:
    assert os.access(ROOT / "start.sh", os.X_OK)
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
