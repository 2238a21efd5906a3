"""The jobs of nnsight's clients in SQLite, shared by all replicas of the gateway. No waiting here.

Times are Unix seconds. A job waits while ``replica`` is null, runs on the gateway's replica that is
named there, and is over once ``ended`` is set. Everything is done under the database's write lock,
so that two replicas never run one job.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from serve_apps.gateway.database import transaction

MIGRATIONS = (
    (
        """CREATE TABLE replicas (
            id TEXT PRIMARY KEY, pid INTEGER NOT NULL, started REAL NOT NULL, port INTEGER NOT NULL
        ) STRICT""",
        "CREATE TABLE sessions (id TEXT PRIMARY KEY, replica TEXT NOT NULL, owner TEXT NOT NULL) STRICT",
        """CREATE TABLE jobs (
            seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL,
            model TEXT NOT NULL, model_key TEXT NOT NULL, session TEXT, compress INTEGER NOT NULL,
            env TEXT NOT NULL, base_url TEXT NOT NULL, payload_bytes INTEGER NOT NULL,
            created REAL NOT NULL, wait_until REAL NOT NULL,
            status TEXT NOT NULL, description TEXT NOT NULL, meta TEXT,
            replica TEXT, application TEXT, attempts INTEGER NOT NULL DEFAULT 0,
            cancelled INTEGER NOT NULL DEFAULT 0, result_bytes INTEGER, ended REAL
        ) STRICT""",
        "CREATE INDEX jobs_waiting ON jobs (model, owner, seq) WHERE ended IS NULL",
        "CREATE INDEX jobs_of_session ON jobs (session) WHERE ended IS NULL",
        "CREATE INDEX jobs_ended ON jobs (ended) WHERE ended IS NOT NULL",
        """CREATE TABLE turns (
            model TEXT NOT NULL, owner TEXT NOT NULL, turn INTEGER NOT NULL, PRIMARY KEY (model, owner)
        ) STRICT""",
        """CREATE TABLE events (
            id INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT NOT NULL, text TEXT, file TEXT
        ) STRICT""",
        "CREATE TABLE rates (owner TEXT PRIMARY KEY, paid_until REAL NOT NULL) STRICT",
        """CREATE TABLE calls (
            replica TEXT NOT NULL, owner TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (replica, owner)
        ) STRICT""",
    ),
)

MAX_ATTEMPTS = 2
"""How often a job is begun whose gateway died under it: the job itself may be the reason."""


class QueueFull(Exception):
    """No more jobs are taken for now; ``status`` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True)
class Limits:
    """Jobs that may be unfinished at once for one model, and bytes that may wait or be kept."""

    per_owner: int
    per_model: int
    total_bytes: int


@dataclass(frozen=True)
class Job:
    """One row. ``session`` is None for a job whose client polls."""

    id: str
    owner: str
    model: str
    model_key: str
    session: str | None
    compress: bool
    env: dict[str, Any]
    base_url: str
    payload_bytes: int
    created: float
    wait_until: float
    status: str = "RECEIVED"
    description: str = ""
    meta: dict[str, Any] | None = None
    replica: str | None = None
    application: str | None = None
    attempts: int = 0
    cancelled: bool = False
    result_bytes: int | None = None
    ended: float | None = None


def _job(row: sqlite3.Row) -> Job:
    known = dict(row)
    for name in ("seq", "round", "turn"):
        known.pop(name, None)
    known["compress"], known["cancelled"] = bool(known["compress"]), bool(known["cancelled"])
    known["env"] = json.loads(known["env"])
    known["meta"] = None if known["meta"] is None else json.loads(known["meta"])
    return Job(**known)


def submit(db: sqlite3.Connection, job: Job, limits: Limits) -> None:
    """Takes a new job. Raises ``QueueFull``."""
    with transaction(db):
        mine, theirs = db.execute(
            "SELECT count(*) FILTER (WHERE owner = ?), count(*) FROM jobs WHERE model = ? AND ended IS NULL",
            (job.owner, job.model),
        ).fetchone()
        if mine >= limits.per_owner:
            text = f"You have {mine} unfinished jobs for this model; {limits.per_owner} are taken at once."
            raise QueueFull(429, text)
        if theirs >= limits.per_model:
            raise QueueFull(503, f"{theirs} jobs wait for this model already; no more are taken for now.")
        (waiting,) = db.execute(
            "SELECT ifnull(sum(payload_bytes), 0) FROM jobs WHERE ended IS NULL"
        ).fetchone()
        if waiting + job.payload_bytes > limits.total_bytes:
            raise QueueFull(503, "The jobs that wait take all the room there is; try again later.")
        columns = "id owner model model_key session compress env base_url payload_bytes created wait_until"
        names = [*columns.split(), "status", "description"]
        values = [getattr(job, name) for name in names]
        values[names.index("env")] = json.dumps(job.env)
        marks = ", ".join("?" * len(names))
        db.execute(f"INSERT INTO jobs ({', '.join(names)}) VALUES ({marks})", values)


