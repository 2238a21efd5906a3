"""Replicas of the gateway, their websockets and what is to be sent there; calls and rates of each key."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from typing import NamedTuple

import psutil

from serve_apps.gateway import jobs_table
from serve_apps.gateway.database import transaction

BEGUN_SECONDS = 2.0
"""How far two readings of a process's start may differ."""


@dataclass(frozen=True)
class Replica:
    """A gateway process. It is alive while the process is: no clock or heartbeat can be wrong about it."""

    id: str
    pid: int
    started: float
    port: int

    @classmethod
    def here(cls, replica_id: str, port: int) -> Replica:
        return cls(replica_id, os.getpid(), psutil.Process().create_time(), port)

    @property
    def alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < BEGUN_SECONDS
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def enter(db: sqlite3.Connection, replica: Replica) -> None:
    values = (replica.id, replica.pid, replica.started, replica.port)
    db.execute("INSERT INTO replicas VALUES (?, ?, ?, ?)", values)


def replicas(db: sqlite3.Connection) -> list[Replica]:
    return [Replica(*row) for row in db.execute("SELECT id, pid, started, port FROM replicas")]


RESTARTED = "The gateway was restarted while your job was under way; send it again."


def bury(db: sqlite3.Connection, replica_id: str, now: float) -> list[tuple[str, str | None]]:
    """Takes a replica that is gone out of the books; returns job and session of what ended with it.

    Jobs it ran wait again, unless they may be what it died of. Jobs whose websocket it held end:
    nobody can be told of them any more.
    """
    sessions = "SELECT id FROM sessions WHERE replica = ?1"
    with transaction(db):
        ended = db.execute(
            f"""UPDATE jobs SET status = 'ERROR', description = ?3, ended = ?2
                WHERE ended IS NULL AND (
                    (session IN ({sessions}) AND (replica = ?1 OR replica IS NULL))
                    OR (replica = ?1 AND (cancelled = 1 OR attempts >= {jobs_table.MAX_ATTEMPTS})))
                RETURNING id, session""",
            (replica_id, now, RESTARTED),
        ).fetchall()
        db.execute(
            f"UPDATE jobs SET cancelled = 1 WHERE ended IS NULL AND session IN ({sessions})", (replica_id,)
        )
        db.execute(
            """UPDATE jobs SET replica = NULL, application = NULL, status = 'QUEUED',
               description = 'The gateway was restarted; your job waits for its turn again.'
               WHERE replica = ? AND ended IS NULL""",
            (replica_id,),
        )
        db.execute(f"DELETE FROM events WHERE session IN ({sessions})", (replica_id,))
        db.execute("DELETE FROM sessions WHERE replica = ?", (replica_id,))
        db.execute("DELETE FROM calls WHERE replica = ?", (replica_id,))
        db.execute("DELETE FROM replicas WHERE id = ?", (replica_id,))
    return [(row["id"], row["session"]) for row in ended]


def port_of(db: sqlite3.Connection, replica_id: str) -> int | None:
    row = db.execute("SELECT port FROM replicas WHERE id = ?", (replica_id,)).fetchone()
    return None if row is None else int(row["port"])


# Websockets


def open_session(db: sqlite3.Connection, session: str, replica: str, owner: str) -> None:
    db.execute("INSERT INTO sessions VALUES (?, ?, ?)", (session, replica, owner))


def session_is_open(db: sqlite3.Connection, session: str, owner: str) -> bool:
    """Whether a websocket of this owner has this name, on any replica."""
    row = db.execute("SELECT 1 FROM sessions WHERE id = ? AND owner = ?", (session, owner)).fetchone()
    return row is not None


def close_session(db: sqlite3.Connection, session: str, now: float) -> set[str]:
    """Cancels what the client waited for; returns the replicas that run some of it."""
    db.execute("DELETE FROM sessions WHERE id = ?", (session,))
    rows = db.execute("SELECT id FROM jobs WHERE session = ? AND ended IS NULL", (session,)).fetchall()
    running = jobs_table.cancel(db, [row["id"] for row in rows], now)
    db.execute("DELETE FROM events WHERE session = ?", (session,))
    return running


def post(db: sqlite3.Connection, session: str, text: str | None, file: str | None) -> int | None:
    """Leaves something to be sent to a websocket of another replica; returns the port to ring at.

    None if that websocket is gone.
    """
    with transaction(db):
        row = db.execute(
            "SELECT port FROM sessions JOIN replicas ON replicas.id = replica WHERE sessions.id = ?",
            (session,),
        ).fetchone()
        if row is None:
            return None
        db.execute("INSERT INTO events (session, text, file) VALUES (?, ?, ?)", (session, text, file))
        return int(row["port"])


def take_events(db: sqlite3.Connection, replica: str) -> list[tuple[str, str | None, str | None]]:
    """What others left for this replica's websockets, in order: session, text or a file's name."""
    # deleting nothing takes the write lock as well
    if db.execute("SELECT 1 FROM events LIMIT 1").fetchone() is None:
        return []
    found = db.execute(
        """DELETE FROM events WHERE session IN (SELECT id FROM sessions WHERE replica = ?)
           RETURNING id, session, text, file""",
        (replica,),
    ).fetchall()
    return [(row["session"], row["text"], row["file"]) for row in sorted(found, key=lambda row: row["id"])]


class News(NamedTuple):
    """What a replica finds when it looks: events for its websockets, its jobs to stop, models waited for."""

    events: list[tuple[str, str | None, str | None]]
    cancelled: list[str]
    waiting: list[tuple[str, str]]


def look(db: sqlite3.Connection, replica: str) -> News:
    """All that a round begins with, in one visit."""
    return News(
        take_events(db, replica), jobs_table.cancelled_here(db, replica), jobs_table.waiting_models(db)
    )


# Calls and rates


def admit(
    db: sqlite3.Connection, replica: str, owner: str, now: float, per_minute: int, at_once: int | None
) -> float | None:
    """Lets a request of a key in, or returns the seconds to wait; ``at_once`` bounds calls under way.

    The rate is kept by the generic cell rate algorithm (ITU-T I.371): a tenth of a minute's requests
    may come in one burst.
    """
    interval = 60 / per_minute
    burst_seconds = max(1, per_minute // 10) * interval
    with transaction(db):
        if at_once is not None:
            (under_way,) = db.execute(
                "SELECT ifnull(sum(number), 0) FROM calls WHERE owner = ?", (owner,)
            ).fetchone()
            if under_way >= at_once:
                return 1.0
        row = db.execute("SELECT paid_until FROM rates WHERE owner = ?", (owner,)).fetchone()
        paid_until = max(now, row["paid_until"] if row is not None else now) + interval
        if paid_until - now > burst_seconds + interval / 2:
            return float(paid_until - now - burst_seconds)
        db.execute(
            "INSERT INTO rates VALUES (?1, ?2) ON CONFLICT DO UPDATE SET paid_until = ?2",
            (owner, paid_until),
        )
        if at_once is not None:
            db.execute(
                """INSERT INTO calls VALUES (?, ?, 1)
                   ON CONFLICT DO UPDATE SET number = number + 1""",
                (replica, owner),
            )
    return None


def users_since(db: sqlite3.Connection, since: float) -> int:
    """How many different keys made a request since then."""
    (number,) = db.execute("SELECT count(*) FROM rates WHERE paid_until >= ?", (since,)).fetchone()
    return int(number)


def leave(db: sqlite3.Connection, replica: str, owner: str) -> None:
    """A call that was let in with ``at_once`` is over."""
    db.execute("UPDATE calls SET number = number - 1 WHERE replica = ? AND owner = ?", (replica, owner))
