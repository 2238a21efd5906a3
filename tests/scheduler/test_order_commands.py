"""The operator's orders and the history, from a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scheduler.__main__ import main
from scheduler.store.history import FILE, Recorder
from scheduler.store.orders import OrderBook, OrderKind
from scheduler.store.records import Change, PromiseRecord
from tests.scheduler.calendar_cli import Ran

Run = Callable[..., Ran]


@pytest.fixture
def ndif(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line, as an operator has it."""

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["ndif-ray", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Ran(int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def book(home: Path) -> OrderBook:
    return OrderBook(home / "var")


def test_pause_and_resume(ndif: Run, book: OrderBook) -> None:
    paused = ndif("pause", "--note", "disk is being changed")
    assert paused.code == 0
    assert "Paused: nothing is changed until it is taken back" in paused.out
    assert "disk is being changed" in paused.out
    assert book.read().paused(datetime.now(UTC)) is not None
    assert ndif("resume").out.startswith(
        "No longer paused: what is booked is carried out again (it was ordered"
    )
    assert book.read().orders == ()
    again = ndif("resume")
    assert (again.code, "was not paused" in again.err) == (1, True)


def test_pin_needs_a_model_that_is_known_and_a_length(ndif: Run, book: OrderBook) -> None:
    assert ndif("pin", "small").code == 1
    unknown = ndif("pin", "smal", "--for", "2h")
    assert unknown.code == 1
    assert "neither an alias" in unknown.err
    assert ndif("pin", "small", "--for", "soon").code == 1
    assert ndif("pin", "small", "--for", "2h").code == 0
    (order,) = book.read().orders
    assert (order.kind, order.subject, order.until) == (
        OrderKind.PIN,
        "small",
        order.since + timedelta(hours=2),
    )
    assert "@" in order.by


def test_evict_replaces_a_pin_and_release_takes_it_back(ndif: Run, book: OrderBook) -> None:
    ndif("pin", "small", "--for", "2h")
    assert "is taken down" in ndif("evict", "small").out
    assert [one.kind for one in book.read().orders] == [OrderKind.EVICT]
    assert ndif("release", "small").code == 0
    assert book.read().orders == ()


def test_nodes_are_cordoned_drained_and_let_go(ndif: Run, book: OrderBook) -> None:
    said = ndif("node", "cordon", "gpu-a")  # Ray does not answer here, so the name is believed
    assert (said.code, "gpu-a takes nothing new" in said.out) == (0, True)
    ndif("node", "drain", "gpu-a")
    assert [one.kind for one in book.read().orders] == [OrderKind.DRAIN]
    assert ndif("node", "uncordon", "gpu-a").code == 0
    assert ndif("node", "uncordon", "gpu-a").code == 1


def test_an_order_that_cannot_be_written_is_an_error(ndif: Run, home: Path) -> None:
    (home / "var").write_text("in the way")
    said = ndif("pause")
    assert said.code == 1
    assert "cannot be written" in said.err


# History


@pytest.fixture
def last_night(home: Path) -> datetime:
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=9)
    history = Recorder(home / "var" / FILE, keep_days=30)
    values = {"calendar": "c", "owner": "ada@example.org", "start": at, "end": at + timedelta(hours=1)}
    history.promised(
        [
            PromiseRecord.model_validate(
                values
                | {"event": "late", "title": "seminar", "model": "org/small", "state": "late"}
                | {"ready_at": at + timedelta(seconds=45), "lateness_seconds": 45.0}
            ),
            PromiseRecord.model_validate(
                values
                | {"event": "lost", "title": "thesis", "model": "org/huge", "state": "broken"}
                | {"broken_why": "Node gpu-a is gone."}
            ),
        ]
    )
    said = {"calendar": "c", "event": "lost", "title": "thesis", "model": "org/huge", "state": "refused"}
    history.said([Change.model_validate(said | {"at": at, "text": "Node gpu-a is gone."})])
    history.planned(at, "1 to deploy.", ["deploy org/small gpu-b"], "applied")
    history.loaded(at, '{"repo_id": "org/small"}', "gpu-b", "gpu", "cold", 12.0)
    history.close()
    return at


def test_the_history_tells_what_happened_to_my_booking(ndif: Run, last_night: datetime) -> None:
    said = ndif("history", "thesis")
    assert said.code == 0
    assert "Node gpu-a is gone." in " ".join(said.out.split())
    assert "seminar" not in said.out
    everything = " ".join(ndif("history").out.split())
    for words in ("late by 45 s", "deploy org/small gpu-b", "12.0 s"):
        assert words in everything


def test_the_history_as_data_by_model(ndif: Run, last_night: datetime) -> None:
    found = json.loads(ndif("history", "org/small", "--json").out)
    assert [one["event"] for one in found["promises"]] == ["late"]
    assert [one["outcome"] for one in found["plans"]] == ["applied"]
    assert [one["seconds_p95"] for one in found["load_times"]] == [12.0]
    assert found["changes"] == []


def test_nothing_known_is_said_and_has_an_exit_code_of_its_own(ndif: Run, last_night: datetime) -> None:
    said = ndif("history", "nobody's")
    assert (said.code, "Nothing is known about “nobody's”" in said.out) == (1, True)
    assert ndif("history", "thesis", "--hours", "2").code == 1
