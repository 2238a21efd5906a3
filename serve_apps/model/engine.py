"""Shares one model between all who want it: texts grow side by side, step by step, and whoever needs the
model alone gets it between two steps."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from serve_apps.messages import Refusal
from serve_apps.model.rows import Rows
from serve_apps.model.sampling import Chosen, choose
from serve_apps.model.texts import Text

logger = logging.getLogger("ray.serve")

MAX_ROWS = 32
"""Texts that grow side by side; more wait."""
GROWTH_TOKENS = 256
"""How far ahead a text's length is reckoned when it is decided whether another one still fits."""
STEPS_BETWEEN = 8
"""Most steps that the texts get after somebody had the model alone while the next already waits."""

Work = Callable[[], None]


class Load(NamedTuple):
    """How many texts grow and wait, and how many wait to have the model alone."""

    growing: int
    waiting: int
    alone: int


class Engine:
    """A thread that owns the model.

    Texts enter when there is a row for them, read their prompt in parts of ``prompt_tokens`` a step,
    and grow by one token a step. Work that needs the model alone runs whole, in order of arrival:
    at once when the texts had their turn since the last, else after as long as that took, at most
    ``STEPS_BETWEEN`` steps. So neither waits for the other longer than one turn.
    """

    def __init__(self, rows: Rows | None, prompt_tokens: int, memory_bytes: int) -> None:
        self._rows = rows
        self._prompt_tokens = prompt_tokens
        self._memory_bytes = memory_bytes
        self._changed = threading.Condition()
        self._arrived: deque[Text] = deque()
        self._alone: deque[Work] = deque()
        self._reading: list[Text] = []
        self._growing: list[Text] = []
        self._long_next = False
        # what the texts are owed since somebody had the model alone
        self._steps_due = 0
        self._steps_left = 0
        self._texts_until = 0.0
        self._closed = False
        self.fatal: str | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, texts: list[Text]) -> None:
        """Takes texts in; they tell all that follows through their ``emit``, in the engine's thread."""
        with self._changed:
            self._arrived.extend(texts)
            self._changed.notify()

    def alone(self, work: Work) -> None:
        """Runs ``work``, which must not raise, in the engine's thread while no text is computed."""
        with self._changed:
            self._alone.append(work)
            self._changed.notify()

    @property
    def load(self) -> Load:
        """How busy it is."""
        with self._changed:
            texts = len(self._reading) + len(self._growing)
            return Load(texts, len(self._arrived), len(self._alone))

    def withdraw(self, work: Work) -> bool:
        """Takes work back that has not begun; False if it has."""
        with self._changed:
            if work not in self._alone:
                return False
            self._alone.remove(work)
            return True

    def close(self) -> None:
        """Ends the thread after its present step."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        import torch

        with torch.inference_mode():
            while (turn := self._wait()) is not None:
                turn()

    def _wait(self) -> Work | None:
        """Whose turn it is, once it is somebody's; None at the end."""
        with self._changed:
            while True:
                if self._closed:
                    return None
                texts = bool(self._arrived or self._reading or self._growing)
                if self._alone and not (texts and self._texts_come_first()):
                    work = self._alone.popleft()
                    return lambda: self._run_alone(work)
                if texts:
                    self._steps_due, self._steps_left = 0, max(0, self._steps_left - 1)
                    return self._step
                self._changed.wait()

    def _texts_come_first(self) -> bool:
        return bool(self._steps_due or (self._steps_left and time.monotonic() < self._texts_until))

    def _run_alone(self, work: Work) -> None:
        import torch

        began = time.monotonic()
        try:
            with torch.inference_mode(False):
                work()
        except Exception as error:
            # whoever gave it does not see to its failures: nobody may wait for ever on a thread that is gone
            logger.exception("work that had the model alone failed")
            self.fatal = f"{type(error).__name__}: {error}"
        self._steps_due, self._steps_left = 1, STEPS_BETWEEN
        self._texts_until = 2 * time.monotonic() - began

    def _step(self) -> None:
        """One token for every text that grows, and one part of the prompts of those that read."""
        try:
            self._leave()
            self._enter()
            self._read()
            self._grow()
        except Exception as error:  # noqa: BLE001 - becomes the texts' error, not the end of the thread
            self._fail([*self._reading, *self._growing], error)

    def _leave(self) -> None:
        for text in [text for text in [*self._reading, *self._growing] if text.cancelled.is_set()]:
            self._drop(text)

    def _enter(self) -> None:
        with self._changed:
            while self._arrived and len(self._reading) + len(self._growing) < MAX_ROWS:
                text = self._arrived[0]
                if not text.cancelled.is_set():
                    if not self._fits(text):
                        return
                    self._reading.append(text)
                self._arrived.popleft()

    def _fits(self, text: Text) -> bool:
        inside = [*self._reading, *self._growing]
        if self._rows is None or not inside:
            return True
        width = max(_soon(other) for other in [*inside, text])
        return self._rows.bytes_for(len(inside) + 1, width) <= self._memory_bytes

    def _read(self) -> None:
        """Shows prompts to the model: short ones together, or a part of a long one."""
        whole = [text for text in self._reading if not text.shown and self._is_short(text)]
        long = [text for text in self._reading if text not in whole]
        together: list[Text] = []
        for text in sorted(whole, key=lambda text: len(text.unread)):
            if len(text.unread) * (len(together) + 1) > self._prompt_tokens:
                break
            together.append(text)
        # in turns, so that a long prompt gets on while short ones keep coming
        self._long_next = bool(long and (self._long_next or not together))
        if self._long_next:
            self._tried(long[:1], partial(self._show, long[0]))
        elif together:
            self._tried(together, lambda: self._begin(together))
        self._long_next = bool(long) and not self._long_next

    def _is_short(self, text: Text) -> bool:
        return len(text.choice.token_ids) <= self._prompt_tokens

    def _begin(self, texts: list[Text]) -> None:
        logits = self._known_rows.begin(texts, [text.choice.token_ids for text in texts])
        self._first_tokens(texts, logits)

    def _show(self, text: Text) -> None:
        part = text.unread[: self._prompt_tokens]
        logits = self._known_rows.show(text, part, len(part) < len(text.unread))
        text.shown += len(part)
        if logits is not None:
            self._first_tokens([text], logits[None])

    def _first_tokens(self, texts: list[Text], logits: Any) -> None:
        for text, chosen in zip(texts, choose(logits, [text.row for text in texts]), strict=True):
            self._reading.remove(text)
            self._take(text, chosen)

    def _tried(self, texts: list[Text], pass_: Callable[[], None]) -> None:
        try:
            pass_()
        except Exception as error:  # noqa: BLE001 - the other texts go on
            self._fail(texts, error)

    def _grow(self) -> None:
        texts = list(self._growing)
        if not texts:
            return
        logits = self._known_rows.step(texts, [text.row.generated[-1] for text in texts])
        for text, chosen in zip(texts, choose(logits, [text.row for text in texts]), strict=True):
            self._take(text, chosen)

    def _take(self, text: Text, chosen: Chosen) -> None:
        if text.take(chosen):
            self._drop(text)
        elif text not in self._growing:
            self._growing.append(text)

    def _drop(self, text: Text) -> None:
        for texts in (self._reading, self._growing):
            if text in texts:
                texts.remove(text)
        self._known_rows.drop(text)

    def _fail(self, texts: list[Text], error: Exception) -> None:
        logger.error("generation failed", exc_info=error)
        said = f"{type(error).__name__}: {error}"
        # after these CUDA answers nothing any more; running out of memory is not one of them
        if "CUDA error" in str(error) and "out of memory" not in str(error):
            self.fatal = said
        for text in texts:
            self._drop(text)
            text.fail(Refusal(message=f"The model failed: {said}", status=500))

    @property
    def _known_rows(self) -> Rows:
        if self._rows is None:
            raise RuntimeError("This model does not generate text.")
        return self._rows


def _soon(text: Text) -> int:
    """Tokens a text will have before long; how many it will have in the end nobody knows."""
    prompt, grown = len(text.choice.token_ids), len(text.row.generated)
    return prompt + min(text.choice.max_tokens, grown + GROWTH_TOKENS)


def memory_for_rows(module: Any) -> int:
    """What the texts in progress may hold in bytes: a part of what is planned beside the weights."""
    weights = sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())
    return int(256 * 1024**2 + weights // 10)
