"""From a calendar event to an answer, on real Ray and Serve, through the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from scheduler.settings import ROOT
from tests.ray_cluster import RayCluster, wait_until
from tests.tiny_model import TINY_REPO_ID, write_tiny_model

pytestmark = pytest.mark.ray

SECOND = "ndif-test/tiny-two"
STRANGER = """
import os, sys, ray
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0, "num_gpus": 1})
class Stranger:
    def __call__(self, request):
        return str(os.getpid())

ray.init(address=sys.argv[1], log_to_driver=False)
serve.run(Stranger.bind(), name="stranger", route_prefix="/stranger")
"""


@dataclass
class Service:
    """The service on the test's cluster, with a calendar and a state directory of its own."""

    cluster: RayCluster
    folder: Path
    events: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "NDIF_STATE_DIR": str(self.folder),
            "NDIF_CONFIG": str(self.folder / "settings.yml"),
            "NDIF_CALENDAR__ICS": str(self.folder / "calendar.ics"),
            "NDIF_CALENDAR__CHECK_INTERVAL_SECONDS": "1",
            "NDIF_MODELS__CATALOG": str(self.folder / "models.yml"),
            "NDIF_RAY__DASHBOARD_URL": self.cluster.dashboard_url,
            "NDIF_CONTROLLER__ADDRESS": self.cluster.address,
            "NDIF_SERVE__PORT": str(self.cluster.serve_port),
            "HF_HOME": str(self.cluster.hf_home),
            "HF_ENDPOINT": "http://127.0.0.1:9",
        }

    def book(self, text: str, seconds: float = 3600, start: float = -60, uid: str | None = None) -> None:
        """Write an event; its first line is the title, the others are the description."""
        now = datetime.now(UTC)
        title, _, description = text.partition("\n")
        lines = [
            "BEGIN:VEVENT",
            f"UID:{uid or title}",
            f"DTSTAMP:{now - timedelta(days=1, seconds=-len(self.events)):%Y%m%dT%H%M%SZ}",
            f"DTSTART:{now + timedelta(seconds=start):%Y%m%dT%H%M%SZ}",
            f"DTEND:{now + timedelta(seconds=seconds):%Y%m%dT%H%M%SZ}",
            f"SUMMARY:{title}",
            "DESCRIPTION:" + description.replace("\n", "\\n"),
            "END:VEVENT",
        ]
        self.events[uid or title] = "\r\n".join(lines)
        self.save()

    def cancel(self, uid: str) -> None:
        del self.events[uid]
        self.save()

    def save(self) -> None:
        body = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//tests//", *self.events.values(), "END:VCALENDAR"]
        self.write("\r\n".join(body) + "\r\n")

    def write(self, content: str) -> None:
        new = self.folder / "new.ics"
        new.write_text(content)
        new.replace(self.folder / "calendar.ics")

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "scheduler", *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def plan(self) -> tuple[int, dict[str, Any]]:
        result = self.cli("plan", "--json")
        assert result.stdout, result.stderr
        plan: dict[str, Any] = json.loads(result.stdout)
        return result.returncode, plan

    @contextmanager
    def daemon(self) -> Iterator[subprocess.Popen[str]]:
        with (self.folder / "daemon.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "scheduler", "run"],
                env=self.environment,
                cwd=ROOT,
                stderr=log,
                text=True,
            )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) is not None

    @property
    def log(self) -> str:
        return (self.folder / "daemon.log").read_text()

    def complete(self, model: str) -> httpx.Response:
        body = {"model": model, "prompt": "the cat", "max_tokens": 4}
        return httpx.post(f"{self.cluster.serve_url}/v1/completions", json=body, timeout=60)

    def serves(self, model: str) -> bool:
        try:
            return self.complete(model).status_code == 200
        except httpx.TransportError:
            return False

    def ours(self) -> dict[str, dict[str, Any]]:
        return {n: a for n, a in self.cluster.applications().items() if n.startswith("ndif-model-")}

    def nodes_of(self, application: str) -> list[str]:
        """Names of the nodes on which Ray really runs an application's replicas."""
        names = {node.node_id: name for name, node in self.cluster.nodes.items()}
        (deployment,) = self.cluster.applications()[application]["deployments"].values()
        return sorted(names[replica["node_id"]] for replica in deployment["replicas"])


