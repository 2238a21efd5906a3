"""Chooses the next token of each row of a step: all rows at once, each by its own rules and chance."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

HEAD = 2048
"""Likeliest tokens looked at first for ``top_p``; sorting a whole vocabulary takes longer than a pass."""


@dataclass(frozen=True)
class SamplingRules:
    """How one row chooses. ``temperature`` 0 is greedy; ``top_k`` 0 and ``top_p`` 1 leave out nothing.

    ``logprobs`` is how many of the likeliest tokens are told with each chosen one; None tells nothing.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None
    seed: int | None = None

    @property
    def leaves_out(self) -> bool:
        return bool(self.top_k) or self.top_p < 1

    @property
    def changes_logits(self) -> bool:
        return (
            self.repetition_penalty != 1
            or self.presence_penalty != 0
            or self.frequency_penalty != 0
            or bool(self.logit_bias)
        )


@dataclass
class RowChoice:
    """One row's rules, its source of chance, and the tokens its penalties look at."""

    rules: SamplingRules
    prompt: Sequence[int]
    generated: list[int] = field(default_factory=list)
    chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        # of its own, and not torch's: a step's other rows must not move it, nor the device
        self.chance = random.Random(self.rules.seed)


@dataclass(frozen=True)
class Chosen:
    """A token, and if asked for its log probability and the likeliest ones beside it."""

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def choose(logits: Any, rows: Sequence[RowChoice]) -> list[Chosen]:
    """The next token of each row; ``logits`` is ``[rows, vocabulary]``, float32, and may be written on.

    Log probabilities are the model's own, before temperature, penalties and bias.
    """
    told = {number: row.rules.logprobs for number, row in enumerate(rows) if row.rules.logprobs is not None}
    own = {number: logits[number].log_softmax(-1) for number in told}
    for number, row in enumerate(rows):
        if row.rules.changes_logits:
            _penalise(logits[number], row)
    tokens = logits.argmax(-1)
    drawing = [number for number, row in enumerate(rows) if row.rules.temperature > 0]
    # two ways, so that one row's top_p does not have all others' vocabularies sorted
    for ordered in (False, True):
        part = [number for number in drawing if rows[number].rules.leaves_out == ordered]
        if part:
            tokens[part] = _draw(logits[part], [rows[number] for number in part], ordered)
    chosen = []
    for number, token_id in enumerate(tokens.tolist()):
        rows[number].generated.append(token_id)
        chosen.append(_told(token_id, own[number], told[number]) if number in told else Chosen(token_id))
    return chosen


def _told(token_id: int, logprobs: Any, count: int | None) -> Chosen:
    top: tuple[tuple[int, float], ...] = ()
    if count:
        likeliest = logprobs.topk(min(count, logprobs.shape[-1]))
        top = tuple(zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True))
    return Chosen(token_id, float(logprobs[token_id]), top)


def _penalise(logits: Any, row: RowChoice) -> None:
    """OpenAI's penalties look at what was generated; transformers' repetition penalty at the prompt too."""
    import torch

    rules = row.rules
    if rules.repetition_penalty != 1:
        seen = torch.tensor(sorted({*row.prompt, *row.generated}), device=logits.device)
        values = logits[seen]
        penalty = rules.repetition_penalty
        logits[seen] = torch.where(values > 0, values / penalty, values * penalty)
    if row.generated and (rules.presence_penalty or rules.frequency_penalty):
        counted = Counter(row.generated)
        ids = torch.tensor(list(counted), device=logits.device)
        counts = torch.tensor(list(counted.values()), device=logits.device)
        logits[ids] -= rules.presence_penalty + rules.frequency_penalty * counts
    for token_id, bias in rules.logit_bias:
        logits[token_id] += bias


def _column(values: list[float], like: Any) -> Any:
    import torch

    return torch.tensor(values, device=like.device, dtype=like.dtype)[:, None]


def _draw(logits: Any, rows: Sequence[RowChoice], ordered: bool) -> Any:
    """One token of each row. ``ordered`` rows leave out their unlikely ones, which takes an order."""
    import torch

    logits = logits / _column([max(row.rules.temperature, 1e-4) for row in rows], logits)
    ids = None
    if ordered:
        probabilities, ids = _likeliest_first(logits, rows)
        before = probabilities.cumsum(-1) - probabilities
        limits = _column([row.rules.top_p for row in rows], logits)
        probabilities = probabilities.masked_fill(before >= limits, 0)
    else:
        probabilities = logits.softmax(-1)
    if any(row.rules.min_p for row in rows):
        least = probabilities.amax(-1, keepdim=True) * _column([row.rules.min_p for row in rows], logits)
        probabilities = probabilities.masked_fill(probabilities < least, 0)
    reach = probabilities.cumsum(-1)
    points = _column([row.chance.random() for row in rows], logits) * reach[:, -1:]
    places = torch.searchsorted(reach, points, right=True).clamp(max=reach.shape[-1] - 1)
    return (places if ids is None else ids.gather(-1, places))[:, 0]


def _likeliest_first(logits: Any, rows: Sequence[RowChoice]) -> tuple[Any, Any]:
    """Probabilities in falling order with their ids; what ``top_k`` leaves out is 0, the rest adds up to 1.

    Only the head of the order is made where all that any row may draw from lies in it.
    """
    import torch

    whole = logits.logsumexp(-1, keepdim=True)
    head = min(logits.shape[-1], HEAD)
    values, ids = logits.topk(head)
    shares = (values.logsumexp(-1, keepdim=True) - whole).exp()[:, 0].tolist()
    if not all(
        0 < row.rules.top_k <= head or (not row.rules.top_k and row.rules.top_p < share)
        for row, share in zip(rows, shares, strict=True)
    ):
        values, ids = logits.sort(-1, descending=True)
    limits = _column([float(row.rules.top_k or values.shape[-1]) for row in rows], logits)
    places = torch.arange(values.shape[-1], device=logits.device)[None]
    values = values.masked_fill(places >= limits, -torch.inf)
    few = torch.tensor([[bool(row.rules.top_k)] for row in rows], device=logits.device)
    return (values - torch.where(few, values.logsumexp(-1, keepdim=True), whole)).exp(), ids
