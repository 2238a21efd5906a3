"""The note a running service leaves in its state directory: who runs, and on which ports.

Other commands find the service by it (``scheduler.settings`` reads its ``settings``), the next start
finds what a killed one left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from loguru import logger
from pydantic import BaseModel, ConfigDict, ValidationError

from scheduler.errors import OperatorError
from scheduler.launch.processes import ProcessId, stop_family
from scheduler.settings import Settings

STOP_LEFTOVER_SECONDS = 20.0


class Note(BaseModel):
    """What ``runtime.json`` holds. Times are Unix seconds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pid: int
    created: float
    ray_pid: int | None = None
    ray_created: float | None = None
    ray_is_up: bool = False
    settings: dict[str, Any] = {}

    @property
    def launcher(self) -> ProcessId:
        return ProcessId(self.pid, self.created)

    @property
    def ray(self) -> ProcessId | None:
        if self.ray_pid is None or self.ray_created is None:
            return None
        return ProcessId(self.ray_pid, self.ray_created)


class RuntimeFile:
    """The note at ``path``, written by this process while it runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Note | None:
        """The note, None if there is none or it cannot be understood."""
        try:
            return Note.model_validate_json(self.path.read_text())
        except (OSError, UnicodeDecodeError, ValidationError):
            return None

    def write(self, settings: dict[str, Any], ray: ProcessId, *, is_up: bool) -> None:
        """Note this process, its Ray, whether that is up, and the settings others must know, all at once.

        Raises:
            OperatorError: the file cannot be written.
        """
        me = ProcessId.of(os.getpid())
        note = Note(
            pid=me.pid,
            created=me.created,
            ray_pid=ray.pid,
            ray_created=ray.created,
            ray_is_up=is_up,
            settings=settings,
        )
        new = self.path.with_suffix(".new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(note.model_dump(), indent=2) + "\n")
            new.replace(self.path)
        except OSError as error:
            raise OperatorError(
                f"{self.path} cannot be written: {error}.", "Make room, or correct the permissions."
            ) from error

    def remove(self) -> None:
        """Take the note away."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def clear_leftovers(self) -> None:
        """Stop the Ray of a run that was killed before it could, and take its note away.

        Raises:
            OperatorError: the process that wrote the note still runs.
        """
        note = self.read()
        if note is None:
            self.remove()
            return
        if note.launcher.find() and note.pid != os.getpid():
            raise OperatorError(
                f"Process {note.pid} already runs this service from {self.path.parent}.",
                "Stop it first, or give this one a directory of its own with NDIF_STATE_DIR.",
            )
        left = note.ray.find() if note.ray else None
        if left is not None:
            logger.warning("An earlier run was killed and left its Ray (process {}); stopping it.", left.pid)
            stop_family(left, STOP_LEFTOVER_SECONDS)
        self.remove()


def port_settings(settings: Settings) -> dict[str, Any]:
    """The settings another command needs in order to find this service."""
    ray = settings.ray
    return {
        "ray": {
            "head_port": ray.head_port,
            "client_port": ray.client_port,
            "dashboard_port": ray.dashboard_port,
        },
        "serve": {"port": settings.serve.port},
        "web": {"port": settings.web.port},
    }