@pytest.fixture
def service(ray_cluster: RayCluster, tmp_path: Path) -> Iterator[Service]:
    write_tiny_model(ray_cluster.hf_home, SECOND)
    made = Service(ray_cluster, tmp_path)
    (tmp_path / "settings.yml").write_text("")
    made.save()
    yield made
    ray_cluster.put([])
    wait_until(lambda: not made.ours(), 60, "our applications are gone")


@pytest.fixture
def stranger(ray_cluster: RayCluster) -> Iterator[str]:
    """An application somebody else deployed with serve.run; yields its process id."""
    ray_cluster.put([])  # starts Serve on the cluster's port
    subprocess.run(
        [sys.executable, "-c", STRANGER, ray_cluster.address], check=True, timeout=120, env=os.environ
    )
    url = f"{ray_cluster.serve_url}/stranger"
    wait_until(lambda: httpx.get(url, timeout=10).status_code == 200, 60, "the stranger answers")
    yield httpx.get(url, timeout=10).text
    script = "import sys, ray; from ray import serve; ray.init(address=sys.argv[1]); serve.delete('stranger')"
    subprocess.run([sys.executable, "-c", script, ray_cluster.address], check=True, timeout=60)


def told(plan: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(a["kind"], a["model"]["repo_id"], a["node"]) for a in plan["actions"] if a["model"]]


def test_plan_and_apply_follow_the_calendar_and_leave_others_alone(service: Service, stranger: str) -> None:
    service.book(TINY_REPO_ID)
    code, plan = service.plan()
    assert (code, told(plan)) == (2, [("deploy", TINY_REPO_ID, "gpu-b")])
    assert plan["others"] == ["stranger"]
    applied = service.cli("apply")
    assert applied.returncode == 0, applied.stderr
    assert service.complete(TINY_REPO_ID).json()["choices"][0]["text"]
    assert [service.nodes_of(name) for name in service.ours()] == [["gpu-b"]]
    code, plan = service.plan()
    assert (code, told(plan)) == (0, [])

    service.cancel(TINY_REPO_ID)
    service.book(f"An experiment\nmodel: {SECOND}\nreplicas: 2")
    code, plan = service.plan()
    assert (code, told(plan)) == (2, [("undeploy", TINY_REPO_ID, "gpu-b"), ("deploy", SECOND, "gpu-b")])
    assert service.cli("apply").returncode == 0
    assert service.complete(TINY_REPO_ID).status_code == 404
    assert service.serves(SECOND)
    assert [service.nodes_of(name) for name in service.ours() if "two" in name] == [["gpu-b", "gpu-b"]]
    assert httpx.get(f"{service.cluster.serve_url}/stranger", timeout=10).text == stranger


def test_the_daemon_serves_a_booking_to_its_end_and_survives_what_goes_wrong(service: Service) -> None:
    with service.daemon() as first:
        service.book(TINY_REPO_ID)
        wait_until(lambda: service.serves(TINY_REPO_ID), 120, f"the booking serves: {service.log}")
        (before,) = [app["last_deployed_time_s"] for app in service.ours().values()]

        service.write("<html>Sign in</html>")
        wait_until(lambda: "nothing is taken down" in service.log, 30, "the broken calendar is noticed")
        assert service.serves(TINY_REPO_ID)

        refused = service.cli("run")
        assert refused.returncode == 1
        assert str(first.pid) in refused.stderr
        first.kill()
        first.wait()

    with service.daemon() as second:
        # What the first one read last still stands.
        wait_until(
            lambda: service.log.count("nothing is taken down") > 1, 30, "the second cannot read it either"
        )
        assert service.serves(TINY_REPO_ID)
        service.save()
        wait_until(lambda: service.plan()[0] == 0, 30, "the second daemon has adopted what runs")
        assert [app["last_deployed_time_s"] for app in service.ours().values()] == [before]

        end = 12
        service.book(TINY_REPO_ID, seconds=end)
        ends_at = time.monotonic() + end
        wait_until(lambda: not service.ours() or _going(service), end + 20, "the booking ends")
        late = time.monotonic() - ends_at
        assert late > -1, "it was taken down before its end"
        wait_until(lambda: service.complete(TINY_REPO_ID).status_code == 404, 30, "it is not found any more")
        assert second.poll() is None


