"""What ``head`` prepares before Ray starts."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from scheduler.errors import OperatorError
from scheduler.launch import local, ports, service
from scheduler.launch.service import start_calendar
from scheduler.settings import Settings, load_settings
from scheduler.store.history import FILE as HISTORY


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def test_a_first_start_has_an_empty_calendar_to_edit(tmp_path: Path, console: Console) -> None:
    start_calendar(load_settings(state_dir=tmp_path), console)
    assert "BEGIN:VCALENDAR" in (tmp_path / "calendar.ics").read_text()


def test_a_calendar_that_was_lost_is_not_replaced_by_an_empty_one(tmp_path: Path, console: Console) -> None:
    (tmp_path / HISTORY).write_bytes(b"")
    start_calendar(load_settings(state_dir=tmp_path), console)
    assert not (tmp_path / "calendar.ics").exists()


@pytest.mark.parametrize("calendar", [{"ics": "https://example.org/a.ics"}, {"google_calendar_id": "a@b"}])
def test_no_file_is_made_where_bookings_come_from_elsewhere(
    tmp_path: Path, console: Console, calendar: dict[str, str]
) -> None:
    start_calendar(load_settings(state_dir=tmp_path, calendar=calendar), console)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_calendar_is_said(tmp_path: Path, console: Console) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError, match="cannot be written"):
        start_calendar(load_settings(state_dir=tmp_path / "file"), console)


@pytest.mark.parametrize("start", [service.run_head, local.run_local])
def test_nothing_is_made_where_the_gateway_would_be_open_and_nobody_has_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[[Settings], int]
) -> None:
    monkeypatch.setattr(ports, "require", lambda wanted: None)
    monkeypatch.setattr(local, "prepare_demo", lambda settings, console: (tmp_path / "demo").touch())
    settings = load_settings(state_dir=tmp_path / "var", serve={"host": "0.0.0.0"})
    with pytest.raises(OperatorError, match="there is no key yet"):
        start(settings)
    assert not (tmp_path / "var" / "calendar.ics").exists()
    assert not (tmp_path / "demo").exists()
