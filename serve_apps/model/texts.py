"""A text in progress: the tokens of one choice, what of them is told, and when it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from serve_apps.messages import Chunk, FinishReason, Refusal, TokenLogprob
from serve_apps.model.detokenize import Decode, TextStream
from serve_apps.model.sampling import Chosen, RowChoice, SamplingRules

Emit = Callable[[Chunk | Refusal], None]


@dataclass(frozen=True)
class Choice:
    """A choice that can be generated: its prompt as tokens, its limits and rules.

    ``prompt_tokens`` is what its last chunk counts: 0 for all choices of a prompt but the first.
    """

    index: int
    token_ids: tuple[int, ...]
    prompt_tokens: int
    max_tokens: int
    stop: tuple[str, ...]
    rules: SamplingRules


@dataclass(eq=False)
class Text:
    """One choice while it is generated. ``emit`` gets its pieces, its last chunk, or a refusal.

    Nothing is told after ``cancelled``. ``shown`` counts the prompt's tokens the model has read.
    """

    choice: Choice
    emit: Emit
    cancelled: threading.Event
    decode: Decode
    end_ids: frozenset[int]
    row: RowChoice = field(init=False)
    shown: int = 0

    def __post_init__(self) -> None:
        self.row = RowChoice(self.choice.rules, self.choice.token_ids)
        self._stream = TextStream(self.decode, self.choice.stop)
        self._told: list[TokenLogprob] = []

    @property
    def unread(self) -> Sequence[int]:
        return self.choice.token_ids[self.shown :]

    def take(self, chosen: Chosen) -> bool:
        """Takes the next token and tells what is certain of the text; True when the text has ended."""
        ended = chosen.token_id in self.end_ids
        piece = self._stream.push(chosen.token_id)
        if chosen.logprob is not None and not ended:
            self._told.append(self._as_text(chosen, chosen.logprob))
        if ended or self._stream.stopped or len(self.row.generated) >= self.choice.max_tokens:
            self._finish(piece, "stop" if ended or self._stream.stopped else "length")
            return True
        if piece:
            self.emit(Chunk(text=piece, index=self.choice.index, logprobs=self._take_told()))
        return False

    def fail(self, refusal: Refusal) -> None:
        self.emit(refusal)

    def _finish(self, piece: str, reason: FinishReason) -> None:
        rest = piece + self._stream.finish()
        if self._stream.stopped:
            reason = "stop"
        self.emit(
            Chunk(
                text=rest,
                finish_reason=reason,
                prompt_tokens=self.choice.prompt_tokens,
                completion_tokens=len(self.row.generated),
                index=self.choice.index,
                logprobs=self._take_told(),
            )
        )

    def _take_told(self) -> tuple[TokenLogprob, ...]:
        told, self._told = tuple(self._told), []
        return told

    def _as_text(self, chosen: Chosen, logprob: float) -> TokenLogprob:
        top = tuple((self.decode([token_id]), value) for token_id, value in chosen.top)
        return TokenLogprob(self.decode([chosen.token_id]), logprob, top)
