"""The table of jobs under any order of events: nothing is run twice, forgotten or out of turn."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from serve_apps.gateway import database, jobs_table, replicas_table
from serve_apps.gateway.database import TooNew, connect
from serve_apps.gateway.jobs_table import Job, Limits, QueueFull
from tests.examples import examples

LIMITS = Limits(per_owner=4, per_model=8, total_bytes=1000)
ROOM = {"a": 1, "b": 2}
REPLICAS = ("r1", "r2")
MODELS = ("m", "n")


def job(job_id: str, owner: str = "ada", model: str = "m", session: str | None = None) -> Job:
    return Job(
        id=job_id,
        owner=owner,
        model=model,
        model_key=f"key of {model}",
        session=session,
        compress=True,
        env={"attn_implementation": "sdpa"},
        base_url="http://127.0.0.1/",
        payload_bytes=10,
        created=1.0,
        wait_until=100.0,
    )


def opened() -> sqlite3.Connection:
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.row_factory = sqlite3.Row
    for migration in jobs_table.MIGRATIONS:
        for statement in migration:
            database.execute(statement)
    return database


class AnyOrder(RuleBasedStateMachine):
    """Two replicas, two models, three owners; a replica may die at any moment and come back."""

    def __init__(self) -> None:
        super().__init__()
        self.db = opened()
        self.taken: list[str] = []
        self.ended: set[str] = set()
        self.running: dict[str, str] = {}
        for replica in REPLICAS:
            self.come(replica)

    def come(self, replica: str) -> None:
        replicas_table.enter(self.db, replicas_table.Replica(replica, 1, 1.0, 1))
        replicas_table.open_session(self.db, f"socket of {replica}", replica, "ada")

    @rule(
        owner=st.sampled_from(["ada", "bob", "eve"]),
        model=st.sampled_from(MODELS),
        session=st.sampled_from([None, *(f"socket of {replica}" for replica in REPLICAS)]),
    )
    def submit(self, owner: str, model: str, session: str | None) -> None:
        name = f"job {len(self.taken)}"
        try:
            jobs_table.submit(self.db, job(name, owner, model, session), LIMITS)
        except QueueFull as full:
            unfinished = [one for one in self.rows() if one["ended"] is None and one["model"] == model]
            mine = [one for one in unfinished if one["owner"] == owner]
            assert (len(mine) >= 4, len(unfinished) >= 8) != (False, False)
            assert full.status == (429 if len(mine) >= 4 else 503)
        else:
            self.taken.append(name)

    @rule(replica=st.sampled_from(REPLICAS), model=st.sampled_from(MODELS))
    def claim(self, replica: str, model: str) -> None:
        line = jobs_table.in_turn(self.db, model)
        got = jobs_table.claim(self.db, model, replica, ROOM)
        busy = sum(1 for one in self.rows() if one["model"] == model and one["replica"] and not one["ended"])
        if got is None:
            assert not line or busy == 3
        else:
            assert got.id == line[0].id and got.id not in self.running
            self.running[got.id] = replica

    @rule(data=st.data(), released=st.booleans())
    def finish(self, data: st.DataObject, released: bool) -> None:
        if not self.running:
            return
        name = data.draw(st.sampled_from(sorted(self.running)))
        replica = self.running.pop(name)
        other = next(one for one in REPLICAS if one != replica)
        assert not jobs_table.end(self.db, name, other, "COMPLETED", "", 5.0)
        if released:
            jobs_table.release(self.db, name, replica, 5.0)
        else:
            assert jobs_table.end(self.db, name, replica, "COMPLETED", "", 5.0, {}, 7)
            assert not jobs_table.end(self.db, name, replica, "ERROR", "", 6.0)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if not self.taken:
            return
        name = data.draw(st.sampled_from(self.taken))
        where = jobs_table.cancel(self.db, [name], 5.0)
        assert where == ({self.running[name]} if name in self.running else set())

    @rule(replica=st.sampled_from(REPLICAS))
    def die(self, replica: str) -> None:
        replicas_table.bury(self.db, replica, 5.0)
        self.running = {name: where for name, where in self.running.items() if where != replica}
        self.come(replica)

    def rows(self) -> list[sqlite3.Row]:
        return self.db.execute("SELECT * FROM jobs").fetchall()

    @invariant()
    def nothing_is_lost_or_run_twice(self) -> None:
        rows = {row["id"]: row for row in self.rows()}
        assert list(rows) == self.taken
        ended = {name for name, row in rows.items() if row["ended"] is not None}
        assert self.ended <= ended, "what has ended stays so"
        self.ended = ended
        running = {n: row["replica"] for n, row in rows.items() if row["replica"] and not row["ended"]}
        assert running == self.running
        places = Counter((rows[name]["model"], rows[name]["application"]) for name in running)
        assert all(count <= ROOM[application] for (_, application), count in places.items())
        for name, row in rows.items():
            assert row["attempts"] <= jobs_table.MAX_ATTEMPTS, name
            waits = row["ended"] is None and row["replica"] is None
            line = [one.id for one in jobs_table.in_turn(self.db, row["model"])]
            assert (name in line) == waits

    def teardown(self) -> None:
        self.db.close()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=examples(60), stateful_step_count=40, deadline=None, derandomize=True, database=None
)


def test_replicas_that_claim_at_once_never_get_the_same(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    database = connect(path, jobs_table.MIGRATIONS)
    names = [f"job {number}" for number in range(60)]
    for name in names:
        jobs_table.submit(database, job(name), Limits(100, 100, 10**6))
    got: list[str] = []

    def work(replica: str) -> None:
        mine = connect(path, jobs_table.MIGRATIONS)
        while (one := jobs_table.claim(mine, "m", replica, {"a": 100})) is not None:
            got.append(one.id)
        mine.close()

    threads = [threading.Thread(target=work, args=(f"r{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    database.close()
    assert sorted(got) == sorted(names)


def test_two_that_make_a_file_at_once_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.sqlite3"
    waits: list[float] = []
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        def wait(seconds: float) -> None:
            waits.append(seconds)
            other.execute("COMMIT")

        monkeypatch.setattr(database._write_ahead.retry, "sleep", wait)
        with closing(connect(path, [["CREATE TABLE one (x)"]])) as mine:
            assert mine.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert len(waits) == 1


def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    connect(path, [["CREATE TABLE one (x)"]]).close()
    database = connect(path, [["CREATE TABLE one (x)"], ["CREATE TABLE two (x)"]])
    assert database.execute("SELECT count(*) FROM two").fetchone()[0] == 0
    database.close()
    with pytest.raises(TooNew, match="version 2 and this service knows 1"):
        connect(path, [["CREATE TABLE one (x)"]])


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    with pytest.raises(sqlite3.OperationalError):
        connect(path, [["CREATE TABLE one (x)", "nonsense"]])
    database = connect(path, [["CREATE TABLE one (x)"]])
    assert database.execute("PRAGMA user_version").fetchone()[0] == 1
    database.close()
