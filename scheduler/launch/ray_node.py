"""A Ray node as a child process: started, waited for, stopped with all it started."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import httpx
import psutil
from rich.console import Console

from scheduler.errors import OperatorError
from scheduler.launch import options
from scheduler.launch.processes import ProcessId, stop_family
from scheduler.launch.token import make_token, read_token
from scheduler.settings import ROOT, Settings
from serve_apps.contract import NODE_LABEL

START_SECONDS = 120.0
"""Ray answers within 10 s on an idle machine; a loaded laptop after waking takes much longer."""

STOP_SECONDS = 11.0
"""For Ray out of the 15 s that stopping everything may take."""

POLL_SECONDS = 0.25
TAIL_LINES = 4
TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*m")


class RayNode:
    """One ``ray start --block`` in a session of its own, so that Ctrl-C reaches only its launcher.

    Everything of one node goes when its ``ray start`` goes: Ray ties its servers to it.

    Args:
        on_change: told of each process as soon as it exists, and again when it is part of its cluster; the
            second argument is whether it is.
    """

    role: ClassVar[str]

    def __init__(
        self,
        settings: Settings,
        console: Console,
        on_change: Callable[[ProcessId, bool], None] = lambda _, __: None,
    ) -> None:
        self.settings = settings
        self._console = console
        self._on_change = on_change
        self._process: subprocess.Popen[bytes] | None = None
        self._given_up = threading.Event()
        self._lock = threading.Lock()
        self.log_path = settings.path(settings.state_dir) / "logs" / f"ray-{self.role}.log"

    @property
    def process_id(self) -> ProcessId | None:
        """The running ``ray start``, None if there is none."""
        if self._process is None:
            return None
        try:
            identity = ProcessId.of(self._process.pid)
        except psutil.NoSuchProcess:
            return None
        return identity if identity.find() else None

    def start(self) -> None:
        """Start the node and wait until it is part of its cluster.

        Raises:
            OperatorError: it did not get there; nothing of it is left running.
        """
        self._console.print(f"{self._announcement()} (log: {self.log_path})", markup=False, soft_wrap=True)
        began = time.monotonic()
        self._spawn()
        try:
            with self._console.status("waiting for Ray"):
                self._wait_until_ready(began)
        except BaseException:
            self.stop()
            raise
        self._tell_change(is_up=True)
        self._console.print(f"Ray is up ({time.monotonic() - began:.0f} s).", markup=False)

    def stop(self, seconds: float = STOP_SECONDS) -> int | None:
        """End the node's processes, and no others, within ``seconds``. May be called from any thread.

        Returns:
            The exit status of ``ray start``, None if it did not run.
        """
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return None
        # Not reaped until here, so the pid, and with it the session, cannot be another's by now
        stop_family(psutil.Process(process.pid), seconds)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
        return process.returncode

    def give_up(self) -> None:
        """Never start again, and stop waiting for a start that is under way."""
        self._given_up.set()

    @property
    def given_up(self) -> bool:
        return self._given_up.is_set()

    def pause(self, seconds: float) -> None:
        """Sleep, but not beyond ``give_up``."""
        self._given_up.wait(seconds)

    def wait(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for the node to end by itself; whether it has."""
        deadline = time.monotonic() + seconds
        while self.process_id is not None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(min(POLL_SECONDS, seconds))
        return True

    def last_words(self) -> str:
        """The end of Ray's own log that matters, in one line."""
        try:
            text = TERMINAL_CODES.sub("", self.log_path.read_text(errors="replace"))
        except OSError:
            return "nothing"
        # its INFO lines tell how to use Ray, never what went wrong
        lines = [line.strip() for line in text.splitlines() if line.strip() and "INFO" not in line]
        return " | ".join(lines[-TAIL_LINES:])[-800:] or "nothing"

    def _announcement(self) -> str:
        raise NotImplementedError

    def _arguments(self, folder: Path, memory_mib: int | None) -> list[str]:
        raise NotImplementedError

    def _ready(self) -> bool:
        raise NotImplementedError

    def _ended_early(self, status: int | None) -> OperatorError:
        return OperatorError(
            f"Ray did not start: it ended with status {status}. Its last words: {self.last_words()}.",
            f"The whole log is in {self.log_path}.",
        )

    def _spawn(self) -> None:
        settings, gpus = self.settings, self.settings.ray.num_gpus
        memory_mib = None if gpus == 0 else options.gpu_memory_mib()
        folder = options.temp_dir(settings, self.role)
        _forget_old_sessions(folder)
        # `-m`, not the `ray` script: the script names its interpreter by a path that a move would break
        command = [sys.executable, "-m", "ray.scripts.scripts", "start"]
        has_gpu = memory_mib is not None or bool(gpus)
        variables = options.environment(settings, os.environ, head=self.role == "head", has_gpu=has_gpu)
        try:
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            with self.log_path.open("wb") as log, self._lock:
                if self._given_up.is_set():
                    return
                self._process = subprocess.Popen(
                    command + self._arguments(folder, memory_mib),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=ROOT,
                    env=variables,
                    start_new_session=True,
                )
        except OSError as error:
            raise OperatorError(
                f"Ray cannot be started: {error}.", "Make room, or correct the permissions."
            ) from error
        self._tell_change(is_up=False)

    def _tell_change(self, *, is_up: bool) -> None:
        if identity := self.process_id:
            self._on_change(identity, is_up)

    def _wait_until_ready(self, began: float) -> None:
        while not self._given_up.is_set():
            if self.wait(POLL_SECONDS):
                raise self._ended_early(self.stop())
            if self._ready():
                return
            if time.monotonic() - began > START_SECONDS:
                raise OperatorError(
                    f"Ray was not up after {START_SECONDS:.0f} s. Its last words: {self.last_words()}.",
                    f"The whole log is in {self.log_path}; a machine short of memory is the usual cause.",
                )
        raise OperatorError("Ray was stopped while it started.", "Start again.")


