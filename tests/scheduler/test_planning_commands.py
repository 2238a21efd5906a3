"""``ndif-ray plan`` and ``apply`` from their arguments to what they print and their exit codes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import jsonschema
import pytest

from calendars.called import VARIABLE, command
from scheduler.__main__ import main
from scheduler.controller import Controller, Stale
from scheduler.decisions import differences
from scheduler.render.schema import plan_schema, plan_schema_text
from scheduler.settings import ROOT, load_settings
from scheduler.state_lock import StateLock
from scheduler.types import PLAN_VERSION, DeploymentStatus, Observed, Plan
from tests.scheduler.builders import booking, carried_out, cluster, deployed, gpus, known, planned
from tests.scheduler.calendar_cli import Ran, hours
from tests.scheduler.handmade import eventful_plan

CATALOG = """
models:
  - {alias: Small, repo_id: org/small, parameters: 2000000000, dtype: bfloat16}
  - {alias: Large, repo_id: org/large, parameters: 35000000000, dtype: bfloat16}
  - {alias: Huge, repo_id: org/huge, parameters: 900000000000, dtype: bfloat16}
"""
Cli = Callable[..., Ran]


class Cluster:
    """What is observed, and the plans that were carried out."""

    def __init__(self) -> None:
        self.observed = Observed(
            cluster=cluster(gpus("gpu-a", 2, 80), gpus("gpu-b", 2, 80)),
            directory_version="old",
            fingerprint="seen",
        )
        self.applied: list[Plan] = []
        self.stale = 0

    def apply(self, plan: Plan) -> None:
        if self.stale:
            self.stale -= 1
            raise Stale("somebody else was faster")
        self.applied.append(plan)
        self.observed = self.observed.model_copy(
            update={"deployments": carried_out(plan), "directory_version": plan.directory.version}
        )


class Serve:
    """The state of Serve that the commands ask for."""

    gateway_status = ("RUNNING", "")


@pytest.fixture
def there(home: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Two nodes with two GPUs each, without Ray."""
    (home / "models.yml").write_text(CATALOG)
    monkeypatch.setenv("NDIF_PLANNING__SOLVER_SECONDS", "0")
    made = Cluster()
    monkeypatch.setattr(Controller, "observe", lambda _: (made.observed, Serve()))
    monkeypatch.setattr(Controller, "apply", lambda _, plan: made.apply(plan))
    return made


