"""Texts that grow side by side, and whoever needs the model alone: turns, failures, leaving."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest

from serve_apps.messages import Chunk, Refusal
from serve_apps.model import engine as engine_module
from serve_apps.model.engine import Engine
from serve_apps.model.sampling import SamplingRules
from serve_apps.model.texts import Choice, Text
from tests.lazily import Lazily

torch = Lazily("torch")

VOCABULARY = 8


class CountingRows:
    """Rows whose next token is always 1. ``log`` notes the passes; ``gate`` lets them happen."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.gate = threading.Semaphore(10**6)
        self.known: set[object] = set()
        self.broken: set[str] = set()

    def bytes_for(self, rows: int, tokens: int) -> int:
        return 100 * rows

    def begin(self, rows: Sequence[object], prompts: Sequence[Sequence[int]]) -> Any:
        self._pass("begin", tuple(map(len, prompts)))
        self.known.update(rows)
        return self._logits(len(rows))

    def show(self, row: object, token_ids: Sequence[int], more: bool) -> Any:
        self._pass("show", len(token_ids))
        self.known.add(row)
        return None if more else self._logits(1)[0]

    def step(self, rows: Sequence[object], token_ids: Sequence[int]) -> Any:
        self._pass("step", len(rows))
        return self._logits(len(rows))

    def drop(self, row: object) -> None:
        self.known.discard(row)

    def _pass(self, kind: str, size: Any) -> None:
        assert self.gate.acquire(timeout=20)
        self.log.append((kind, size))
        if kind in self.broken:
            raise RuntimeError(f"{kind} broke")

    def _logits(self, rows: int) -> Any:
        return torch.eye(VOCABULARY)[1].repeat(rows, 1)


class Reader:
    """What one text tells."""

    def __init__(self) -> None:
        self.parts: list[Chunk | Refusal] = []
        self.ended = threading.Event()

    def emit(self, part: Chunk | Refusal) -> None:
        self.parts.append(part)
        if isinstance(part, Refusal) or part.finish_reason is not None:
            self.ended.set()

    def wait(self) -> Chunk | Refusal:
        assert self.ended.wait(20)
        return self.parts[-1]


@pytest.fixture
def rows() -> CountingRows:
    return CountingRows()


@pytest.fixture
def engine(rows: CountingRows) -> Iterator[Engine]:
    running = Engine(rows, prompt_tokens=10, memory_bytes=10**6)
    yield running
    rows.gate.release(10**6)
    running.close()


def text(reader: Reader, prompt: int = 3, tokens: int = 5, cancelled: threading.Event | None = None) -> Text:
    choice = Choice(0, tuple(range(prompt)), prompt, tokens, (), SamplingRules(temperature=0))
    decode: Callable[[Sequence[int]], str] = lambda ids: "x" * len(ids)  # noqa: E731
    return Text(choice, reader.emit, cancelled or threading.Event(), decode, frozenset())


def test_texts_that_come_together_grow_together(engine: Engine, rows: CountingRows) -> None:
    readers = [Reader() for _ in range(3)]
    engine.submit([text(reader) for reader in readers])
    assert all(isinstance(reader.wait(), Chunk) for reader in readers)
    assert rows.log == [("begin", (3, 3, 3)), *[("step", 3)] * 4]
    assert not rows.known


def test_one_that_comes_later_joins_and_the_first_to_end_leaves(engine: Engine, rows: CountingRows) -> None:
    rows.gate = threading.Semaphore(3)
    first, second = Reader(), Reader()
    engine.submit([text(first, tokens=6)])
    while len(rows.log) < 3:
        assert not first.ended.wait(0.01)
    engine.submit([text(second, tokens=2)])
    rows.gate.release(100)
    first.wait()
    second.wait()
    assert ("step", 2) in rows.log and rows.log[-1] == ("step", 1)