class RayHead(RayNode):
    """The head: the cluster's books, the dashboard with Serve's REST API, and a node of its own."""

    role = "head"

    def start(self) -> None:
        make_token(self.settings.token_file)
        super().start()

    def _announcement(self) -> str:
        return "Starting Ray, the head of a cluster"

    def _arguments(self, folder: Path, memory_mib: int | None) -> list[str]:
        return options.head_arguments(self.settings, folder, memory_mib)

    def _ready(self) -> bool:
        name = options.node_name(self.settings)
        return name in alive_nodes(self.settings)


class RayWorker(RayNode):
    """A node that joins a head."""

    role = "worker"

    def _announcement(self) -> str:
        return f"Joining the Ray cluster at {self.settings.ray.address}"

    def _arguments(self, folder: Path, memory_mib: int | None) -> list[str]:
        return options.worker_arguments(self.settings, folder, memory_mib)

    def _ready(self) -> bool:
        # Only Ray itself tells: a worker knows the head's address, not the dashboard's
        return "Ray runtime started" in self.log_path.read_text(errors="replace")

    def _ended_early(self, status: int | None) -> OperatorError:
        if "AuthenticationError" in self.log_path.read_text(errors="replace"):
            path = self.settings.token_file
            return OperatorError(
                f"The head at {self.settings.ray.address} does not accept the token in {path}.",
                "Copy the head's token file (var/ray_token there) to this place.",
            )
        return super()._ended_early(status)


def alive_nodes(settings: Settings) -> frozenset[str]:
    """The names of the nodes the dashboard reports as alive; empty while it does not answer.

    Raises:
        OperatorError: the token cannot be read, or the dashboard refuses it.
    """
    token = read_token(settings.token_file)
    try:
        answer = httpx.get(
            f"{settings.ray.dashboard}/api/v0/nodes",
            params={"limit": 10_000},
            headers={"Authorization": f"Bearer {token}"},
            timeout=settings.ray.timeout_seconds,
            trust_env=False,
        )
    except httpx.HTTPError:
        return frozenset()
    if answer.status_code in (401, 403):
        raise OperatorError(
            f"The dashboard at {settings.ray.dashboard} refuses our token: another Ray listens there.",
            "Stop that Ray, or set NDIF_RAY__DASHBOARD_PORT to a free port.",
        )
    if answer.status_code != 200:
        return frozenset()
    try:
        listed = answer.json()["data"]["result"]["result"]
        return frozenset(node["labels"][NODE_LABEL] for node in listed if _is_named_and_alive(node))
    except (ValueError, KeyError, TypeError):
        return frozenset()


def _is_named_and_alive(node: dict[str, object]) -> bool:
    labels = node.get("labels")
    return node.get("state") == "ALIVE" and isinstance(labels, dict) and NODE_LABEL in labels


def _forget_old_sessions(folder: Path) -> None:
    """Keep only the last session's logs; Ray itself never removes any."""
    sessions = sorted(one for one in folder.glob("session_2*") if one.is_dir() and not one.is_symlink())
    for old in sessions[:-1]:
        shutil.rmtree(old, ignore_errors=True)
