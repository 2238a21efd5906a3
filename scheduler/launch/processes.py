"""Stopping a process and all it started, and nothing else."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import Self

import psutil

CREATED_TOLERANCE_SECONDS = 2.0
"""A process's start is reckoned from the boot time, which moves a little when the clock is set."""

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class ProcessId:
    """A process for sure: pids are used again, a pid with its creation time (Unix seconds) is not."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> Self:
        """Identify a running process. Raises ``psutil.NoSuchProcess``."""
        return cls(pid, psutil.Process(pid).create_time())

    def find(self) -> psutil.Process | None:
        """The process, None if it has ended."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) <= CREATED_TOLERANCE_SECONDS
            return process if same and _alive(process) else None
        except psutil.Error:
            return None


def family(leader: psutil.Process) -> set[psutil.Process]:
    """The processes of ``leader``: its descendants, and the members of the session it leads.

    The session finds those whose parent has ended already. A process that became a session leader
    of its own *and* lost its parent is not found. ``leader`` itself is not in the answer.
    """
    members: set[psutil.Process] = set()
    with contextlib.suppress(psutil.Error):
        members.update(leader.children(recursive=True))
    for pid in psutil.pids():
        try:
            if pid != leader.pid and os.getsid(pid) == leader.pid:
                members.add(psutil.Process(pid))
        except (OSError, psutil.Error):
            continue
    return members


def stop_family(leader: psutil.Process, seconds: float) -> None:
    """Ask ``leader`` to end, then kill what is left of its family. Takes ``seconds`` at most.

    ``leader`` must have been started as the leader of its own session. Two thirds of the time are
    for ending in order.
    """
    deadline = time.monotonic() + seconds
    members = family(leader)
    with contextlib.suppress(psutil.Error):
        leader.terminate()
    while _alive(leader) and time.monotonic() < deadline - seconds / 3:
        time.sleep(POLL_SECONDS)
        members |= family(leader)
    _wait(members, min(seconds / 6, max(0.0, deadline - time.monotonic())))
    left = [process for process in {leader, *members, *family(leader)} if _alive(process)]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    _wait(set(left), max(0.0, deadline - time.monotonic()))


def _wait(processes: set[psutil.Process], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(_alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
