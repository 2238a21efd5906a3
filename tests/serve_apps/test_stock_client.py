"""What nnsight's own client makes of the gateway's answers: its errors, its status, its comparison.

On a fake backend: no block runs here, which ``test_on_ray`` has it do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serve_apps.contract import GatewayArgs
from serve_apps.gateway.http import Gateway, make_app
from serve_apps.gateway.routing import AppState
from tests.serve_apps.fakes import FakeBackend
from tests.serve_apps.front import CONFIG, Clock, make_key, served
from tests.tiny_model import model_key

SCRIPT = """
import json, sys
from types import SimpleNamespace
import huggingface_hub, nnsight
from nnsight.intervention.backends.remote import RemoteBackend, RemoteError
from nnsight.schema.request import RequestModel

# the Hub is asked how a repo id is spelled, and cannot be reached here
huggingface_hub.HfApi.model_info = lambda self, repo_id, **_: SimpleNamespace(id=repo_id)
names = json.loads(sys.argv[1])

class Backend(RemoteBackend):
    def _serialize(self, tracer):
        return b"a block"

def told(model_key, key):
    backend = Backend(model_key)
    backend.api_key = key
    try:
        backend.request(RequestModel(model_key=model_key, env={}), None)
    except RemoteError as error:
        return str(error)

status = nnsight.status()
print(json.dumps({
    "errors": [told(*asked) for asked in names["asked"]],
    "whoami": [nnsight.whoami(key) for key in names["keys"]],
    "listed": list(status),
    "state": status.status,
    "running": [nnsight.is_model_running(repo_id) for repo_id in ("org/m", "org/x")],
    "python_matches": nnsight.compare().python_matches,
    "mismatches": [str(one) for one in nnsight.compare().mismatches],
}))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the client said, all of it from one process, since importing it takes seconds."""
    folder: Path = tmp_path_factory.mktemp("gateway")
    trusted, plain = make_key(folder), make_key(folder, "bob@example.org", trusted=False)
    backend = FakeBackend(states={"a": AppState.SERVING, "b": AppState.LOADING})
    gateway = Gateway(GatewayArgs(state_dir=str(folder), loopback_only=False), backend, now=Clock())
    gateway.reconfigure(CONFIG)
    asked = [
        (model_key("org/m"), None),
        (model_key("org/m"), "ndif-no-key"),
        (model_key("org/m"), plain),
        (model_key("org/x"), trusted),
        (model_key("org/far"), trusted),
    ]
    script = folder / "client.py"
    script.write_text(SCRIPT)
    with served(make_app(gateway)) as address:
        done = subprocess.run(
            [sys.executable, str(script), json.dumps({"asked": asked, "keys": [trusted, "none"]})],
            env=os.environ | {"NDIF_HOST": address, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    gateway.close()
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_each_refusal_can_be_read(said: Any) -> None:
    nobody, unknown, untrusted, unbooked, early = said["errors"]
    assert "A key is needed here" in nobody
    assert "unknown or was revoked" in unknown
    assert "--trusted" in untrusted
    assert "org/m" in unbooked and "book it in the calendar" in unbooked
    assert "2026-03-02 12:00 UTC" in early and "60 minutes before" in early


def test_it_knows_who_it_is(said: Any) -> None:
    assert said["whoami"] == [
        {"email": "ada@example.org", "tags": ["lab"]},
        {"email": None, "tags": []},
    ]


def test_it_sees_what_serves(said: Any) -> None:
    assert said["listed"] == ["org/m"] and said["state"] == "UP"
    assert said["running"] == [True, False]


def test_it_compares_packages(said: Any) -> None:
    assert said["python_matches"] and said["mismatches"] == []