def find(db: sqlite3.Connection, job_id: str, owner: str) -> Job | None:
    """A job, if it is the owner's."""
    row = db.execute("SELECT * FROM jobs WHERE id = ? AND owner = ?", (job_id, owner)).fetchone()
    return None if row is None else _job(row)


def jobs_of(db: sqlite3.Connection, owner: str, limit: int) -> list[Job]:
    """The owner's last jobs, the newest first."""
    rows = db.execute("SELECT * FROM jobs WHERE owner = ? ORDER BY seq DESC LIMIT ?", (owner, limit))
    return [_job(row) for row in rows]


def waiting_models(db: sqlite3.Connection) -> list[tuple[str, str]]:
    """Each model that jobs wait for, and one spelling of its key."""
    rows = db.execute(
        "SELECT model, min(model_key) FROM jobs WHERE ended IS NULL AND replica IS NULL GROUP BY model"
    )
    return [(model, key) for model, key in rows]


IN_TURN = """
    SELECT jobs.*, row_number() OVER (PARTITION BY jobs.owner ORDER BY seq) AS round,
           ifnull(turns.turn, 0) AS turn
    FROM jobs LEFT JOIN turns ON turns.model = jobs.model AND turns.owner = jobs.owner
    WHERE jobs.model = ? AND ended IS NULL AND replica IS NULL AND cancelled = 0
    ORDER BY round, turn, seq
"""
"""The jobs that wait for a model, as they will run: owners take turns, each with its oldest job."""


def in_turn(db: sqlite3.Connection, model: str) -> list[Job]:
    """The jobs that wait for a model, the next to run first."""
    return [_job(row) for row in db.execute(IN_TURN, (model,))]


def claim(db: sqlite3.Connection, model: str, replica: str, room: dict[str, int]) -> Job | None:
    """The next job for a model, now this replica's to run; None if none waits or there is no room.

    ``room`` says how many jobs each application takes at once; the emptiest gets the job.
    """
    with transaction(db):
        busy = dict(
            db.execute(
                """SELECT application, count(*) FROM jobs
                   WHERE model = ? AND ended IS NULL AND replica IS NOT NULL GROUP BY application""",
                (model,),
            ).fetchall()
        )
        free = [name for name, most in room.items() if busy.get(name, 0) < most]
        row = db.execute(IN_TURN + " LIMIT 1", (model,)).fetchone() if free else None
        if row is None:
            return None
        application = min(free, key=lambda name: busy.get(name, 0) / room[name])
        db.execute(
            """UPDATE jobs SET replica = ?, application = ?, attempts = attempts + 1,
               status = 'DISPATCHED', description = 'Your job goes to the model.' WHERE id = ?""",
            (replica, application, row["id"]),
        )
        db.execute(
            """INSERT INTO turns SELECT ?1, ?2, ifnull(max(turn), 0) + 1 FROM turns WHERE model = ?1
               ON CONFLICT DO UPDATE SET turn = excluded.turn""",
            (model, row["owner"]),
        )
        return _job(db.execute("SELECT * FROM jobs WHERE id = ?", (row["id"],)).fetchone())


def claim_all(
    db: sqlite3.Connection, model: str, replica: str, room: dict[str, int]
) -> tuple[list[Job], list[Job]]:
    """All jobs that can begin now, and those that wait on, the next to run first."""
    claimed: list[Job] = []
    line = in_turn(db, model)
    while line and (job := claim(db, model, replica, room)) is not None:
        claimed.append(job)
        line = in_turn(db, model)
    return claimed, line


