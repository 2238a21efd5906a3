"""The head of a cluster is killed: the launcher starts it again, and the daemon brings everything back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest

from calendars.ics import write_starter_calendar
from scheduler.heartbeat import last_beat
from scheduler.settings import ROOT
from tests.ray_cluster import free_port, wait_until
from tests.tiny_model import TINY_REPO_ID, write_tiny_model

pytestmark = [pytest.mark.ray, pytest.mark.faults]


@pytest.mark.timeout(400)
def test_a_head_that_is_killed_is_started_again_and_everything_is_brought_back(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "hf")
    now = datetime.now(UTC)
    calendar = tmp_path / "calendar.ics"
    write_starter_calendar(calendar, title=TINY_REPO_ID, start=now, end=now + timedelta(hours=1), now=now)
    (tmp_path / "settings.yml").write_text("")
    ports = {name: str(free_port()) for name in ("HEAD", "CLIENT", "DASHBOARD", "SERVE")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "NDIF_STATE_DIR": str(tmp_path / "state"),
        "NDIF_CONFIG": str(tmp_path / "settings.yml"),
        "NDIF_CALENDAR__ICS": str(calendar),
        "NDIF_CALENDAR__CHECK_INTERVAL_SECONDS": "1",
        "N_DEVICES": "0",
        "NDIF_WEB__PORT": str(free_port()),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        **{f"DEV_RAY_{name}_PORT": port for name, port in ports.items()},
    }
    url = f"http://127.0.0.1:{ports['SERVE']}/v1/completions"

    def serves() -> bool:
        try:
            body = {"model": TINY_REPO_ID, "prompt": "the cat", "max_tokens": 2}
            return httpx.post(url, json=body, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-m", "scheduler", "head"]
        head = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)
    try:
        wait_until(serves, 180, "it serves")
        beat = last_beat(tmp_path / "state")
        assert beat is not None
        family = psutil.Process(head.pid).children(recursive=True)
        (gcs,) = [one for one in family if "gcs_server" in one.name()]
        gcs.kill()
        since = time.monotonic()
        wait_until(lambda: not serves(), 60, "it is gone")
        wait_until(serves, 180, "it serves again")
        took = time.monotonic() - since
        sys.stdout.write(f"head killed: serving again: {took:.1f} s\n")
        after = last_beat(tmp_path / "state")
        assert after is not None
        assert after.pid == beat.pid
        assert took < 150
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(40)
