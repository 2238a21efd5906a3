"""The daemon's end of the child that speaks with the ``Controller`` actor; see ``serve_apps.controller``."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from scheduler.front import Alone, Front, Lease, Request
from scheduler.launch.options import client_environment
from scheduler.progress import Said, Step
from scheduler.settings import ROOT, Settings

MODULE = "serve_apps.controller.process"
EVERY_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 10.0
SILENT_SECONDS = 30.0
"""A first answer that takes longer is told of."""
REMEDY = (
    "Without it nothing is done. Run the daemon where it can join Ray (controller.address says where), or, "
    "if no other daemon works on this cluster, do without the lease: NDIF_CONTROLLER__ENABLED=false."
)

STEPS = {one.value: one for one in (Step.DOWNLOADING, Step.LOADING, Step.WARMING)}


class FrontProcess:
    """Keeps the child up, asks it every second, remembers its last answer.

    Whether this daemon may act:

    - yes for ``lease_seconds`` after each answer that said so; longer without any means that this process
      was stopped meanwhile, and another daemon may have taken over;
    - no after an answer that named another daemon;
    - as before while the child cannot ask, or has ended: mostly then no other daemon can, either, and a
      lease must not be the cause of an outage;
    - until the first answer as ``assume`` says: a daemon that could never ask does nothing, and says so.

    Args:
        assume: this process has just started the cluster itself, so nobody else acts on it.
        command: what to run as the child.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        assume: bool = False,
        command: list[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._command = command or child_command(settings)
        self.identity = uuid.uuid4().hex
        self.name = f"{socket.gethostname()} (process {os.getpid()}, {settings.path(settings.state_dir)})"
        self._lock = threading.Lock()
        self._ours, self._holder, self._problem = assume, "", ""
        self._answered_at = self._began = clock()
        self._heard = False
        self._state: Mapping[str, Any] | None = None
        self._requests: list[Request] = []
        self._said: dict[str, Said] = {}
        self._child: subprocess.Popen[str] | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep_asking, name="front", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def lease(self) -> Lease:
        with self._lock:
            now = self._clock()
            ours = self._may_act(now)
            problem = self._problem
            if not problem and not self._heard and now - self._began > SILENT_SECONDS:
                problem = (
                    f"Nobody has answered for {SILENT_SECONDS:.0f} s whose the cluster is; see {self._log}."
                )
            return Lease(ours, self._holder, f"{problem} {REMEDY}" if problem and not ours else problem)

    def _may_act(self, now: float) -> bool:
        if self._problem or not self._heard:
            return self._ours
        return self._ours and now - self._answered_at <= self._settings.controller.lease_seconds

    def show(self, state: Mapping[str, Any]) -> None:
        with self._lock:
            self._state = dict(state)

    def requests(self) -> list[Request]:
        with self._lock:
            found, self._requests = self._requests, []
            return found

    def said(self) -> dict[str, Said]:
        with self._lock:
            return dict(self._said)

    def close(self) -> None:
        self._end.set()
        child = self._child
        if child is not None:
            _close(child.stdin)
            try:
                child.wait(5.0)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    # --- the thread ---------------------------------------------------------------------------------------

    def _keep_asking(self) -> None:
        pause = EVERY_SECONDS
        while not self._end.is_set():
            if self._child is None or self._child.poll() is not None:
                self._spawn()
            if self._ask():
                pause = EVERY_SECONDS
            elif self._child and self._child.poll() is not None:
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            self._end.wait(pause)

    def _spawn(self) -> None:
        try:
            log_path = self._settings.in_state_dir("logs") / "controller-front.log"
            log_path.parent.mkdir(parents=True, exist_ok=True)
            with log_path.open("wb") as log:
                self._child = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    cwd=ROOT,
                    env=child_environment(self._settings),
                    start_new_session=True,
                )
        except OSError as error:
            self._child = None
            self._cannot_ask(f"the process that keeps the lease cannot be started: {error}")

    def _ask(self) -> bool:
        """One question and its answer; whether there was one."""
        child = self._child
        if child is None or child.stdin is None or child.stdout is None:
            return False
        with self._lock:
            question = {
                "identity": self.identity,
                "name": self.name,
                "held": self._ours,
                "state": self._state,
            }
            self._state = None
        try:
            child.stdin.write(json.dumps(question) + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
        except (OSError, ValueError):
            line = ""
        if not line:
            self._cannot_ask(f"the process that keeps the lease ended; see {self._log}")
            return False
        self._take_in(json.loads(line))
        return True

    @property
    def _log(self) -> Path:
        return self._settings.in_state_dir("logs") / "controller-front.log"

    def _cannot_ask(self, why: str) -> None:
        with self._lock:
            self._problem = f"The lease cannot be asked for: {why}."

    def _take_in(self, answer: Mapping[str, Any]) -> None:
        if problem := answer.get("problem"):
            self._cannot_ask(str(problem))
            return
        with self._lock:
            self._answered_at, self._problem, self._heard = self._clock(), "", True
            self._ours, self._holder = bool(answer["ours"]), str(answer["holder"])
            self._requests += [Request(one["verb"], tuple(one["model_keys"])) for one in answer["requests"]]
            self._said = {
                name: Said(STEPS[step], fraction)
                for name, (step, fraction) in answer["said"].items()
                if step in STEPS
            }


def child_command(settings: Settings) -> list[str]:
    """What to run as the child."""
    address = settings.controller.address or client_environment(settings)["RAY_ADDRESS"]
    seconds = settings.controller.lease_seconds
    return [sys.executable, "-m", MODULE, "--address", address, "--lease-seconds", str(seconds)]


def child_environment(settings: Settings) -> dict[str, str]:
    """What the child finds in its environment: the caller's, and how to be let into the cluster."""
    found = dict(os.environ)
    if settings.token_file.is_file():
        found |= client_environment(settings)
    found["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [found.get("PYTHONPATH")])])
    found["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    return found


def _close(pipe: IO[str] | None) -> None:
    try:
        if pipe is not None:
            pipe.close()
    except OSError:
        return  # the other end is gone already


def front_for(settings: Settings, *, assume: bool = False) -> Front:
    """What the settings want to stand between a daemon and the rest of its cluster."""
    return FrontProcess(settings, assume=assume) if settings.controller.enabled else Alone()
