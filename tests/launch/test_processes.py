"""Stopping a family of processes, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from scheduler.launch.processes import ProcessId, family, stop_family
from tests.ray_cluster import wait_until

PARENT = """
import os, signal, subprocess, sys, time
stubborn = "from signal import *; signal(SIGTERM, SIG_IGN); print(1, flush=True); pause()"
orphan = "import os, time; pid = os.fork(); pid and os._exit(0); time.sleep(300)"
if sys.argv[1] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
child.stdout.readline()
subprocess.run([sys.executable, "-c", orphan])
print("ready", flush=True)
time.sleep(300)
"""


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("manners", ["polite", "deaf"])
def test_all_of_a_family_goes_and_nobody_else(manners: str, bystander: subprocess.Popen[bytes]) -> None:
    leader = subprocess.Popen(
        [sys.executable, "-c", PARENT, manners], start_new_session=True, stdout=subprocess.PIPE
    )
    assert leader.stdout is not None
    assert leader.stdout.readline() == b"ready\n"
    process = psutil.Process(leader.pid)
    wait_until(lambda: len(family(process)) == 2, 10, "a child that ignores SIGTERM and an orphan")
    members = family(process)

    began = time.monotonic()
    stop_family(process, 3.0)

    assert time.monotonic() - began < 3.5
    assert not [one for one in members if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert leader.wait(1) != 0
    assert bystander.poll() is None


def test_a_process_is_known_by_more_than_its_pid() -> None:
    me = ProcessId.of(os.getpid())
    assert me.find() is not None
    assert ProcessId(me.pid, me.created - 100).find() is None


def test_an_ended_process_is_not_found(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    identity = ProcessId.of(ended.pid)
    wait_until(lambda: identity.find() is None, 10, "the process ends; it is not reaped yet")
    ended.wait()
    assert identity.find() is None
