"""SQLite files that several processes of one machine share: opened, migrated, used from one thread each."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

P = ParamSpec("P")
T = TypeVar("T")

BUSY_SECONDS = 10.0
"""How long a writer waits for another; each holds the file for milliseconds."""

Migration = Sequence[str]
"""Statements that lead from one version of a file to the next."""


class TooNew(RuntimeError):
    """The file was written by a later version of this service."""


class Database:
    """One connection and the only thread that uses it; ``run`` lends it to a function."""

    def __init__(self, path: Path, migrations: Sequence[Migration]) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=path.stem)
        self._connection = self._thread.submit(connect, path, migrations).result()

    async def run(
        self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """``work(connection, ...)``, done to its end even when the caller is cancelled."""

        def call() -> T:
            return work(self._connection, *args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def close(self) -> None:
        """Waits for what is under way."""
        self._thread.submit(self._connection.close).result()
        self._thread.shutdown()


def connect(path: Path, migrations: Sequence[Migration]) -> sqlite3.Connection:
    """A connection to ``path``, made for its owner's eyes only and brought up to the last migration.

    Raises ``TooNew``, ``OSError`` or ``sqlite3.Error``.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # with its mode from the start: at no moment can another user read it
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    connection.row_factory = sqlite3.Row
    try:
        _write_ahead(connection)
        # a power failure may lose the last moment, never the file
        connection.execute("PRAGMA synchronous = NORMAL")
        _migrate(connection, migrations, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _is_busy(error: BaseException) -> bool:
    if not isinstance(error, sqlite3.OperationalError):
        return False
    # the lower byte is the kind, https://www.sqlite.org/rescode.html
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


@retry(
    retry=retry_if_exception(_is_busy),
    wait=wait_random(0.01, 0.1),
    stop=stop_after_delay(BUSY_SECONDS),
    reraise=True,
)
def _write_ahead(connection: sqlite3.Connection) -> None:
    """Makes the file one with a write-ahead log.

    Where two replicas make a new file at once SQLite refuses one of them without waiting at all, since
    each would wait for the other (https://www.sqlite.org/c3ref/busy_handler.html).
    """
    connection.execute("PRAGMA journal_mode = WAL")


def _migrate(connection: sqlite3.Connection, migrations: Sequence[Migration], path: Path) -> None:
    with transaction(connection):
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(migrations):
            raise TooNew(
                f"{path} has version {version} and this service knows {len(migrations)}: "
                "run the service that wrote it, or move the file away."
            )
        for migration in migrations[version:]:
            for statement in migration:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, and alone: takes the write lock at once, so that what is read stays true."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
