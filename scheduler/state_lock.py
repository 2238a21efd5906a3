"""One daemon per state directory."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout
from loguru import logger

from scheduler.errors import OperatorError
from scheduler.settings import Settings

OWNER_ONLY = 0o700
OF_OTHERS = 0o077
LOCK = "daemon.lock"
PREPARED = frozenset({"calendar.ics", "huggingface", "ray_token"})
"""What people put into a state directory before its first start."""


class StateLock:
    """Holds a state directory for this process; the lock goes with the process, however it ends.

    Raises:
        OperatorError: another process holds it, or the directory cannot be written to.
    """

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.path(settings.state_dir)
        self._lock = FileLock(self._folder / LOCK)

    def __enter__(self) -> Self:
        try:
            # what is booked in private is nobody else's business on this machine
            self._folder.mkdir(mode=OWNER_ONLY, parents=True, exist_ok=True)
            is_ours = _is_ours(self._folder)
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
        if is_ours:
            _narrow(self._folder)
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


def _is_ours(folder: Path) -> bool:
    """Whether a folder serves as a state directory only, so that its mode is ours to choose.

    Whoever names one that serves others too, such as /tmp, must not have it closed to them.
    """
    found = folder.stat()
    if found.st_uid != os.geteuid() or found.st_mode & stat.S_ISVTX or folder == folder.parent:
        return False
    inside = {one.name for one in folder.iterdir()}
    return LOCK in inside or inside <= PREPARED


def _narrow(folder: Path) -> None:
    """Close a state directory of an earlier version, or made by hand, to the other users of this machine."""
    if not folder.stat().st_mode & OF_OTHERS:
        return
    try:
        folder.chmod(OWNER_ONLY)
    except OSError as error:  # how some file systems are mounted decides it
        logger.warning("{} is open to other users of this machine, and stays so: {}.", folder, error)
        return
    logger.warning(
        "{} was open to other users of this machine; now only to you. A calendar that others edit can lie "
        "elsewhere: NDIF_CALENDAR__ICS.",
        folder,
    )


def holder(folder: Path) -> int | None:
    """The process that works with a state directory, None if none does."""
    pid_file, lock = folder / "daemon.pid", FileLock(folder / LOCK)
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
