"""The last good reading of each calendar on disk, for a start at which a calendar cannot be read."""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError

from calendars.reservation import Frozen, Reading, UtcDatetime

FORMAT = "ndif-ray calendar snapshot"
VERSION = 1
"""Raised whenever a stored reading would be understood otherwise; others are not guessed at."""

MAX_SNAPSHOT_BYTES = 256 * 1024 * 1024


class Remembered(Frozen):
    """A reading as it was saved, and when the calendar was read."""

    reading: Reading
    read_at: UtcDatetime


class SnapshotProblem(Frozen):
    """Why a snapshot was not saved, or is not used: one sentence, and what to do about it.

    Never a reason to stop: without a snapshot, a calendar is what it was before there were any.
    """

    reason: str
    remedy: str


class _Header(Frozen):
    """The first line of a file; the reading follows it, and nothing else."""

    format: str
    version: int
    name: str
    read_at: UtcDatetime
    size_bytes: int
    sha256: str


class Snapshots:
    """A folder with one file for each calendar.

    A file appears complete or not at all, also when the machine loses power while it is written: the new
    one is flushed to disk before it takes the place of the old one.
    What was cut short, altered, written by another version or belongs to another calendar is not used, and
    the reason is returned.
    Only this user may read the files: they say who booked what.
    For one process at a time; the same calendar from one thread at a time.
    """

    def __init__(self, folder: Path) -> None:
        """The folder is made when something is first saved."""
        self._folder = folder

    def path(self, name: str) -> Path:
        """Where the snapshot of a calendar lies, whatever characters its name is made of."""
        safe = re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-") or "calendar"
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]
        return self._folder / f"{safe}-{digest}.snapshot"

    def save(self, name: str, reading: Reading, read_at: datetime) -> SnapshotProblem | None:
        """Keep a reading in place of the last one of this calendar; None where that went well.

        Where it did not, the last one is still there.

        Raises:
            ValueError: ``read_at`` is naive.
        """
        if read_at.tzinfo is None:
            raise ValueError(f"not an instant: {read_at}")
        body = reading.model_dump_json().encode()
        header = _Header(
            format=FORMAT,
            version=VERSION,
            name=_printable(name),
            read_at=read_at.astimezone(UTC),
            size_bytes=len(body),
            sha256=hashlib.sha256(body).hexdigest(),
        )
        path = self.path(name)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(path, header.model_dump_json().encode() + b"\n" + body)
        except OSError as error:
            return SnapshotProblem(
                reason=f"The reading of {name} cannot be kept in {path}: {_words(error)}.",
                remedy="Make room there, or let the user that runs the service write to it. Until then, a "
                "restart while the calendar cannot be read knows less.",
            )
        return None

    def load(self, name: str) -> Remembered | SnapshotProblem | None:
        """The last reading of this calendar; None where there is none."""
        path = self.path(name)
        try:
            with path.open("rb") as file:
                content = file.read(MAX_SNAPSHOT_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            return _unused(path, f"cannot be read ({_words(error)})")
        try:
            return _decode(content, name)
        except _Unusable as unusable:
            return _unused(path, str(unusable))


class _Unusable(Exception):
    """``str()`` completes the sentence "The snapshot …"."""


def _decode(content: bytes, name: str) -> Remembered:
    first, newline, body = content.partition(b"\n")
    try:
        said = json.loads(first) if newline else None
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise _Unusable("is damaged: it does not begin as a snapshot does")
    if said.get("version") != VERSION:
        raise _Unusable(f"was written by another version ({str(said.get('version'))[:20]}, not {VERSION})")
    try:
        header = _Header.model_validate(said)
    except ValidationError:
        raise _Unusable("is damaged: its first line is not complete") from None
    if len(body) != header.size_bytes:
        raise _Unusable(f"is damaged: it holds {len(body)} bytes of a reading, not {header.size_bytes}")
    if hashlib.sha256(body).hexdigest() != header.sha256:
        raise _Unusable("is damaged: its checksum is another")
    if header.name != _printable(name):
        raise _Unusable("is that of another calendar")
    try:
        return Remembered(reading=Reading.model_validate_json(body), read_at=header.read_at)
    except ValidationError:
        raise _Unusable("holds a reading that this version does not understand") from None


def _unused(path: Path, what: str) -> SnapshotProblem:
    return SnapshotProblem(
        reason=f"The snapshot {path} {what}, so it is not used.",
        remedy="Nothing has to be done: the next good reading of the calendar writes it anew.",
    )


def _replace(path: Path, content: bytes) -> None:
    """Put a file in place of another, in one step that survives a loss of power."""
    # One name per snapshot: what a crash leaves behind is overwritten, not collected.
    new = path.with_name(f".{path.name}.new")
    try:
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        _clear_away(new, error)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # Some network file systems cannot flush a folder; the file itself is safe there too.
        with suppress(OSError):
            os.fsync(folder)
    finally:
        os.close(folder)


def _clear_away(new: Path, error: OSError) -> NoReturn:
    with suppress(OSError):
        new.unlink(missing_ok=True)
    raise error


def _printable(name: str) -> str:
    """The name without halves of surrogate pairs, which a file cannot hold."""
    return name.encode(errors="replace").decode()


def _words(error: OSError) -> str:
    said = error.strerror or type(error).__name__
    return said[0].lower() + said[1:]
