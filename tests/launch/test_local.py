"""What ``./start.sh`` prepares before Ray starts, and what it says once a model serves."""

from __future__ import annotations

import io
import socket
from pathlib import Path

import pytest
from rich.console import Console

from scheduler.errors import OperatorError
from scheduler.launch import local
from scheduler.settings import CalendarSettings, ModelSettings, RaySettings, ServeSettings, Settings
from scheduler.settings_web import WebSettings
from serve_apps.providers import demo_model
from tests.ray_cluster import free_port


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=40)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def with_calendar(where: object) -> Settings:
    return Settings(calendar=CalendarSettings(ics=str(where)))


def test_a_calendar_with_the_demo_model_is_written_once(tmp_path: Path, console: Console) -> None:
    path = tmp_path / "new" / "calendar.ics"
    local.write_calendar(with_calendar(path), console)
    written = path.read_text()
    assert written.count("BEGIN:VEVENT") == 1
    assert local.DEMO_TITLE in written
    path.write_text(written + "\n")
    local.write_calendar(with_calendar(path), console)
    assert path.read_text() == written + "\n"
    assert "stays as you left it" in text(console)


def test_a_calendar_on_the_web_is_nobodys_to_write(console: Console) -> None:
    local.write_calendar(with_calendar("https://example.org/team.ics"), console)
    assert text(console) == ""


def test_a_calendar_that_cannot_be_written_is_said(tmp_path: Path, console: Console) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError, match="NDIF_CALENDAR__ICS"):
        local.write_calendar(with_calendar(tmp_path / "file" / "calendar.ics"), console)


def test_taken_ports_are_replaced_and_told(console: Console) -> None:
    wanted = [free_port() for _ in range(5)]
    settings = Settings(
        ray=RaySettings(head_port=wanted[0], client_port=wanted[1], dashboard_port=wanted[2]),
        serve=ServeSettings(port=wanted[3]),
        web=WebSettings(port=wanted[4]),
    )
    assert local.take_ports(settings, console) == settings
    assert text(console) == ""
    with socket.socket() as server:
        server.bind(("127.0.0.1", wanted[3]))
        server.listen()
        moved = local.take_ports(settings, console)
    assert moved.serve.port != wanted[3]
    assert f"Port {wanted[3]} is taken; the gateway gets {moved.serve.port} instead." in text(console)


def test_steps_of_the_demo_model_are_told_once_each(
    tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(cache: Path, report: demo_model.Report) -> Path:
        for share in (None, 0.1, 0.9):
            report("downloading [weights]", share)
        return cache

    monkeypatch.setattr(demo_model, "prepare_demo_model", prepare)
    local.prepare_demo(Settings(models=ModelSettings(huggingface_home=tmp_path)), console)
    assert text(console).count("downloading [weights]") == 1


def test_a_demo_model_that_cannot_be_had_is_an_error_for_people(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(cache: Path, report: demo_model.Report) -> Path:
        raise demo_model.DemoModelError("No disk.")

    monkeypatch.setattr(demo_model, "prepare_demo_model", prepare)
    with pytest.raises(OperatorError, match="No disk"):
        local.prepare_demo(Settings(), console)


def test_what_is_said_at_the_end_can_be_copied(tmp_path: Path, console: Console) -> None:
    local.show_welcome(with_calendar(tmp_path / "calendar.ics"), console, "organisation/model")
    said = text(console)
    (command,) = [line for line in said.splitlines() if line.startswith("curl ")]
    assert "organisation/model" in command
    assert "with model.trace(" in said
    assert "what becomes of it: http://127.0.0.1:8280" in said
    assert f"edit {tmp_path / 'calendar.ics'}" in said