def _going(service: Service) -> bool:
    return all(app["status"] == "DELETING" for app in service.ours().values())


def test_models_go_where_they_fit_and_what_does_not_is_explained(service: Service) -> None:
    (service.folder / "models.yml").write_text(
        "models: [{repo_id: org/huge, alias: huge, parameters: 1000000000000}]"
    )
    service.book(f"Eight\nmodel: {TINY_REPO_ID}\ngpus: 8")
    service.book(f"Two\nmodel: {SECOND}\ngpus: 2")
    service.book("Lunch with the team")
    service.book("huge")
    code, plan = service.plan()
    assert code == 3
    assert told(plan) == [("deploy", TINY_REPO_ID, "gpu-a"), ("deploy", SECOND, "gpu-b")]
    verdicts = {v["title"]: (v["state"], v["reason"]["code"]) for v in plan["verdicts"]}
    assert verdicts == {
        "Eight": ("placed", "booked"),
        "Two": ("placed", "booked"),
        "Lunch with the team": ("misunderstood", "misunderstood"),
        "huge": ("refused", "too large"),
    }
    applied = service.cli("apply")
    assert applied.returncode == 3, applied.stderr
    assert sorted(service.nodes_of(name)[0] for name in service.ours()) == ["gpu-a", "gpu-b"]
    assert service.serves(SECOND)
    answer = service.complete("huge")
    assert answer.status_code in (404, 503)
    assert "640.0 GiB" in answer.text, "a client is told what the calendar is told"

    service.book("A third", uid="third")
    service.events["third"] = service.events["third"].replace(
        "DESCRIPTION:", "DESCRIPTION:model: huge\\ngpus: 1"
    )
    service.save()
    assert service.plan()[0] == 3


def test_a_booking_that_starts_soon_is_loaded_before_its_start(service: Service) -> None:
    service.book(TINY_REPO_ID, start=3600, seconds=7200, uid="later")
    assert told(service.plan()[1]) == []
    assert service.cli("apply").returncode == 0
    answer = service.complete(TINY_REPO_ID)
    assert answer.status_code == 503
    assert 3000 < int(answer.headers["Retry-After"]) <= 3600
    service.book(TINY_REPO_ID, start=20, seconds=7200, uid="later")
    assert told(service.plan()[1]) == [("deploy", TINY_REPO_ID, "gpu-b")]


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("NDIF_CALENDAR__ICS", "/does/not/exist.ics", "/does/not/exist.ics"),
        ("NDIF_RAY__DASHBOARD_URL", "http://127.0.0.1:9", "does not answer"),
    ],
)
def test_what_is_wrong_is_one_paragraph_without_a_traceback(
    variable: str, value: str, says: str, service: Service
) -> None:
    for command in ("plan", "apply", "status"):
        result = subprocess.run(
            [sys.executable, "-m", "scheduler", command],
            env=service.environment | {variable: value},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == 1
        assert says in " ".join(result.stderr.split())
        assert "Traceback" not in result.stderr


def test_status_shows_what_serves_for_people_and_for_scripts(service: Service) -> None:
    service.book(TINY_REPO_ID)
    assert service.cli("apply").returncode == 0
    text = service.cli("status").stdout
    assert f"serving  {TINY_REPO_ID} on gpu-b, 1 of 1 replicas" in text
    assert "\x1b[" not in text
    found = json.loads(service.cli("status", "--json").stdout)
    assert found["gateway"]["status"] == "RUNNING"
    assert [(m["name"], m["status"]) for m in found["models"]] == [(TINY_REPO_ID, "serving")]
    assert found["daemon"]["running"] is False