@pytest.fixture
def cli(
    there: Cluster, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cli:
    """The command line, given in the folder of the test."""

    def run(*arguments: str) -> Ran:
        monkeypatch.chdir(home)
        monkeypatch.setattr(sys, "argv", ["ndif-ray", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Ran(int(ended.value.code or 0), said.out, said.err)

    return run


def stamp(count: float) -> str:
    """So many hours from now, as calendars write it."""
    return f"{hours(count):%Y%m%dT%H%M%SZ}"


def book(home: Path, *bookings: tuple[str, float, float, str]) -> None:
    """Write a calendar: title, start and end in hours from now, description."""
    events = [
        f"BEGIN:VEVENT\nUID:{number}@test\nDTSTAMP:{stamp(-2)}\nCREATED:{stamp(-2 + number / 60)}\n"
        f"DTSTART:{stamp(start)}\nDTEND:{stamp(end)}\nSUMMARY:{title}\nDESCRIPTION:{text}\nEND:VEVENT"
        for number, (title, start, end, text) in enumerate(bookings)
    ]
    body = "\n".join(["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//test//EN", *events, "END:VCALENDAR", ""])
    (home / "calendar.ics").write_text(body.replace("\n", "\r\n"), newline="")


# Exit codes


def test_exit_codes_tell_nothing_changes_and_refusals_apart(cli: Cli, home: Path, there: Cluster) -> None:
    book(home)
    there.observed = there.observed.model_copy(update={"directory_version": planned_directory(cli)})
    assert cli("plan").code == 0
    book(home, ("Small", -1, 5, ""))
    assert cli("plan").code == 2
    assert cli("apply", "--no-wait").code == 0
    assert cli("plan").code == 0
    book(home, ("Small", -1, 5, ""), ("Huge", 1, 2, ""))
    assert cli("plan").code == 3
    assert cli("plan", "--at", "teatime").code == 1
    assert cli("plan", "--nonsense").code == 1


def planned_directory(cli: Cli) -> str:
    """The version of the directory the gateway shall know."""
    return Plan.model_validate_json(cli("plan", "--json").out).directory.version


# Supposing


def test_without_a_node_what_ran_there_moves(cli: Cli, home: Path) -> None:
    book(home, ("Small", -1, 5, ""))
    assert cli("apply", "--no-wait").code == 0
    supposed = cli("plan", "--without-node", "gpu-a")
    assert supposed.out.startswith("Supposing that gpu-a is gone:\n1 to take down, 1 to deploy")
    assert "- org/small on gpu-a" in supposed.out
    assert "+ org/small on gpu-b" in supposed.out
    both = cli("plan", "--without-node", "gpu-a", "--without-node", "gpu-b")
    assert both.code == 3
    assert "Supposing that gpu-a is gone and gpu-b is gone:" in both.out


def test_a_node_that_is_not_there_is_an_error_that_lists_those_that_are(cli: Cli, home: Path) -> None:
    book(home)
    wrong = cli("plan", "--without-node", "gpu-z")
    assert wrong.code == 1
    assert "“gpu-z”" in wrong.err
    assert "gpu-a, gpu-b" in wrong.err


def test_the_horizon_says_how_far_bookings_are_read(cli: Cli, home: Path) -> None:
    book(home, ("Huge", 30 * 24, 30 * 24 + 1, ""))
    assert json.loads(cli("plan", "--json").out)["verdicts"] == []
    far = cli("plan", "--horizon", "40", "--json")
    assert [one["title"] for one in json.loads(far.out)["verdicts"]] == ["Huge"]
    assert cli("plan", "--horizon", "0").code == 1
    assert cli("plan", "--horizon", "367").code == 1


def test_another_instant_is_said_to_be_supposed(cli: Cli, home: Path) -> None:
    book(home, ("Small", 20, 22, ""))
    assert "org/small on gpu" not in cli("plan").out
    then = cli("plan", "--at", "+21h")
    assert then.out.startswith("Supposing that it is ")
    assert "+ org/small on gpu-a" in then.out


def test_the_timeline_shows_the_hours_asked_for(cli: Cli, home: Path) -> None:
    book(home, ("Small", -1, 5, ""), ("Large", 30, 32, ""))
    day = cli("plan", "--timeline")
    assert "small" in day.out
    assert "large" not in day.out
    assert "large" in cli("plan", "--hours", "48").out
    assert day.code == 2


# What if


def test_what_if_a_booking_fits(cli: Cli, home: Path) -> None:
    book(home, ("Small", -1, 5, ""))
    asked = cli("plan", "--what-if", "Large, gpus: 2, replicas: 1 tomorrow 14:00-18:00")
    assert asked.code == 0, asked.err
    assert asked.out.startswith("It fits: “Large, gpus: 2, replicas: 1” ")
    assert "No other booking is affected." in asked.out
    assert "ndif-ray calendar book Large --from " in asked.out
    assert "--gpus 2" in asked.out


def test_what_if_it_does_not_fit(cli: Cli, home: Path) -> None:
    book(home, ("Large", -1, 5, "gpus: 2\\nreplicas: 2"))
    asked = cli("plan", "--what-if", "Small now for 2h", "--json")
    assert asked.code == 3
    assert asked.json["fits"] is False
    assert asked.json["verdict"]["reason"]["code"] == "no room"
    text = cli("plan", "--what-if", "Small now for 2h")
    assert text.out.startswith("It does not fit: “Small” ")
    assert cli("plan", "--what-if", "Small +6h for 2h").code == 0


def test_refusals_are_proven_unless_it_shall_be_quick(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NDIF_PLANNING__SOLVER_SECONDS", "5")
    book(home, ("Large", -1, 5, "gpus: 2\\nreplicas: 2"), ("Small", 1, 2, ""))
    assert "    Proven: " in cli("plan").out
    assert "    As bookings are laid out now" in cli("plan", "--quick").out
    assert "    Proven: " in cli("plan", "--what-if", "Small, gpus: 2 +2h for 1h").out


def test_what_if_goes_with_other_suppositions(cli: Cli, home: Path) -> None:
    book(home)
    asked = cli("plan", "--without-node", "gpu-a", "--what-if", "Small now for 2h")
    assert asked.out.startswith("Supposing that gpu-a is gone:\nIt fits: “Small” ")
    assert " on gpu-b." in asked.out


def test_what_if_tells_whom_a_stronger_booking_would_displace(cli: Cli, home: Path) -> None:
    book(home, ("Large", -1, 5, "gpus: 2\\nreplicas: 2"))
    asked = cli("plan", "--what-if", "Small, priority: 5 now for 2h")
    assert asked.code == 0
    assert "! “Large”" in asked.out


@pytest.mark.parametrize(
    ("option", "words"),
    [("--what-if", "No booking is written there."), ("--at", "“” is not a time")],
    ids=["booking", "time"],
)
def test_an_empty_question_is_not_the_ordinary_plan(cli: Cli, home: Path, option: str, words: str) -> None:
    book(home)
    asked = cli("plan", option, "")
    assert (asked.code, asked.out) == (1, "")
    assert words in asked.err and "Write" in asked.err


@pytest.mark.parametrize(
    "options",
    [
        ("plan", "--hours", "nan"),
        ("plan", "--horizon", "nan"),
        ("apply", "--timeout", "inf"),
        ("history", "--hours", "nan"),
        ("history", "--hours", "1e300"),
        ("calendar", "list", "--days", "nan"),
    ],
    ids=" ".join,
)
def test_what_is_no_number_to_reckon_with_is_refused(cli: Cli, home: Path, options: tuple[str, ...]) -> None:
    book(home)
    asked = cli(*options)
    assert (asked.code, asked.out) == (1, "")
    assert f"Invalid value for '{options[-2]}'" in asked.err


def test_what_if_somebody_else_books(cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NDIF_BOOKING__ORGANISERS", '["example.org"]')
    book(home)
    may = cli("plan", "--what-if", "Small tomorrow 14:00-18:00 by ada@example.org")
    assert may.code == 0, may.err
    assert may.out.startswith("It fits: “Small” by ada@example.org ")
    before_it = cli(
        "plan", "--what-if", "Small by Ada@Example.org, replicas: 1 tomorrow 14:00-18:00", "--json"
    )
    assert before_it.json["fits"] is True
    assert before_it.json["verdict"]["owner"] == "Ada@Example.org"
    for nobody in ("Small tomorrow 14:00-18:00", "Small tomorrow 14:00-18:00 by eve@elsewhere.net"):
        refused = cli("plan", "--what-if", nobody)
        assert refused.code == 3
        assert "the rule booking.organisers does not let" in refused.out
    assert "is by 2 people" in cli("plan", "--what-if", "Small by a@b.c now for 2h by d@e.f").err


def test_what_if_reads_as_far_as_the_booking_reaches(cli: Cli, home: Path) -> None:
    book(home, ("Large", 60 * 24, 60 * 24 + 5, "gpus: 2\\nreplicas: 2"))
    day = (hours(60 * 24 + 1)).astimezone()
    assert cli("plan", "--what-if", f"Small {day:%Y-%m-%d %H:%M} for 2h").code == 3
    assert cli("plan", "--what-if", f"Small {day + timedelta(days=600):%Y-%m-%d %H:%M} for 2h").code == 1


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("Small", "does not end in a start and an end"),
        ("Small yesterday", "does not end in a start and an end"),
        ("Team lunch tomorrow 12:00-13:00", "is not understood: No model is named"),
        ("Small, replicas: many tomorrow 12:00-13:00", "replicas is 'many'"),
    ],
)
def test_what_if_it_is_not_understood(written: str, says: str, cli: Cli, home: Path) -> None:
    book(home)
    asked = cli("plan", "--what-if", written)
    assert asked.code == 1
    assert says in " ".join(asked.err.split())


# Saved plans


def test_a_saved_plan_is_applied_while_its_decisions_stand(cli: Cli, home: Path, there: Cluster) -> None:
    book(home, ("Small", -1, 5, ""))
    kept = cli("plan", "--out", "plan.json")
    assert kept.code == 2
    assert f"ndif-ray apply {home / 'plan.json'}" in kept.out.replace("\n", "")
    book(home, ("Small", -1, 6, ""), ("Huge", 1, 2, ""), ("Small", 3, 4, ""))
    assert cli("apply", "plan.json", "--no-wait").code == 3, "done; what was booked since cannot be met"
    assert len(there.applied) == 1
    assert cli("apply", "plan.json", "--no-wait").code == 3, "it is done already, which is no difference"


def test_beside_a_daemon_a_saved_plan_is_to_be_looked_at(cli: Cli, home: Path, there: Cluster) -> None:
    book(home, ("Small", -1, 5, ""))
    with StateLock(load_settings()):
        kept = cli("plan", "--out", "plan.json").out.replace("\n", "")
        assert cli("apply", "plan.json").code == 1
    assert f"the daemon at work here (process {os.getpid()}) does by itself what is booked" in kept
    assert "ndif-ray apply" not in kept


def test_what_is_to_be_typed_is_named_as_the_command_was_called(
    cli: Cli, home: Path, there: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    book(home, ("Small", -1, 5, ""))
    monkeypatch.setenv(VARIABLE, "./start.sh")
    assert f"./start.sh apply {home / 'plan.json'}" in cli("plan", "--out", "plan.json").out.replace("\n", "")
    assert cli("plan", "--help").out.startswith("Usage: ./start.sh plan")
    monkeypatch.delenv(VARIABLE)
    assert command("plan") == "ndif-ray plan"
    monkeypatch.setattr(sys, "argv", [str(ROOT / "scheduler" / "__main__.py"), "plan"])
    assert command() == "python -m scheduler"


def test_a_saved_plan_is_not_applied_when_decisions_changed(cli: Cli, home: Path, there: Cluster) -> None:
    book(home, ("Small", -1, 5, ""))
    cli("plan", "--out", "plan.json")
    book(home, ("Large", -1, 5, "gpus: 2"))
    refused = cli("apply", "plan.json")
    assert refused.code == 4
    assert there.applied == []
    lines = refused.out.splitlines()
    assert lines[0].startswith("Nothing was done: since ")
    assert [line for line in lines if line[0] in "+-"] == [
        "+ org/large runs on gpu-a, 75.5 GiB on 2 GPUs",
        "- org/small runs on gpu-a, 4.8 GiB on 6% of a GPU",
    ]
    as_data = cli("apply", "plan.json", "--json")
    assert (as_data.code, as_data.json["applied"]) == (4, False)
    assert (len(as_data.json["then"]), len(as_data.json["now"])) == (1, 1)


def test_what_was_applied_is_promised(cli: Cli, home: Path) -> None:
    book(home, ("Small", -1, 5, ""))
    cli("plan", "--out", "plan.json")
    assert not (home / "var/promises.json").exists(), "looking promises nothing"
    assert cli("apply", "plan.json", "--no-wait").code == 0
    assert json.loads((home / "var/promises.json").read_text())["stays"]


def test_decisions_are_looked_at_again_after_somebody_else_was_faster(
    cli: Cli, home: Path, there: Cluster
) -> None:
    book(home, ("Small", -1, 5, ""))
    cli("plan", "--out", "plan.json")
    there.stale = 2
    assert cli("apply", "plan.json", "--no-wait").code == 0
    there.stale = 3
    there.observed = there.observed.model_copy(update={"deployments": ()})
    assert cli("apply", "plan.json", "--no-wait").code == 1


BAD_FILES = {
    "missing": (None, "cannot be read"),
    "not JSON": ("plan", "is no plan: it is not JSON"),
    "a list": ("[]", "it has no version"),
    "another version": ('{"version": 1}', "has version 1"),
    "half a plan": (json.dumps({"version": PLAN_VERSION}), "is no plan: at is field required"),
    "nested without end": ("[" * 100_000, "is no plan"),
}


@pytest.mark.parametrize(("content", "says"), BAD_FILES.values(), ids=BAD_FILES)
def test_what_is_no_plan_is_not_applied(content: str | None, says: str, cli: Cli, home: Path) -> None:
    if content is not None:
        (home / "plan.json").write_text(content)
    refused = cli("apply", "plan.json")
    assert refused.code == 1
    assert says in " ".join(refused.err.split())
    assert "Traceback" not in refused.err


def test_a_plan_that_is_only_supposed_cannot_be_kept(cli: Cli, home: Path) -> None:
    book(home)
    for more in (
        ("--at", "+1h"),
        ("--without-node", "gpu-a"),
        ("--what-if", "Small for 1h"),
        ("--horizon", "3"),
    ):
        refused = cli("plan", "--out", "plan.json", *more)
        assert refused.code == 1
        assert "--out keeps plans that can be applied" in refused.err
    assert not (home / "plan.json").exists()


def test_a_plan_that_cannot_be_written_is_an_error(cli: Cli, home: Path) -> None:
    book(home)
    refused = cli("plan", "--out", "nowhere/plan.json")
    assert refused.code == 1
    assert "cannot be written" in " ".join(refused.err.split())


def test_secrets_are_not_kept_or_printed(cli: Cli, home: Path, there: Cluster) -> None:
    book(home, ("Small", -1, 5, ""))
    cli("apply", "--no-wait")
    (serving,) = there.observed.deployments
    failed = serving.model_copy(
        update={"status": DeploymentStatus.FAILED, "message": "401 for hf_abcdefghijklmnopqrstuvwxyz"}
    )
    there.observed = there.observed.model_copy(update={"deployments": (failed,)})
    shown = [cli("plan").out, cli("plan", "--json").out, cli("plan", "--out", "plan.json").out]
    for written in (*shown, (home / "plan.json").read_text()):
        assert "hf_abc" not in written
    assert "401 for ***" in shown[0]
    assert cli("apply", "plan.json", "--no-wait").code == 0


# Decisions


def test_times_and_figures_are_no_decisions() -> None:
    on, sizes = cluster(gpus("a", 1, 80), gpus("b", 1, 80)), known(x=70, y=70, z=70)
    asked = [booking("org/x"), booking("org/y", booked=-3), booking("org/z", booked=-2)]
    then = planned(asked, on, sizes)
    longer = [asked[0].model_copy(update={"end": asked[0].end + timedelta(hours=1)}), *asked[1:]]
    now = planned(longer, on, known(x=70, y=70, z=75), at=then.at + timedelta(minutes=5))
    assert then.refused[0].reason != now.refused[0].reason
    assert differences(then, now) == ()
    assert differences(then, planned(asked, on, sizes, running=carried_out(then))) == ()


def test_what_runs_what_goes_and_what_is_refused_are_decisions() -> None:
    on, sizes = cluster(gpus("a", 1, 80), gpus("b", 1, 80)), known(x=70, y=70, z=70)
    x, y, z = booking("org/x"), booking("org/y", booked=-3), booking("org/z", booked=-2)
    then = planned([x, y, z], on, sizes)
    found = [
        (one.now, one.decision.kind.value, one.decision.subject)
        for one in differences(then, planned([y, x], on, sizes))
    ]
    assert found == [], "nothing is said of bookings that were taken back and had no room anyway"
    smaller = planned([x, y, z], on.without("b"), sizes)
    found = [(one.now, one.decision.kind.value, one.decision.subject) for one in differences(then, smaller)]
    assert found == [(False, "runs", "org/y"), (True, "refused", "org/y")]
    stranger = deployed(planned([booking("org/w")], on, known(w=1)).placements[0])
    found = [
        (one.now, one.decision.kind.value)
        for one in differences(then, planned([x, y, z], on, sizes, running=[stranger]))
    ]
    assert (True, "goes") in found


# The schema


def test_the_published_schema_is_that_of_the_types(cli: Cli) -> None:
    published = (ROOT / "docs/plan.schema.json").read_text()
    assert published == plan_schema_text(), "python -m scheduler plan --schema > docs/plan.schema.json"
    assert cli("plan", "--schema").out == plan_schema_text()


@pytest.mark.parametrize("name", ["full_plan", "eventful_plan"])
def test_plans_obey_the_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(plan_schema())
    written = json.loads((ROOT / f"tests/scheduler/golden/{name}.json").read_text())
    jsonschema.validate(written, plan_schema())
    jsonschema.validate(written | {"something_new": 1}, plan_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(written | {"version": PLAN_VERSION + 1}, plan_schema())
    assert eventful_plan().version == PLAN_VERSION
