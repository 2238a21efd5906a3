"""One daemon per state directory."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout
from loguru import logger

from scheduler.errors import OperatorError
from scheduler.settings import Settings


class StateLock:
    """Holds a state directory for this process; the lock goes with the process, however it ends.

    Raises:
        OperatorError: another process holds it, or the directory cannot be written to.
    """

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.path(settings.state_dir)
        self._lock = FileLock(self._folder / "daemon.lock")

    def __enter__(self) -> Self:
        try:
            # what is booked in private is nobody else's business on this machine
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
        except Timeout as error:
            raise OperatorError(
                f"Another daemon (process {holder(self._folder) or 'unknown'}) already works with the "
                f"state directory {self._folder}.",
                "Stop it first, or give this one a directory of its own with NDIF_STATE_DIR.",
            ) from error
        except OSError as error:
            raise OperatorError(
                f"The state directory {self._folder} cannot be written to: {error}.",
                "Correct its permissions or make room on its disk, or set NDIF_STATE_DIR.",
            ) from error
        try:
            self._pid_file.write_text(str(os.getpid()))
        except OSError as error:  # a full disk must not keep a daemon from its work
            logger.warning(
                "{} cannot be written: {}. Others cannot see who works here.", self._pid_file, error
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    @property
    def _pid_file(self) -> Path:
        return self._folder / "daemon.pid"


def holder(folder: Path) -> int | None:
    """The process that works with a state directory, None if none does."""
    pid_file, lock = folder / "daemon.pid", FileLock(folder / "daemon.lock")
    if not pid_file.is_file():
        return None
    try:
        with lock.acquire(blocking=False):
            return None
    except Timeout:
        text = pid_file.read_text().strip()
        return int(text) if text.isdecimal() else None
    except OSError:
        return None
