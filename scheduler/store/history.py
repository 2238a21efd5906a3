"""The history: what was loaded, planned, promised, said and ordered, and when."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from scheduler.errors import OperatorError
from scheduler.store.database import Database, is_current, opened_for_reading
from scheduler.store.records import (
    Change,
    LoadTime,
    ManualRecord,
    Outcome,
    Parked,
    PlanRecord,
    PromiseRecord,
)

FILE = "history.db"
LOADS_KEPT = 50
"""Of each model, kind of node and tier, so many of the latest loads are reckoned with."""

P95 = 0.95


Record = TypeVar("Record", bound=BaseModel)


class _Reads(Protocol):
    def read(self, sql: str, values: Any = ()) -> list[tuple[Any, ...]]: ...


class History:
    """What may be asked. ``Recorder`` below is the one that writes.

    Args:
        source: where rows come from.
    """

    def __init__(self, source: _Reads) -> None:
        self._source = source

    def load_times(self) -> dict[tuple[str, str, str], LoadTime]:
        """By model key, kind of node and tier."""
        rows = self._source.read("SELECT model_key, node_kind, tier, seconds FROM loads ORDER BY at, rowid")
        seconds: dict[tuple[str, str, str], list[float]] = {}
        for model_key, node_kind, tier, took in rows:
            seconds.setdefault((model_key, node_kind, tier), []).append(took)
        return {key: _load_time(key, took[-LOADS_KEPT:]) for key, took in seconds.items()}

    def loaded_on(self) -> frozenset[tuple[str, str]]:
        """The models that were loaded on a node, by model key and node: their weights are on its disk."""
        return frozenset(self._source.read("SELECT DISTINCT model_key, node FROM loads"))

    def plans(self, since: datetime, limit: int = 100) -> list[PlanRecord]:
        """The latest plans, the oldest of them first."""
        rows = self._source.read(
            "SELECT number, at, summary, actions, outcome, detail, seconds FROM plans WHERE at >= ? "
            "ORDER BY number DESC LIMIT ?",
            (since.timestamp(), limit),
        )
        return [
            PlanRecord(
                number=number,
                at=_instant(at),
                summary=summary,
                actions=tuple(json.loads(actions)),
                outcome=outcome,
                detail=detail,
                seconds=seconds,
            )
            for number, at, summary, actions, outcome, detail, seconds in reversed(rows)
        ]

    def promises(self, since: datetime) -> list[PromiseRecord]:
        """Those whose booking ends after ``since``, by start."""
        rows = self._source.read("SELECT record FROM promises WHERE until >= ?", (since.timestamp(),))
        found = _understood(PromiseRecord, (record for (record,) in rows))
        return sorted(found, key=lambda one: (one.start, one.calendar, one.event))

    def changes(self, since: datetime) -> list[Change]:
        """What was said of events and models, in its order."""
        rows = self._source.read(
            "SELECT at, calendar, event, title, model, state, text, private FROM changes WHERE at >= ? "
            "ORDER BY at, rowid",
            (since.timestamp(),),
        )
        names = ("at", "calendar", "event", "title", "model", "state", "text", "private")
        return [
            Change.model_validate(dict(zip(names, (_instant(row[0]), *row[1:]), strict=True))) for row in rows
        ]

    def verdicts(self) -> dict[tuple[str, str], Change]:
        """What was last said of each event, by calendar and event."""
        everything = self.changes(datetime.fromtimestamp(0, UTC))
        return {(one.calendar, one.event): one for one in everything}

    def manual(self, since: datetime) -> list[ManualRecord]:
        """What was ordered, in its order."""
        rows = self._source.read(
            "SELECT at, kind, subject, until, who FROM manual WHERE at >= ? ORDER BY at, rowid",
            (since.timestamp(),),
        )
        return [
            ManualRecord(at=_instant(at), kind=kind, subject=subject, until=until and _instant(until), by=who)
            for at, kind, subject, until, who in rows
        ]

    def parked(self) -> dict[str, Parked]:
        """What is left alone because it kept failing, by model key."""
        rows = self._source.read("SELECT record FROM parked")
        return {one.model_key: one for one in _understood(Parked, (record for (record,) in rows))}


class Recorder(History):
    """The history of the one daemon of a state directory. Never raises for what happens to its file."""

    def __init__(self, path: Path, keep_days: float) -> None:
        self._database = Database(path)
        super().__init__(self._database)
        self._keep = timedelta(days=keep_days)
        self._load_times: dict[tuple[str, str, str], LoadTime] | None = None
        self._loaded_on: frozenset[tuple[str, str]] | None = None

    def loaded_on(self) -> frozenset[tuple[str, str]]:
        """The models that were loaded on a node; asked for at every pass as well."""
        if self._loaded_on is None:
            self._loaded_on = super().loaded_on()
        return self._loaded_on

    def load_times(self) -> dict[tuple[str, str, str], LoadTime]:
        """By model key, kind of node and tier; asked for at every pass, and reckoned after each load."""
        if self._load_times is None:
            self._load_times = super().load_times()
        return self._load_times

    @property
    def lost(self) -> int:
        """How many records did not reach the disk."""
        return self._database.lost

    @property
    def problem(self) -> str:
        """Why not, empty while all is well."""
        return self._database.problem

    def close(self) -> None:
        """Give the file back."""
        self._database.close()

    def loaded(
        self, at: datetime, model_key: str, node: str, node_kind: str, tier: str, seconds: float
    ) -> None:
        """A model became ready on a node, so long after its loading began."""
        self._load_times = self._loaded_on = None
        self._write(
            "INSERT INTO loads (at, model_key, node_kind, tier, node, seconds) VALUES (?, ?, ?, ?, ?, ?)",
            (at.timestamp(), model_key, node_kind, tier, node, seconds),
        )

    def planned(
        self,
        at: datetime,
        summary: str,
        actions: Iterable[str],
        outcome: Outcome,
        detail: str = "",
        seconds: float | None = None,
    ) -> None:
        """A plan was carried out, or could not be."""
        self._write(
            "INSERT INTO plans (at, summary, actions, outcome, detail, seconds) VALUES (?, ?, ?, ?, ?, ?)",
            (at.timestamp(), summary, json.dumps(list(actions)), outcome, detail, seconds),
        )

    def promised(self, promises: Iterable[PromiseRecord]) -> None:
        """What is known of these promises now, in place of what was."""
        statements = [
            (
                "INSERT OR REPLACE INTO promises (calendar, event, until, record) VALUES (?, ?, ?, ?)",
                (one.calendar, one.event, one.end.timestamp(), one.model_dump_json()),
            )
            for one in promises
        ]
        if statements:
            self._database.write(statements)

    def said(self, changes: Iterable[Change]) -> None:
        """Something new is said of these events."""
        statements = [
            (
                "INSERT INTO changes (at, calendar, event, title, model, state, text, private) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    one.at.timestamp(),
                    *(one.calendar, one.event, one.title, one.model, one.state, one.text),
                    one.private,
                ),
            )
            for one in changes
        ]
        if statements:
            self._database.write(statements)

    def ordered(self, record: ManualRecord) -> None:
        """The operator ordered something; what is known is not written again."""
        until = record.until.timestamp() if record.until else None
        same = (record.at.timestamp(), record.kind, record.subject)
        self._write(
            "INSERT INTO manual (at, kind, subject, until, who) SELECT ?, ?, ?, ?, ? WHERE NOT EXISTS "
            "(SELECT 1 FROM manual WHERE at = ? AND kind = ? AND subject = ?)",
            (*same, until, record.by, *same),
        )

    def park(self, parked: Parked) -> None:
        """A model is left alone for a while."""
        self._write(
            "INSERT OR REPLACE INTO parked (model_key, record) VALUES (?, ?)",
            (parked.model_key, parked.model_dump_json()),
        )

    def unpark(self, model_key: str) -> None:
        """It is not any more."""
        self._write("DELETE FROM parked WHERE model_key = ?", (model_key,))

    def forget(self, now: datetime) -> None:
        """Delete what is older than the history is kept."""
        oldest = (now - self._keep).timestamp()
        self._database.write(
            [
                ("DELETE FROM loads WHERE at < ?", (oldest,)),
                ("DELETE FROM plans WHERE at < ?", (oldest,)),
                ("DELETE FROM promises WHERE until < ?", (oldest,)),
                ("DELETE FROM changes WHERE at < ?", (oldest,)),
                ("DELETE FROM manual WHERE at < ?", (oldest,)),
            ]
        )

    def _write(self, sql: str, values: tuple[Any, ...]) -> None:
        self._database.write([(sql, values)])


@contextmanager
def reading(path: Path) -> Iterator[History]:
    """The history in a file, which may be in use; empty where there is none.

    Raises:
        OperatorError: it cannot be read, or an earlier version of this service made it.
    """
    try:
        with opened_for_reading(path) as connection:
            if connection and not is_current(connection):
                raise OperatorError(
                    f"The history {path} is that of an earlier version of this service.",
                    "The daemon brings it up to date when it starts.",
                )
            yield History(_Connection(connection))
    except sqlite3.Error as error:
        raise OperatorError(
            f"The history {path} cannot be read: {error}.",
            "It may be deleted; the daemon begins a new one, and nothing but the past is lost.",
        ) from error


class _Connection:
    def __init__(self, connection: sqlite3.Connection | None) -> None:
        self._connection = connection

    def read(self, sql: str, values: Any = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, values).fetchall() if self._connection else []


def _understood(kind: type[Record], records: Iterable[str]) -> Iterator[Record]:
    """The records that this version understands; a later one may have written others."""
    for record in records:
        try:
            yield kind.model_validate_json(record)
        except ValidationError:
            continue


def _load_time(key: tuple[str, str, str], took: list[float]) -> LoadTime:
    ordered = sorted(took)
    return LoadTime(
        model_key=key[0],
        node_kind=key[1],
        tier=key[2],
        count=len(ordered),
        seconds_p50=_quantile(ordered, 0.5),
        seconds_p95=_quantile(ordered, P95),
        seconds_last=took[-1],
    )


def _quantile(ordered: list[float], share: float) -> float:
    """The smallest of them that at least ``share`` of them do not exceed (nearest rank)."""
    rank = -(-len(ordered) * share // 1)
    return ordered[max(0, int(rank) - 1)]


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
