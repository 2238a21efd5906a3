"""The SQLite file behind the history: opened, migrated, checked, and replaced where it is damaged."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loguru import logger

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE loads (
        at REAL NOT NULL, model_key TEXT NOT NULL, node_kind TEXT NOT NULL, tier TEXT NOT NULL,
        node TEXT NOT NULL, seconds REAL NOT NULL
    );
    CREATE INDEX loads_of ON loads (model_key, node_kind, tier, at);
    CREATE TABLE plans (
        number INTEGER PRIMARY KEY, at REAL NOT NULL, summary TEXT NOT NULL, actions TEXT NOT NULL,
        outcome TEXT NOT NULL, detail TEXT NOT NULL DEFAULT '', seconds REAL
    );
    CREATE INDEX plans_at ON plans (at);
    CREATE TABLE promises (
        calendar TEXT NOT NULL, event TEXT NOT NULL, until REAL NOT NULL, record TEXT NOT NULL,
        PRIMARY KEY (calendar, event)
    );
    CREATE TABLE changes (
        at REAL NOT NULL, calendar TEXT NOT NULL, event TEXT NOT NULL, title TEXT NOT NULL,
        model TEXT NOT NULL, state TEXT NOT NULL, text TEXT NOT NULL
    );
    CREATE INDEX changes_of ON changes (calendar, event, at);
    CREATE INDEX changes_at ON changes (at);
    """,
    """
    CREATE TABLE manual (
        at REAL NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, until REAL, who TEXT NOT NULL
    );
    CREATE TABLE parked (model_key TEXT PRIMARY KEY, record TEXT NOT NULL);
    """,
    "ALTER TABLE changes ADD COLUMN private INTEGER NOT NULL DEFAULT 0",
)
"""One script for each version of the file; ``PRAGMA user_version`` counts those that have been run."""

SET_ASIDE_KEPT = 3
BUSY_SECONDS = 1.0
RETRY_SECONDS = 60.0
"""How long memory stands in for a file that cannot be opened, before that is tried again."""


class TooNew(Exception):
    """The file was made by a later version of this service."""


class Database:
    """One file, or memory where there can be no file. Usable from any thread.

    A file that is damaged is set aside under another name and a new one begun. Whatever happens to
    the file later (a full disk, a folder that became read-only, somebody deleting it) costs what was
    to be written, never the caller: `write` tells whether it worked, and `lost` counts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = 0
        """How many writes did not reach the disk."""
        self.problem = ""
        """Why the last one did not; empty while all is well."""
        self._lock = threading.RLock()
        self._inode: int | None = None
        self._tried_at = 0.0
        self._connection = self._open()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def write(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> bool:
        """Run statements as one transaction; whether it is on the disk now."""
        with self._lock:
            if self._has_gone() or self._may_try_again():
                self._reopen()
            try:
                with self._connection:
                    for sql, values in statements:
                        self._connection.execute(sql, values)
            except sqlite3.Error as error:
                self._lose(f"{type(error).__name__}: {error}")
                return False
            if self._inode is None:
                self.lost += 1
                return False
            self.problem = ""
            return True

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows; none where the file cannot be read, which is said."""
        with self._lock:
            try:
                return self._connection.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                self._lose(f"{type(error).__name__}: {error}", count=0)
                return []

    # --- the file -------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        self._tried_at = time.monotonic()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                found = _connect(self.path)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                self._set_aside(str(error))
                found = _connect(self.path)
            self._inode = self.path.stat().st_ino
        except (OSError, sqlite3.Error, TooNew) as error:
            self._inode = None
            self._lose(f"{error}", count=0)
            return _in_memory()
        return found

    def _reopen(self) -> None:
        self._connection.close()
        self._connection = self._open()
        if self._inode is not None:
            logger.info("The history {} is begun anew.", self.path)

    def _has_gone(self) -> bool:
        if self._inode is None:
            return False
        try:
            return self.path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True
        except OSError:
            return False

    def _may_try_again(self) -> bool:
        return self._inode is None and time.monotonic() - self._tried_at >= RETRY_SECONDS

    def _set_aside(self, why: str) -> None:
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        kept = self.path.with_name(f"{self.path.name}.damaged-{stamp}")
        self.path.rename(kept)
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        logger.warning("The history {} is damaged ({}); it is kept as {}.", self.path, why, kept.name)
        for old in sorted(self.path.parent.glob(f"{self.path.name}.damaged-*"))[:-SET_ASIDE_KEPT]:
            old.unlink(missing_ok=True)

    def _lose(self, why: str, count: int = 1) -> None:
        self.lost += count
        if why != self.problem:
            self.problem = why
            logger.warning(
                "The history {} cannot be kept ({}). Everything else works on; correct its folder's "
                "permissions or make room on its disk.",
                self.path,
                why,
            )


def _connect(path: Path) -> sqlite3.Connection:
    """Open, check and migrate a file.

    Raises:
        sqlite3.DatabaseError: it is damaged, or is no database.
        sqlite3.OperationalError: it cannot be opened or written to.
        TooNew: a later version made it.
    """
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False)
    try:
        (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise TooNew(f"a later version of this service made it (version {version} of the file)")
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN; {script}; PRAGMA user_version = {number}; COMMIT;")


def is_current(connection: sqlite3.Connection) -> bool:
    """Whether a file has everything that this version reads."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return bool(version >= len(MIGRATIONS))


def _in_memory() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    _migrate(connection)
    return connection


@contextlib.contextmanager
def opened_for_reading(path: Path) -> Iterator[sqlite3.Connection | None]:
    """A connection that cannot write, None where there is no such file.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    if not path.is_file():
        yield None
        return
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)
    try:
        yield connection
    finally:
        connection.close()
