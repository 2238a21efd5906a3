"""``ndif-ray calendar doctor``: whatever is wrong, it names the step and the remedy; and the guide agrees."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from scheduler.settings import ROOT
from tests.google_server import ROBOT, CalendarHandle, GoogleServer
from tests.scheduler.calendar_cli import Run

GUIDE = (ROOT / "docs/google-calendar.md").read_text()


def findings(run: Run) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code of ``doctor``, and its findings by step."""
    ran = run("doctor", "--json")
    steps = [finding for one in ran.json["checked"] for finding in one["findings"]]
    assert ran.json["fine"] == (ran.code == 0)
    return ran.code, {finding["step"]: finding for finding in steps}


def test_when_all_is_well_the_doctor_says_so(run: Run, lab: CalendarHandle) -> None:
    code, found = findings(run)
    assert code == 0
    assert {one["outcome"] for one in found.values()} == {"ok"}
    assert list(found) == [
        *("key file", "network", "clock", "token"),
        *("API", "sharing", "access role", "time zone", "answering", "quota"),
    ]
    text = run("doctor").out
    assert ROBOT in text
    assert "Europe/Berlin" in text


def _key(monkeypatch: pytest.MonkeyPatch, home: Path, content: str | None) -> None:
    path = home / "key.json"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("SCHEDULING_GOOGLE_CREDS_PATH", str(path))


@dataclass
class Scene:
    google: GoogleServer
    lab: CalendarHandle
    home: Path
    monkeypatch: pytest.MonkeyPatch


SITUATIONS: dict[str, tuple[Callable[[Scene], object], str, str, list[str]]] = {
    "no key file": (
        lambda s: _key(s.monkeypatch, s.home, None),
        "key file",
        "SCHEDULING_GOOGLE_CREDS_PATH",
        ["token", "API", "sharing"],
    ),
    "broken key file": (
        lambda s: _key(s.monkeypatch, s.home, '{"type": "service_acc'),
        "key file",
        "Download a JSON key",
        ["token", "API"],
    ),
    "an OAuth client's file": (
        lambda s: _key(s.monkeypatch, s.home, '{"installed": {}}'),
        "key file",
        "Download a JSON key",
        ["token"],
    ),
    "deleted key": (
        lambda s: _revoked(s),
        "token",
        "Make a new key",
        ["API", "sharing", "access role"],
    ),
    "API off": (
        lambda s: setattr(s.google.knobs, "api_enabled", False),
        "API",
        "Enable it on https://console.cloud.google.com",
        ["sharing", "access role"],
    ),
    "not shared": (lambda s: s.lab.share(ROBOT, "none"), "sharing", ROBOT, ["access role", "time zone"]),
    "wrong id": (
        lambda s: s.monkeypatch.setenv("SCHEDULING_GOOGLE_CALENDAR_ID", "nobody@example.org"),
        "sharing",
        "SCHEDULING_GOOGLE_CALENDAR_ID",
        ["access role"],
    ),
    "reader only": (lambda s: s.lab.share(ROBOT, "reader"), "answering", "NDIF_CALENDAR__WRITE_BACK=off", []),
    "busy times only": (
        lambda s: s.lab.share(ROBOT, "freeBusyReader"),
        "access role",
        "Make changes to events",
        [],
    ),
    "clock ahead": (
        lambda s: setattr(s.google, "clock_offset", timedelta(minutes=-10)),
        "clock",
        "NTP",
        ["API"],
    ),
    "clock behind": (
        lambda s: setattr(s.google, "clock_offset", timedelta(minutes=10)),
        "clock",
        "NTP",
        [],
    ),
    "quota used up": (
        lambda s: s.google.faults.add("error:quotaExceeded", None, path="/events"),
        "quota",
        "quota",
        ["sharing"],
    ),
    "too eager": (
        lambda s: s.monkeypatch.setenv("SCHEDULING_CHECK_INTERVAL_S", "0.1"),
        "quota",
        "SCHEDULING_CHECK_INTERVAL_S",
        [],
    ),
    "a portal": (lambda s: s.google.faults.add("html", None), "network", "page to log in", ["clock", "API"]),
}


def _revoked(scene: Scene) -> None:
    content = json.loads(Path(os.environ["SCHEDULING_GOOGLE_CREDS_PATH"]).read_text())
    _key(scene.monkeypatch, scene.home, json.dumps(content | {"private_key_id": "0" * 40}))


