"""Fixtures of the tests of ``ndif-ray calendar``: the command line, a Google, a calendar, a cluster."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from calendars.called import VARIABLE
from calendars.google import GoogleCalendar
from scheduler import calendar_desk
from scheduler.__main__ import main
from scheduler.controller import Controller
from scheduler.types import Observed
from tests.google_server import CalendarHandle, GoogleServer, google_server
from tests.google_server.api import Knobs
from tests.scheduler.builders import cluster, gpus
from tests.scheduler.calendar_cli import Ran, Run

CATALOG = """
models:
  - {alias: Small, repo_id: org/small, parameters: 2000000000, dtype: bfloat16, trust_remote_code: true}
  - {alias: Huge, repo_id: org/huge, parameters: 900000000000, dtype: bfloat16}
"""


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line, as an operator has it."""

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["ndif-ray", "calendar", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Ran(int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A service of one's own, in Berlin, without Ray."""
    for name in ("SCHEDULING_GOOGLE_CALENDAR_ID", "SCHEDULING_GOOGLE_CREDS_PATH", "HF_HOME", VARIABLE):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "models.yml").write_text(CATALOG)
    for name, value in {
        "NDIF_STATE_DIR": tmp_path / "var",
        "NDIF_CONFIG": empty_file(tmp_path / "settings.yml"),
        "NDIF_MODELS__CATALOG": tmp_path / "models.yml",
        "NDIF_RAY__DASHBOARD_PORT": 9,
        "NDIF_CALENDAR__ICS": tmp_path / "calendar.ics",
        "TZ": "Europe/Berlin",
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(calendar_desk, "RETRY_PAUSE_SECONDS", 0.0)
    monkeypatch.setitem(GoogleCalendar.__init__.__kwdefaults__, "retry_pause_seconds", 0.0)
    time.tzset()
    yield tmp_path
    monkeypatch.delenv("TZ")
    time.tzset()


@pytest.fixture(scope="session")
def whole_google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GoogleServer, Path]]:
    with google_server() as google:
        yield google, google.key_file(tmp_path_factory.mktemp("key"))


@pytest.fixture
def google(
    whole_google: tuple[GoogleServer, Path], home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[GoogleServer]:
    """The stand-in as if nobody had been there, and the settings that lead to it."""
    server, key = whole_google
    monkeypatch.delenv("NDIF_CALENDAR__ICS")
    monkeypatch.setenv("SCHEDULING_GOOGLE_CREDS_PATH", str(key))
    monkeypatch.setenv("NDIF_CALENDAR__GOOGLE_ENDPOINT", server.api_endpoint)
    server.knobs.check_answers = True
    yield server
    assert server.violations == []
    server.faults.clear()
    server.clock_offset = timedelta()
    vars(server.knobs).update(vars(Knobs()))
    server.log.clear()


@pytest.fixture
def lab(google: GoogleServer, monkeypatch: pytest.MonkeyPatch) -> CalendarHandle:
    """A calendar that nobody has written in yet."""
    lab = google.calendar(time_zone="Europe/Berlin")
    monkeypatch.setenv("SCHEDULING_GOOGLE_CALENDAR_ID", lab.id)
    return lab


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster of one GPU, on which nothing runs."""
    observed = Observed(cluster=cluster(gpus("node-1", 1, 80)))
    monkeypatch.setattr(Controller, "observe", lambda _: (observed, None))


@pytest.fixture(params=["google", "ics"])
def any_calendar(request: pytest.FixtureRequest) -> str:
    """Each kind of calendar that can be booked in."""
    if request.param == "google":
        request.getfixturevalue("lab")
    return str(request.param)


def empty_file(path: Path) -> Path:
    """Settings of its own, so that those of the project's folder do not count."""
    path.write_text("")
    return path