def release(db: sqlite3.Connection, job_id: str, replica: str, now: float) -> bool:
    """Back to waiting: it never began, or its gateway goes. False if it was cancelled meanwhile: it ends."""
    with transaction(db):
        row = db.execute("SELECT cancelled FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is not None and row["cancelled"]:
            end(db, job_id, replica, "ERROR", CANCELLED, now)
            return False
        db.execute(
            """UPDATE jobs SET replica = NULL, application = NULL, attempts = attempts - 1, status = 'QUEUED',
               description = 'Waiting for its turn again.' WHERE id = ? AND replica = ? AND ended IS NULL""",
            (job_id, replica),
        )
    return True


def say(db: sqlite3.Connection, job_id: str, status: str, description: str) -> bool:
    """Notes how an unfinished job is; whether that is news."""
    done = db.execute(
        """UPDATE jobs SET status = ?1, description = ?2
           WHERE id = ?3 AND ended IS NULL AND (status != ?1 OR description != ?2)""",
        (status, description, job_id),
    )
    return done.rowcount > 0


def end(
    db: sqlite3.Connection,
    job_id: str,
    replica: str | None,
    status: str,
    description: str,
    now: float,
    meta: dict[str, Any] | None = None,
    result_bytes: int | None = None,
) -> bool:
    """Ends a job that this replica runs (None: that waits); False if it is not so any more."""
    done = db.execute(
        """UPDATE jobs SET status = ?, description = ?, meta = ?, result_bytes = ?, ended = ?
           WHERE id = ? AND replica IS ? AND ended IS NULL""",
        (status, description, None if meta is None else json.dumps(meta), result_bytes, now, job_id, replica),
    )
    return done.rowcount > 0


CANCELLED = "Your job was cancelled."


def cancel(db: sqlite3.Connection, job_ids: Iterable[str], now: float) -> set[str]:
    """Ends jobs that wait, marks those that run; returns the replicas that run some of them."""
    running: set[str] = set()
    with transaction(db):
        for job_id in job_ids:
            if end(db, job_id, None, "ERROR", CANCELLED, now):
                continue
            row = db.execute(
                "UPDATE jobs SET cancelled = 1 WHERE id = ? AND ended IS NULL RETURNING replica", (job_id,)
            ).fetchone()
            if row is not None:
                running.add(row["replica"])
    return running


def waiting_of(db: sqlite3.Connection, session: str) -> list[Job]:
    """Jobs of a websocket that wait."""
    rows = db.execute(
        "SELECT * FROM jobs WHERE session = ? AND ended IS NULL AND replica IS NULL", (session,)
    )
    return [_job(row) for row in rows]


def lines(db: sqlite3.Connection) -> list[tuple[str, int]]:
    """How many jobs wait for each model, and one spelling of its key."""
    rows = db.execute(
        "SELECT min(model_key), count(*) FROM jobs WHERE ended IS NULL AND replica IS NULL GROUP BY model"
    )
    return [(key, number) for key, number in rows]


def cancelled_here(db: sqlite3.Connection, replica: str) -> list[str]:
    """Jobs that this replica runs and shall not."""
    rows = db.execute("SELECT id FROM jobs WHERE replica = ? AND cancelled = 1 AND ended IS NULL", (replica,))
    return [row["id"] for row in rows]


def overdue(db: sqlite3.Connection, now: float) -> list[Job]:
    """Jobs that have waited longer than they may."""
    rows = db.execute("SELECT * FROM jobs WHERE ended IS NULL AND replica IS NULL AND wait_until < ?", (now,))
    return [_job(row) for row in rows]


# What is kept


def make_room(db: sqlite3.Connection, wanted_bytes: int, total_bytes: int) -> list[str] | None:
    """Lets the oldest results go until so many bytes more find room; returns whose.

    None where they find none even so.
    """
    if wanted_bytes > total_bytes:
        return None
    gone: list[str] = []
    with transaction(db):
        (held,) = db.execute(
            """SELECT ifnull(sum(CASE WHEN ended IS NULL THEN payload_bytes ELSE result_bytes END), 0)
               FROM jobs"""
        ).fetchone()
        oldest = db.execute(
            "SELECT id, result_bytes FROM jobs WHERE result_bytes > 0 ORDER BY ended"
        ).fetchall()
        for row in oldest:
            if held + wanted_bytes <= total_bytes:
                break
            held -= row["result_bytes"]
            gone.append(row["id"])
        db.executemany(
            """UPDATE jobs SET result_bytes = NULL, status = 'ERROR',
               description = 'The result was not fetched in time and made room for others.' WHERE id = ?""",
            [(one,) for one in gone],
        )
    return gone


def forget(db: sqlite3.Connection, before: float) -> list[str]:
    """Drops jobs that ended before then; returns which."""
    rows = db.execute("DELETE FROM jobs WHERE ended < ? RETURNING id", (before,)).fetchall()
    return [row["id"] for row in rows]


def unfinished(db: sqlite3.Connection) -> set[str]:
    """Ids of the jobs whose payload is still needed."""
    return {row["id"] for row in db.execute("SELECT id FROM jobs WHERE ended IS NULL")}
