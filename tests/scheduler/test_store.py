"""The history on disk, whatever happens to its file; and the operator's orders."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from scheduler.errors import OperatorError
from scheduler.store import database
from scheduler.store.database import MIGRATIONS
from scheduler.store.history import FILE, Recorder, reading
from scheduler.store.orders import Order, OrderBook, OrderKind, Orders
from scheduler.store.records import Change, ManualRecord, Parked, PromiseRecord
from tests.scheduler.builders import NOON

HOUR = timedelta(hours=1)


@pytest.fixture
def history(tmp_path: Path) -> Iterator[Recorder]:
    found = Recorder(tmp_path / FILE, keep_days=1)
    yield found
    found.close()


def loads(history: Recorder, *seconds: float) -> None:
    for number, took in enumerate(seconds):
        history.loaded(NOON + timedelta(minutes=number), "key", "gpu-a", "gpu", "cold", took)


def promise(**changes: object) -> PromiseRecord:
    values = {"calendar": "c", "event": "e", "title": "t", "model": "m", "start": NOON, "end": NOON + HOUR}
    return PromiseRecord.model_validate(values | changes)


# History


def test_load_times_by_model_kind_of_node_and_tier(history: Recorder) -> None:
    loads(history, *range(1, 21))
    history.loaded(NOON, "key", "gpu-a", "gpu", "warm", 3.0)
    assert set(history.load_times()) == {("key", "gpu", "cold"), ("key", "gpu", "warm")}
    cold = history.load_times()["key", "gpu", "cold"]
    assert (cold.count, cold.seconds_p50, cold.seconds_p95, cold.seconds_last) == (20, 10.0, 19.0, 20.0)
    history.loaded(NOON + HOUR, "key", "gpu-a", "gpu", "cold", 99.0)
    assert history.load_times()["key", "gpu", "cold"].seconds_last == 99.0


def test_of_a_single_load_every_quantile_is_that_one(history: Recorder) -> None:
    loads(history, 7.0)
    found = history.load_times()["key", "gpu", "cold"]
    assert (found.seconds_p50, found.seconds_p95) == (7.0, 7.0)


def test_everything_comes_back_after_a_restart(history: Recorder, tmp_path: Path) -> None:
    late = promise(state="late", ready_at=NOON + timedelta(seconds=9), lateness_seconds=9.0)
    change = Change(at=NOON, calendar="c", event="e", title="t", model="m", state="serving", text="It is up.")
    hidden = change.model_copy(update={"at": NOON + HOUR, "event": "f", "private": True})
    ordered = ManualRecord(at=NOON, kind="pin", subject="m", until=NOON + HOUR, by="ada")
    parked = Parked(model_key="k", error="e", since=NOON, tries=2, retry_at=NOON + HOUR, signature="s")
    loads(history, 5.0)
    history.planned(NOON, "1 to deploy.", ["deploy m a"], "applied", seconds=0.5)
    history.promised([promise(), late])
    history.said([change, hidden])
    history.ordered(ordered)
    history.park(parked)
    history.close()
    again = Recorder(tmp_path / FILE, keep_days=1)
    assert again.load_times()["key", "gpu", "cold"].count == 1
    (plan,) = again.plans(NOON)
    assert (plan.summary, plan.actions, plan.outcome) == ("1 to deploy.", ("deploy m a",), "applied")
    assert again.promises(NOON) == [late]
    assert again.changes(NOON) == [change, hidden]
    assert again.verdicts() == {("c", "e"): change, ("c", "f"): hidden}
    assert again.manual(NOON) == [ordered]
    assert again.parked() == {"k": parked}
    again.unpark("k")
    assert again.parked() == {}
    again.close()


def test_what_is_older_than_the_retention_is_forgotten(history: Recorder) -> None:
    loads(history, 5.0)
    history.planned(NOON, "old", [], "applied")
    history.planned(NOON + 30 * HOUR, "new", [], "applied")
    history.promised([promise()])
    history.forget(NOON + 31 * HOUR)
    assert [one.summary for one in history.plans(NOON - HOUR)] == ["new"]
    assert history.promises(NOON - HOUR) == []


def test_a_damaged_file_is_set_aside_and_a_new_one_begun(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / FILE).write_bytes(b"no database at all, but long enough to be looked at" * 40)
    history = Recorder(tmp_path / FILE, keep_days=1)
    loads(history, 5.0)
    assert history.problem == ""
    assert len(list(tmp_path.glob(f"{FILE}.damaged-*"))) == 1
    assert [line for line in said if "is damaged" in line]
    history.close()


def test_a_page_that_was_overwritten_is_found_at_the_start(history: Recorder, tmp_path: Path) -> None:
    loads(history, *(5.0 for _ in range(500)))
    history.close()
    content = bytearray((tmp_path / FILE).read_bytes())
    for start in range(4096, len(content), 4096):
        content[start : start + 64] = b"\xff" * 64
    (tmp_path / FILE).write_bytes(bytes(content))
    again = Recorder(tmp_path / FILE, keep_days=1)
    assert again.load_times() == {}
    assert list(tmp_path.glob(f"{FILE}.damaged-*"))
    again.close()


def test_of_many_damaged_files_the_last_few_are_kept(tmp_path: Path) -> None:
    for _ in range(database.SET_ASIDE_KEPT + 2):
        (tmp_path / FILE).write_bytes(b"x" * 4096)
        Recorder(tmp_path / FILE, keep_days=1).close()
    assert len(list(tmp_path.glob(f"{FILE}.damaged-*"))) == database.SET_ASIDE_KEPT


def test_a_file_of_an_older_version_is_migrated_and_keeps_its_rows(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / FILE)
    old.executescript(f"{MIGRATIONS[0]}; PRAGMA user_version = 1;")
    old.execute("INSERT INTO loads VALUES (?, 'key', 'gpu', 'cold', 'a', 4.0)", (NOON.timestamp(),))
    old.commit()
    old.close()
    history = Recorder(tmp_path / FILE, keep_days=1)
    history.ordered(ManualRecord(at=NOON, kind="pause", subject=""))
    assert history.load_times()["key", "gpu", "cold"].count == 1
    assert (history.problem, len(history.manual(NOON))) == ("", 1)
    history.close()


def test_a_file_of_an_older_version_is_read_once_the_daemon_has_migrated_it(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / FILE)
    old.executescript(f"{MIGRATIONS[0]}; {MIGRATIONS[1]}; PRAGMA user_version = 2;")
    old.execute("INSERT INTO changes VALUES (?, 'c', 'e', 't', 'm', 'serving', 'Up.')", (NOON.timestamp(),))
    old.commit()
    old.close()
    with pytest.raises(OperatorError, match="earlier version"), reading(tmp_path / FILE):
        pass
    Recorder(tmp_path / FILE, keep_days=1).close()
    with reading(tmp_path / FILE) as history:
        assert [one.private for one in history.changes(NOON)] == [False]


def test_a_file_of_a_later_version_is_left_as_it_is(tmp_path: Path) -> None:
    later = sqlite3.connect(tmp_path / FILE)
    later.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    later.close()
    history = Recorder(tmp_path / FILE, keep_days=1)
    loads(history, 5.0)
    assert "later version" in history.problem
    assert history.lost == 1
    assert history.load_times()["key", "gpu", "cold"].count == 1
    assert list(tmp_path.glob("*.damaged-*")) == []
    history.close()


def test_a_disk_that_is_full_is_said_once_and_counted(history: Recorder, said: list[str]) -> None:
    history._database._connection.execute("PRAGMA max_page_count = 1")
    for _ in range(400):
        history.planned(NOON, "x" * 400, [], "applied")
    assert history.lost > 100
    assert len([line for line in said if "cannot be kept" in line]) == 1
    history._database._connection.execute("PRAGMA max_page_count = 100000")
    lost = history.lost
    history.planned(NOON, "room again", [], "applied")
    assert (history.lost, history.problem) == (lost, "")
    assert history.plans(NOON)[-1].summary == "room again"


def test_a_folder_that_cannot_be_written_to_costs_only_the_file(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    history = Recorder(tmp_path / "state" / FILE, keep_days=1)
    loads(history, 5.0, 6.0)
    assert history.load_times()["key", "gpu", "cold"].count == 2
    assert history.lost == 2
    assert len([line for line in said if "cannot be kept" in line]) == 1
    history.close()


def test_a_file_that_could_not_be_opened_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").write_text("in the way")
    history = Recorder(tmp_path / "state" / FILE, keep_days=1)
    (tmp_path / "state").unlink()
    monkeypatch.setattr(database, "RETRY_SECONDS", 0.0)
    loads(history, 5.0)
    assert (history.lost, history.problem) == (0, "")
    assert (tmp_path / "state" / FILE).is_file()
    history.close()


def test_it_may_be_deleted_while_it_is_in_use(history: Recorder, tmp_path: Path) -> None:
    loads(history, 5.0)
    for file in tmp_path.glob(f"{FILE}*"):
        file.unlink()
    loads(history, 6.0)
    with reading(tmp_path / FILE) as found:
        assert found.load_times()["key", "gpu", "cold"].seconds_last == 6.0


def test_it_is_read_while_a_daemon_writes(history: Recorder, tmp_path: Path) -> None:
    loads(history, 5.0)
    with reading(tmp_path / FILE) as found:
        loads(history, 6.0)
        assert found.load_times()["key", "gpu", "cold"].count == 2
    with reading(tmp_path / "none.db") as found:
        assert found.load_times() == {}


def test_a_history_that_cannot_be_read_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"y" * 4096)
    with pytest.raises(OperatorError, match="may be deleted"), reading(tmp_path / FILE) as found:
        found.plans(NOON)


# Orders


def order(kind: OrderKind, subject: str = "", hours: float | None = 1) -> Order:
    until = None if hours is None else NOON + hours * HOUR
    return Order(kind=kind, subject=subject, since=NOON, until=until)


def test_an_order_holds_from_its_beginning_to_before_its_end() -> None:
    pin = order(OrderKind.PIN, "phi")
    held = [pin.holds(NOON + timedelta(minutes=minutes)) for minutes in (-1, 0, 59, 60)]
    assert held == [False, True, True, False]


def test_an_order_replaces_those_it_contradicts_and_no_others() -> None:
    orders = Orders()
    for one in (
        order(OrderKind.PIN, "phi"),
        order(OrderKind.PIN, "llama"),
        order(OrderKind.CORDON, "gpu-a", None),
        order(OrderKind.EVICT, "Phi"),
        order(OrderKind.DRAIN, "gpu-a", None),
    ):
        orders = orders.with_order(one)
    assert [(one.kind, one.subject) for one in orders.orders] == [
        (OrderKind.PIN, "llama"),
        (OrderKind.EVICT, "Phi"),
        (OrderKind.DRAIN, "gpu-a"),
    ]
    assert orders.on(OrderKind.EVICT, "phi", NOON) is not None


def test_orders_are_shared_through_their_file(tmp_path: Path) -> None:
    first, second = OrderBook(tmp_path), OrderBook(tmp_path)
    assert first.read() == Orders()
    before = second.changed_at
    first.change(lambda orders: orders.with_order(order(OrderKind.PAUSE)))
    assert second.changed_at != before
    assert second.read().paused(NOON) is not None
    second.change(lambda orders: orders.without("", frozenset({OrderKind.PAUSE})))
    assert first.read().paused(NOON) is None


def test_orders_that_cannot_be_read_are_no_absence_of_orders(tmp_path: Path) -> None:
    book = OrderBook(tmp_path)
    book.path.write_text("{")
    with pytest.raises(OperatorError, match="nothing is changed"):
        book.read()
    with pytest.raises(OperatorError):
        book.change(lambda orders: orders)
    assert book.path.read_text() == "{"