@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_doctor_names_the_step_that_is_wrong_and_its_remedy(
    situation: str,
    run: Run,
    google: GoogleServer,
    lab: CalendarHandle,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepare, step, remedy, not_known = SITUATIONS[situation]
    prepare(Scene(google, lab, home, monkeypatch))
    code, found = findings(run)
    assert code == 1
    assert found[step]["outcome"] == "problem", found
    assert remedy in found[step]["remedy"], found[step]
    assert [found[name]["outcome"] for name in not_known] == ["unknown"] * len(not_known), found
    text = run("doctor")
    assert text.code == 1
    assert "->" in text.out


def test_the_doctor_goes_on_where_google_is_away(
    run: Run, google: GoogleServer, lab: CalendarHandle, home: Path
) -> None:
    with google.away():
        code, found = findings(run)
    assert code == 1
    assert found["key file"]["outcome"] == "ok"
    assert found["network"]["outcome"] == found["token"]["outcome"] == "problem"
    assert found["clock"]["outcome"] == found["API"]["outcome"] == "unknown"


def test_the_doctor_does_not_wait_for_ever(
    run: Run, google: GoogleServer, lab: CalendarHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NDIF_CALENDAR__TIMEOUT_SECONDS", "0.4")
    hanging = google.faults.add("hang", None)
    code, found = findings(run)
    hanging.release()
    assert code == 1
    assert found["network"]["outcome"] == found["token"]["outcome"] == "problem"
    assert "no answer" in found["network"]["found"]


def test_application_default_credentials_are_looked_over_as_well(
    run: Run, lab: CalendarHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", os.environ["SCHEDULING_GOOGLE_CREDS_PATH"])
    monkeypatch.delenv("SCHEDULING_GOOGLE_CREDS_PATH")
    code, found = findings(run)
    assert code == 0
    assert ROBOT in found["credentials"]["found"]
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    code, found = findings(run)
    assert code == 1
    assert "SCHEDULING_GOOGLE_CREDS_PATH" in found["credentials"]["remedy"]


def test_a_key_that_others_can_read_is_noted(run: Run, lab: CalendarHandle) -> None:
    key = Path(os.environ["SCHEDULING_GOOGLE_CREDS_PATH"])
    key.chmod(0o644)
    code, found = findings(run)
    key.chmod(0o600)
    assert (code, found["key file"]["outcome"]) == (0, "note")
    assert "chmod 600" in found["key file"]["remedy"]


def test_the_doctor_looks_at_every_calendar_and_at_the_account_once(
    run: Run, lab: CalendarHandle, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCHEDULING_GOOGLE_CALENDAR_ID", f"nowhere,{lab.id}")
    monkeypatch.setenv("NDIF_CALENDAR__ICS", str(home / "calendar.ics"))
    checked = run("doctor", "--json").json["checked"]
    assert [one["about"].split()[0] for one in checked] == ["Google", "Google", "Google", "Calendar"]
    assert checked[2]["findings"][1]["outcome"] == "ok"


@pytest.mark.parametrize(
    ("location", "content", "outcomes"),
    [
        ("calendar.ics", None, ["problem", "ok"]),
        ("calendar.ics", "BEGIN:VCALENDAR\nEND:VCALENDAR\n", ["ok", "ok", "ok"]),
        ("calendar.ics", "<html>", ["problem", "ok"]),
        ("http://127.0.0.1:9/calendar.ics", None, ["problem", "note"]),
    ],
    ids=["missing", "good", "a page", "a URL where nobody is"],
)
def test_the_doctor_looks_at_files_and_urls(
    location: str,
    content: str | None,
    outcomes: list[str],
    run: Run,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NDIF_CALENDAR__ICS", location if "://" in location else str(home / location))
    monkeypatch.setenv("NDIF_CALENDAR__TIMEOUT_SECONDS", "0.5")
    if content is not None:
        (home / location).write_text(content)
    ran = run("doctor", "--json")
    (checked,) = ran.json["checked"]
    assert [one["outcome"] for one in checked["findings"]] == outcomes
    assert ran.code == ("problem" in outcomes)


def test_a_time_zone_that_is_none_is_an_error_in_words(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NDIF_CALENDAR__DEFAULT_TIMEZONE", "Mars/Olympus")
    for command in ("list", "check", "doctor"):
        ran = run(command)
        assert ran.code == 1
        assert "default_timezone" in ran.err.casefold()


def test_the_guide_knows_every_step_of_the_doctor(
    run: Run, lab: CalendarHandle, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = GUIDE.partition("## When something is wrong")[2]
    known = {word.strip() for row in re.findall(r"(?m)^\| ([\w ,]+) \|", table) for word in row.split(",")}
    (home / "calendar.ics").write_text("BEGIN:VCALENDAR\nEND:VCALENDAR\n")
    monkeypatch.setenv("NDIF_CALENDAR__ICS", str(home / "calendar.ics"))
    assert set(findings(run)[1]) <= known


def test_the_guide_can_be_followed_on_the_stand_in(
    run: Run, google: GoogleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    google.calendar("lab", "Europe/Berlin")
    monkeypatch.setenv("SCHEDULING_GOOGLE_CALENDAR_ID", "lab")
    monkeypatch.setenv("NDIF_MODELS__CATALOG", str(ROOT / "config/models.yml"))
    shown = re.findall(r"(?m)^\$ ndif-ray calendar (.*)$", GUIDE.partition("## Try it without Google")[2])
    codes = {line: run(*shlex.split(line)).code for line in shown}
    assert len(codes) >= 5
    assert set(codes.values()) == {0}, codes