def test_a_long_prompt_is_read_in_parts_between_steps(engine: Engine, rows: CountingRows) -> None:
    rows.gate = threading.Semaphore(2)
    short, long = Reader(), Reader()
    engine.submit([text(short, tokens=8)])
    while len(rows.log) < 2:
        assert not short.ended.wait(0.01)
    engine.submit([text(long, prompt=25, tokens=2)])
    rows.gate.release(100)
    short.wait()
    long.wait()
    shows = [number for number, (kind, _) in enumerate(rows.log) if kind == "show"]
    assert [rows.log[number][1] for number in shows] == [10, 10, 5]
    assert all(rows.log[number + 1][0] == "step" for number in shows)


def test_short_prompts_do_not_starve_a_long_one(engine: Engine, rows: CountingRows) -> None:
    rows.gate = threading.Semaphore(0)
    long, others = Reader(), [Reader() for _ in range(30)]
    engine.submit([text(long, prompt=25, tokens=1), *(text(reader, prompt=9, tokens=1) for reader in others)])
    rows.gate.release(8)
    assert isinstance(long.wait(), Chunk)
    assert not all(reader.ended.is_set() for reader in others)


def test_work_alone_waits_for_one_step_and_texts_for_one_work(engine: Engine, rows: CountingRows) -> None:
    rows.gate = threading.Semaphore(2)
    reader, done = Reader(), threading.Event()
    engine.submit([text(reader, tokens=12)])
    while len(rows.log) < 2:
        assert not reader.ended.wait(0.01)
    for number in range(3):
        engine.alone(lambda number=number: rows.log.append(("alone", number)))
    engine.alone(done.set)
    rows.gate.release(100)
    assert done.wait(20)
    reader.wait()
    turns = [entry[0] for entry in rows.log]
    # at once, after the step that was under way, and then in turns
    assert turns.index("alone") <= 3
    places = [number for number, kind in enumerate(turns) if kind == "alone"]
    between = [later - earlier - 1 for earlier, later in pairwise(places)]
    assert all(1 <= steps <= engine_module.STEPS_BETWEEN for steps in between)


def test_work_that_was_withdrawn_never_runs(engine: Engine, rows: CountingRows) -> None:
    rows.gate = threading.Semaphore(0)
    reader = Reader()
    engine.submit([text(reader)])
    ran: list[int] = []
    work = lambda: ran.append(1)  # noqa: E731
    engine.alone(work)
    # the engine stands in the first pass, or has not begun: either way this comes first or not at all
    withdrawn = engine.withdraw(work)
    rows.gate.release(100)
    reader.wait()
    assert ran == ([] if withdrawn else [1])


def test_a_pass_that_fails_ends_its_texts_and_no_others(engine: Engine, rows: CountingRows) -> None:
    rows.broken = {"step"}
    first, second = Reader(), Reader()
    engine.submit([text(first)])
    refusal = first.wait()
    assert isinstance(refusal, Refusal) and refusal.status == 500 and "step broke" in refusal.message
    assert len([part for part in first.parts if isinstance(part, Refusal)]) == 1
    rows.broken = set()
    engine.submit([text(second)])
    assert isinstance(second.wait(), Chunk) and engine.fatal is None
    assert not rows.known


def test_one_who_leaves_makes_room(engine: Engine, rows: CountingRows) -> None:
    rows.gate = threading.Semaphore(2)
    left, gone, stays = threading.Event(), Reader(), Reader()
    engine.submit([text(gone, tokens=1000, cancelled=left), text(stays, tokens=6)])
    while len(rows.log) < 2:
        assert not stays.ended.wait(0.01)
    left.set()
    rows.gate.release(100)
    stays.wait()
    assert rows.log[-1] == ("step", 1) and not gone.ended.is_set()


def test_texts_wait_while_there_is_no_memory_for_them(rows: CountingRows) -> None:
    engine = Engine(rows, prompt_tokens=10, memory_bytes=250)
    readers = [Reader() for _ in range(5)]
    engine.submit([text(reader) for reader in readers])
    assert all(isinstance(reader.wait(), Chunk) for reader in readers)
    engine.close()
    assert max(size for kind, size in rows.log if kind == "step") == 2
