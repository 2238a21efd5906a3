"""What is shipped is shipped in batches, is tried again, and never grows without bound."""

from __future__ import annotations

import queue
import threading
import time

import pytest

from serve_apps.telemetry.outbox import LaterError, Outbox, RefusedError, retry_after

WAIT_SECONDS = 30.0


class Server:
    """Takes batches; fails as often as it is told to."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.batches: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self.tries: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self.open = threading.Event()
        self.open.set()

    def send(self, batch: list[str]) -> None:
        self.tries.put(batch)
        assert self.open.wait(WAIT_SECONDS)
        if self.failures:
            raise self.failures.pop(0)
        self.batches.put(batch)

    def take(self) -> list[str]:
        return self.batches.get(timeout=WAIT_SECONDS)


def outbox(server: Server, **options: object) -> Outbox[str]:
    known: dict[str, object] = {"every_seconds": 0.05} | options
    return Outbox("test", server.send, len, **known)  # type: ignore[arg-type]


def test_what_comes_close_together_goes_together() -> None:
    server = Server()
    box = outbox(server, every_seconds=0.3)
    for word in ("one", "two", "three"):
        box.put(word)
    assert server.take() == ["one", "two", "three"]
    box.close()
    assert (box.sent, box.dropped, box.waiting) == (3, 0, 0)


def test_a_batch_has_a_largest_size() -> None:
    server = Server()
    box = outbox(server, most_at_once=2)
    server.open.clear()
    for word in ("one", "two", "three"):
        box.put(word)
    server.open.set()
    assert [server.take(), server.take()] == [["one", "two"], ["three"]]
    box.close()


def test_a_server_that_is_busy_gets_the_same_batch_again_when_it_said() -> None:
    server, said = Server(LaterError("busy", 0.01)), []
    box = outbox(server, on_problem=said.append)
    box.put("one")
    assert server.take() == ["one"]
    box.close()
    assert (box.sent, box.dropped, said) == (1, 0, ["busy", ""])


def test_what_a_server_will_never_take_is_dropped_and_the_next_is_sent() -> None:
    server = Server(RefusedError("nonsense"))
    box = outbox(server)
    box.put("bad")
    assert server.tries.get(timeout=WAIT_SECONDS) == ["bad"]
    box.put("good")
    assert server.take() == ["good"]
    box.close()
    assert (box.sent, box.dropped) == (1, 1)


def test_a_fault_of_ours_ends_a_batch_and_not_the_thread() -> None:
    server = Server(ZeroDivisionError("oops"))
    box = outbox(server)
    box.put("bad")
    assert server.tries.get(timeout=WAIT_SECONDS) == ["bad"]
    box.put("good")
    assert server.take() == ["good"]
    box.close()
    assert box.dropped == 1


def test_while_the_server_is_away_the_oldest_make_room_for_the_new_and_nobody_waits() -> None:
    server = Server(*(LaterError("away", 0.01) for _ in range(3)))
    server.open.clear()
    box = outbox(server, most_bytes=100, most_at_once=5)
    began = time.monotonic()
    for number in range(1000):
        box.put(f"{number:010}")
    assert time.monotonic() - began < 5
    assert box.waiting <= 10
    server.open.set()
    seen = [line for _ in range(2) for line in server.take()]
    assert seen[-1] == f"{999:010}"
    box.close()
    assert box.sent + box.dropped == 1000
    assert box.sent <= 15


def test_what_waits_at_the_end_is_sent_and_what_cannot_be_is_counted() -> None:
    server = Server()
    box = outbox(server, every_seconds=60.0)
    box.put("last words")
    box.close()
    assert server.take() == ["last words"]

    dead = Server(*(LaterError("away", 60.0) for _ in range(9)))
    box = outbox(dead)
    box.put("unheard")
    dead.tries.get(timeout=WAIT_SECONDS)
    began = time.monotonic()
    box.close(1.0)
    assert time.monotonic() - began < 5
    box.put("too late")
    assert (box.sent, box.dropped) == (0, 2)


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("999", 60.0), (None, None), ("Wed, 21 Oct", None), ("-1", None)]
)
def test_retry_after_is_understood_in_seconds(header: str | None, seconds: float | None) -> None:
    assert retry_after(header) == seconds
