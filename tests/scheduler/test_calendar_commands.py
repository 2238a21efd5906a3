"""``ndif-ray calendar``: the commands, on a stand-in for Google and on .ics files."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest

from scheduler import calendar_commands, calendar_desk
from scheduler.__main__ import main
from scheduler.controller import Controller
from scheduler.errors import OperatorError
from scheduler.types import Observed
from tests.google_server import ROBOT, CalendarHandle, GoogleServer, google_server
from tests.google_server.api import Knobs
from tests.scheduler.builders import cluster, gpus

NOW = datetime.now(UTC).replace(microsecond=0)
CATALOG = """
models:
  - {alias: Small, repo_id: org/small, parameters: 2000000000, dtype: bfloat16}
  - {alias: Huge, repo_id: org/huge, parameters: 900000000000, dtype: bfloat16}
"""


def hours(count: float) -> datetime:
    """So many hours from the start of this run, in UTC."""
    return NOW + timedelta(hours=count)


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line, as an operator has it."""

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["ndif-ray", "calendar", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Ran(int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A service of one's own, in Berlin, without Ray."""
    for name in ("SCHEDULING_GOOGLE_CALENDAR_ID", "SCHEDULING_GOOGLE_CREDS_PATH", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "models.yml").write_text(CATALOG)
    for name, value in {
        "NDIF_STATE_DIR": tmp_path / "var",
        "NDIF_CONFIG": tmp_path / "none.yml",
        "NDIF_MODELS__CATALOG": tmp_path / "models.yml",
        "NDIF_RAY__DASHBOARD_PORT": 9,
        "NDIF_CALENDAR__ICS": tmp_path / "calendar.ics",
        "TZ": "Europe/Berlin",
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(calendar_desk, "RETRY_PAUSE_SECONDS", 0.0)
    time.tzset()
    yield tmp_path
    monkeypatch.delenv("TZ")
    time.tzset()


@pytest.fixture(scope="module")
def whole_google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GoogleServer, Path]]:
    with google_server() as google:
        yield google, google.key_file(tmp_path_factory.mktemp("key"))


@pytest.fixture
def google(
    whole_google: tuple[GoogleServer, Path], monkeypatch: pytest.MonkeyPatch
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


# --- book, list, cancel ----------------------------------------------------------------------------------


def test_what_is_booked_is_listed_and_gone_when_cancelled(run: Run, any_calendar: str) -> None:
    booked = run(
        *("book", "org/small", "--from", "+1h", "--to", "+2h", "--replicas", "2", "--dtype", "float16"),
        *("--gpus", "1", "--priority", "5", "--revision", "v1", "--task", "text-generation"),
        *("--trust-remote-code", "--title", "Reading group, room 5", "--json"),
    )
    assert booked.code == 0, booked.err
    listed = run("list", "--json").json
    assert listed["problems"] == listed["misunderstood"] == []
    (one,) = listed["bookings"]
    assert one["key"] == booked.json["key"]
    assert one["title"] == "Reading group, room 5"
    assert one["request"] == {
        "model": "org/small",
        "revision": "v1",
        "task": "text-generation",
        "trust_remote_code": True,
        "replicas": 2,
        "dtype": "float16",
        "gpus": 1,
        "priority": 5,
    }
    start, end = (datetime.fromisoformat(one[side]) for side in ("start", "end"))
    assert end - start == timedelta(hours=2)
    assert abs(start - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)
    gone = run("cancel", one["key"], "--json")
    assert gone.json == {"cancelled": one["key"], "calendar": one["calendar"], "scope": "event"}
    assert run("list", "--json").json["bookings"] == []
    again = run("cancel", one["key"])
    assert again.code == 1
    assert "No booking" in again.err


def test_the_list_is_in_local_time(run: Run, lab: CalendarHandle) -> None:
    start = hours(24).replace(hour=12, minute=0, second=0)
    lab.add("org/small", start, start + timedelta(hours=1), "replicas: 2")
    lab.add("Oops", start, start + timedelta(hours=1), "replicas: many")
    listed = run("list")
    local = start.astimezone()
    assert local.utcoffset() in (timedelta(hours=1), timedelta(hours=2))
    assert f"{local:%H:%M} to {local + timedelta(hours=1):%H:%M}" in listed.out
    assert "2 replicas" in listed.out
    assert "?? “Oops”" in listed.out
    assert listed.code == 0


def test_the_window_of_the_list_can_be_chosen(run: Run, lab: CalendarHandle) -> None:
    lab.add("org/small", hours(24 * 20), hours(24 * 20 + 1))
    assert "Nothing is booked until" in run("list").out
    assert len(run("list", "--days", "30", "--json").json["bookings"]) == 1


def test_a_calendar_that_cannot_be_read_is_no_empty_one(
    run: Run, google: GoogleServer, lab: CalendarHandle
) -> None:
    google.faults.add("error:quotaExceeded", None)
    listed = run("list")
    assert (listed.code, listed.out) == (1, "")
    assert "quota" in listed.err
    assert run("list", "--json").json["problems"][0]["calendar"] == lab.id


def test_a_booking_in_google_is_made_once_though_its_answer_is_lost(
    run: Run, google: GoogleServer, lab: CalendarHandle
) -> None:
    google.faults.add("drop_after", method="POST", path="/events")
    assert run("book", "org/small", "--from", "+1h", "--to", "+1h").code == 0
    (made,) = lab.events()
    assert made["status"] == "confirmed"
    assert google.log.matching("POST", "/events")[0].query.get("sendUpdates") == ["none"]


@pytest.mark.parametrize("fault", ["drop_after", "drop_before", "empty", "error:backendError"])
def test_a_cancellation_in_google_arrives_though_its_answer_is_lost(
    fault: str, run: Run, google: GoogleServer, lab: CalendarHandle
) -> None:
    lab.add("org/small", hours(1), hours(2))
    google.faults.add(fault, method="DELETE")
    assert run("cancel", "org/small").code == 0
    assert [one["status"] for one in lab.events()] == ["cancelled"]


def test_when_no_answer_comes_nobody_knows_and_that_is_said(
    run: Run, google: GoogleServer, lab: CalendarHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NDIF_CALENDAR__TIMEOUT_SECONDS", "0.3")
    google.faults.add("drop_before", None, method="POST", path="/events")
    booked = run("book", "org/small", "--from", "+1h", "--to", "+1h")
    assert booked.code == 1
    assert "Whether it arrived is not known" in booked.err.replace("\n", " ")


def test_a_calendar_that_may_only_be_read_takes_no_booking(
    run: Run, google: GoogleServer, lab: CalendarHandle
) -> None:
    lab.share(ROBOT, "reader")
    booked = run("book", "org/small", "--from", "+1h", "--to", "+1h")
    assert booked.code == 1
    assert "Make changes to events" in booked.err.replace("\n", " ")
    assert lab.events() == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bad name", "--from", "+1h", "--to", "+1h"], "bad name"),
        (["org/small", "--from", "soon", "--to", "+1h"], "is not a time"),
        (["org/small", "--from", "tomorrow 14:00", "--to", "13:00"], "not after"),
        (["org/small", "--from", "2020-01-01T10:00", "--to", "+1h"], "over already"),
        (["org/small", "--from", "+1h", "--to", "+400d"], "at most 366 days"),
        (["org/small", "--from", "+1h", "--to", "+1h", "--replicas", "0"], "--replicas"),
        (["org/small", "--from", "+1h", "--to", "+1h", "--task", "a b"], "cannot be written"),
        (["org/small", "--from", "+1h", "--to", "+1h", "--revision", ""], "--revision is ''"),
        (["org/small", "--from", "+1h", "--to", "+1h", "--title", "x" * 1001], "The title"),
        (["org/small", "--from", "+1h", "--to", "+1h", "--calendar", "other"], "no calendar other"),
        (["org/small", "--from", "+1h"], "--to"),
    ],
)
def test_what_cannot_be_booked_is_said_and_not_booked(
    arguments: list[str], says: str, run: Run, home: Path
) -> None:
    booked = run("book", *arguments)
    assert booked.code == 1
    assert says in booked.err.replace("\n", " ")
    assert not (home / "calendar.ics").exists()


def test_with_several_calendars_one_has_to_be_chosen(
    run: Run, google: GoogleServer, lab: CalendarHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = google.calendar()
    monkeypatch.setenv("SCHEDULING_GOOGLE_CALENDAR_ID", f"{lab.id},{other.id}")
    undecided = run("book", "org/small", "--from", "+1h", "--to", "+1h")
    assert undecided.code == 1
    assert other.id in undecided.err.replace("\n", "")
    assert run("book", "org/small", "--from", "+1h", "--to", "+1h", "--calendar", other.id).code == 0
    assert (len(lab.events()), len(other.events())) == (0, 1)


def test_times_have_the_offset_of_their_day_and_ends_go_by_the_start() -> None:
    winter, summer = datetime(2026, 3, 27, 11, tzinfo=UTC), "2026-03-30T14:00"
    start, end = calendar_desk.window(summer, "16:30", winter)
    assert (start.astimezone(UTC).hour, end - start) == (12, timedelta(hours=2, minutes=30))
    assert calendar_desk.window("tomorrow 9:00", "+90m", winter)[1].astimezone(UTC).hour == 9
    assert calendar_desk.window("+1h", "tomorrow 9:00", winter)[0] == winter + timedelta(hours=1)
    with pytest.raises(OperatorError, match="not after"):
        calendar_desk.window("2026-03-30T14:00", "2026-03-30T14:00", winter)


@pytest.mark.parametrize(
    "model",
    [
        "https://huggingface.co/org/small",
        'nnsight.modeling.transformers.TransformersModel:{"repo_id": "org/small"}',
    ],
)
def test_a_model_can_be_named_by_its_address_or_its_key(model: str) -> None:
    assert calendar_desk.named_model(model).model == "org/small"


# --- cancelling: what is meant ---------------------------------------------------------------------------


def test_a_title_names_a_booking_where_only_one_has_it(run: Run, lab: CalendarHandle) -> None:
    first = lab.add("Seminar", hours(1), hours(2), "model: org/small")
    lab.add("seminar", hours(3), hours(4), "model: org/small")
    lab.add("Tutorial", hours(5), hours(6), "model: org/huge")
    both = run("cancel", "Seminar")
    assert both.code == 1
    assert "names 2 bookings" in both.err
    assert f"{lab.id}/{first['id']}" in both.err.replace("\n", "")
    missed = run("cancel", "Tutorail")
    assert missed.code == 1
    assert "Tutorial" in missed.err
    assert run("cancel", "org/huge").code == 0
    assert run("cancel", first["id"]).code == 0, "the key without its calendar"
    assert [one["status"] for one in lab.events()] == ["cancelled", "confirmed", "cancelled"]


def test_one_of_a_series_or_all_of_it_can_be_cancelled_in_google(run: Run, lab: CalendarHandle) -> None:
    series = lab.add("org/small", hours(1), hours(2), repeat="RRULE:FREQ=DAILY;COUNT=4")
    keys = [one["key"] for one in run("list", "--json").json["bookings"]]
    assert run("cancel", keys[1], "--json").json["scope"] == "instance"
    assert [one["key"] for one in run("list", "--json").json["bookings"]] == [keys[0], *keys[2:]]
    assert run("cancel", series["id"], "--json").json["scope"] == "series"
    assert run("list", "--json").json["bookings"] == []


def test_the_verdict_on_a_series_stands_for_all_of_it(run: Run, lab: CalendarHandle) -> None:
    lab.add("Lunch with everybody", hours(1), hours(2), repeat="RRULE:FREQ=DAILY;COUNT=4")
    (wrong,) = run("list", "--json").json["misunderstood"]
    assert run("cancel", wrong["key"], "--json").json["scope"] == "series"
    assert run("list", "--json").json["misunderstood"] == []


def test_on_a_terminal_it_is_asked_first(
    run: Run, lab: CalendarHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.add("org/small", hours(1), hours(2))
    asked: list[str] = []

    def no(question: str, **_: object) -> None:
        asked.append(question)
        raise click.Abort

    monkeypatch.setattr(calendar_commands, "_asks", lambda: True)
    monkeypatch.setattr(click, "confirm", no)
    assert run("cancel", "org/small").code == 130
    assert "org/small" in asked[0]
    assert lab.events()[0]["status"] == "confirmed"
    assert run("cancel", "org/small", "--yes").code == 0
    assert len(asked) == 1


# --- check -----------------------------------------------------------------------------------------------


def test_check_says_of_each_event_whether_it_can_be_met(run: Run, lab: CalendarHandle, ray: None) -> None:
    lab.add("Small", hours(-0.1), hours(1))
    assert run("check").code == 0
    lab.add("Huge", hours(2), hours(3))
    lab.add("Small", hours(4), hours(5), "replicas: lots")
    checked = run("check")
    assert checked.code == 3
    assert "ok" in checked.out
    assert "on node-1" in checked.out
    assert "no " in checked.out
    assert "has 80.0 GiB even when empty" in checked.out
    assert "not understood" in checked.out
    assert "For example:" in checked.out
    states = [one["verdict"]["state"] for one in run("check", "--json").json["events"] if one["understood"]]
    assert states == ["placed", "refused"]


def test_without_ray_check_says_what_was_understood(run: Run, lab: CalendarHandle) -> None:
    lab.add("Huge", hours(2), hours(3))
    checked = run("check")
    assert checked.code == 0
    assert "does not answer" in checked.out
    assert "--  " in checked.out
    lab.add("two words", hours(2), hours(3))
    assert run("check").code == 3
    assert run("check", "--json").json["planned"] is False


def test_check_fails_where_a_calendar_cannot_be_read(
    run: Run, google: GoogleServer, lab: CalendarHandle
) -> None:
    google.faults.add("error:notFound", None, path="/events")
    checked = run("check")
    assert checked.code == 1
    assert "Nothing is booked" not in checked.out
    assert ROBOT in checked.err.replace("\n", "")


def test_booking_tells_what_planning_says(run: Run, any_calendar: str, ray: None) -> None:
    good = run("book", "Small", "--from", "+1h", "--to", "+1h")
    assert (good.code, "Booked in" in good.out, "ok  " in good.out) == (0, True, True)
    bad = run("book", "Huge", "--from", "+1h", "--to", "+1h", "--json")
    assert bad.code == 3
    assert "80.0 GiB" in bad.json["verdict"]["words"]
    far = run("book", "Small", "--from", "+30d", "--to", "+1h", "--json")
    assert (far.code, far.json["verdict"]) == (0, None)
    assert "horizon" in far.json["note"]


# --- doctor ----------------------------------------------------------------------------------------------


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
        assert "NDIF_CALENDAR__DEFAULT_TIMEZONE" in ran.err
