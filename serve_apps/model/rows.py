"""The model's view of several texts in progress: what each has been shown so far, and its next logits.

``BatchedRows`` computes one step of all of them in one pass; ``SingleRows`` one after another, for
architectures whose state cannot be cut into rows. Which of them a model gets is tried out, not guessed.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from typing import Any, Protocol

logger = logging.getLogger("ray.serve")

MAX_APART = 0.05
"""Largest difference from the plain pass, in parts of the logits' spread, that is taken for rounding."""


class Rows(Protocol):
    """Rows are known by any hashable key. All tensors returned are float32 on the model's device."""

    def bytes_for(self, rows: int, tokens: int) -> int:
        """Memory that ``rows`` rows hold, the longest of ``tokens`` tokens; 0 where nobody knows yet."""
        ...

    def begin(self, rows: Sequence[object], prompts: Sequence[Sequence[int]]) -> Any:
        """Reads the whole prompts of new rows; logits of shape ``[rows, vocabulary]``."""
        ...

    def show(self, row: object, token_ids: Sequence[int], more: bool) -> Any:
        """Reads the next tokens of a row's prompt, a new row at its first.

        Returns the logits after the last one, shape ``[vocabulary]``, or None while ``more`` are to come.
        """
        ...

    def step(self, rows: Sequence[object], token_ids: Sequence[int]) -> Any:
        """One more token for each of ``rows``; logits of shape ``[rows, vocabulary]`` in that order."""
        ...

    def drop(self, row: object) -> None:
        """Forgets a row; nothing happens if it is not known."""
        ...


class BatchedRows:
    """Rows that share one block of memory: each has a slot, and writes on where its own text ends.

    Slots of finished rows are filled from the end, so a pass computes no row in vain.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._device = module.device
        self._dtype = module.dtype
        self._keeps = "logits_to_keep" in _known(module)
        self._order: list[object] = []
        self._lengths: list[int] = []
        self._cache = self._new_cache()

    @staticmethod
    def _new_cache() -> Any:
        # brings transformers along, which only a replica has loaded
        from serve_apps.model.slots import SlotCache

        return SlotCache()

    def bytes_for(self, rows: int, tokens: int) -> int:
        return int(self._cache.bytes_with(rows, tokens))

    def begin(self, rows: Sequence[object], prompts: Sequence[Sequence[int]]) -> Any:
        import torch

        first, width = len(self._order), max(map(len, prompts))
        self._order.extend(rows)
        self._lengths.extend(map(len, prompts))
        self._cache.room(len(self._order), width)
        self._cache.write_block(first, len(rows), width)
        positions = torch.arange(width, device=self._device)
        # what follows a shorter prompt is computed in vain; nothing of it is looked at
        tokens = [[*prompt, *[0] * (width - len(prompt))] for prompt in prompts]
        wanted = sorted({len(prompt) - 1 for prompt in prompts})
        visible = positions[None, :] <= positions[:, None]
        everywhere = positions[None].expand(len(rows), -1)
        logits = self._forward(tokens, everywhere, visible[None, None].expand(len(rows), 1, -1, -1), wanted)
        places = torch.tensor([wanted.index(len(prompt) - 1) for prompt in prompts])
        return logits[torch.arange(len(rows)), places].float()

    def show(self, row: object, token_ids: Sequence[int], more: bool) -> Any:
        import torch

        if row not in self._order:
            self._order.append(row)
            self._lengths.append(0)
        slot = self._order.index(row)
        start, count = self._lengths[slot], len(token_ids)
        seen = start + count
        self._cache.room(len(self._order), seen)
        self._cache.write_run(slot, start, count)
        positions = torch.arange(start, seen, device=self._device)
        visible = torch.arange(seen, device=self._device)[None, :] <= positions[:, None]
        logits = self._forward([list(token_ids)], positions[None], visible[None, None], [count - 1])
        self._lengths[slot] = seen
        return None if more else logits[0, 0].float()

    def step(self, rows: Sequence[object], token_ids: Sequence[int]) -> Any:
        import torch

        # the rows that take part come first, in whatever order they stand
        for target, row in enumerate(rows):
            self._swap(self._order.index(row), target)
        lengths = self._lengths[: len(rows)]
        width = max(lengths) + 1
        self._cache.room(len(self._order), width)
        positions = torch.tensor(lengths, device=self._device)
        self._cache.write_each(positions, width)
        visible = torch.arange(width, device=self._device)[None, :] <= positions[:, None]
        tokens = [[token] for token in token_ids]
        logits = self._forward(tokens, positions[:, None], visible[:, None, None], [0])
        for slot in range(len(rows)):
            self._lengths[slot] += 1
        return logits[:, 0].float()

    def drop(self, row: object) -> None:
        if row not in self._order:
            return
        self._swap(self._order.index(row), len(self._order) - 1)
        self._order.pop()
        self._lengths.pop()
        if not self._order:
            # nothing is kept from a busy hour
            self._cache = self._new_cache()

    def _swap(self, one: int, other: int) -> None:
        if one == other:
            return
        self._cache.swap(one, other, max(self._lengths[one], self._lengths[other]))
        order, lengths = self._order, self._lengths
        order[one], order[other] = order[other], order[one]
        lengths[one], lengths[other] = lengths[other], lengths[one]

    def _forward(self, token_ids: list[list[int]], positions: Any, visible: Any, wanted: list[int]) -> Any:
        """Logits of shape ``[rows, wanted, vocabulary]`` at the ``wanted`` places of the tokens given."""
        import torch

        mask = torch.zeros(visible.shape, dtype=self._dtype, device=self._device)
        mask.masked_fill_(~visible, torch.finfo(self._dtype).min)
        # on the CPU: a model on several devices has its first here and its last there
        keep = 1 if wanted == [len(token_ids[0]) - 1] else torch.tensor(wanted)
        logits = self._module(
            input_ids=torch.tensor(token_ids, device=self._device),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            **({"logits_to_keep": keep} if self._keeps else {}),
        ).logits
        return logits if self._keeps else logits[:, torch.tensor(wanted)]


class SingleRows:
    """Rows that each have transformers' own cache, whatever the architecture makes of it."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._extra = {"logits_to_keep": 1} if "logits_to_keep" in _known(module) else {}
        self._caches: dict[object, Any] = {}

    def bytes_for(self, rows: int, tokens: int) -> int:
        return 0

    def begin(self, rows: Sequence[object], prompts: Sequence[Sequence[int]]) -> Any:
        import torch

        return torch.stack([self.show(row, prompt, False) for row, prompt in zip(rows, prompts, strict=True)])

    def show(self, row: object, token_ids: Sequence[int], more: bool) -> Any:
        from transformers import DynamicCache

        if row not in self._caches:
            self._caches[row] = DynamicCache(config=self._module.config)
        logits = self._forward(row, token_ids)
        return None if more else logits

    def step(self, rows: Sequence[object], token_ids: Sequence[int]) -> Any:
        import torch

        return torch.stack([self._forward(row, [token]) for row, token in zip(rows, token_ids, strict=True)])

    def drop(self, row: object) -> None:
        self._caches.pop(row, None)

    def _forward(self, row: object, token_ids: Sequence[int]) -> Any:
        import torch

        inputs = torch.tensor([list(token_ids)], device=self._module.device)
        cache = self._caches[row]
        found = self._module(input_ids=inputs, past_key_values=cache, use_cache=True, **self._extra)
        return found.logits[0, -1].float()


def _known(module: Any) -> set[str]:
    """What the model's forward takes; nnsight put a controller in the instance's, the class has its own."""
    return set(inspect.signature(type(module).forward).parameters)


def choose_rows(module: Any) -> Rows | None:
    """The fastest kind of rows that computes what the model computes; None if neither does."""
    import torch

    candidates: list[type[BatchedRows] | type[SingleRows]] = [SingleRows]
    if _has_rows(module):
        candidates.insert(0, BatchedRows)
    with torch.inference_mode():
        for kind in candidates:
            try:
                apart = _tried(module, kind(module))
            except Exception as error:  # noqa: BLE001 - any failure means: not this kind
                logger.info("%s cannot run in %s: %s", type(module).__name__, kind.__name__, error)
                continue
            if apart <= MAX_APART:
                logger.info("%s runs in %s", type(module).__name__, kind.__name__)
                return kind(module)
            logger.info(
                "%s in %s is %.2f apart from the plain pass", type(module).__name__, kind.__name__, apart
            )
    logger.warning("%s cannot write texts step by step here; traces work", type(module).__name__)
    return None


def _has_rows(module: Any) -> bool:
    """Whether the architecture takes positions and a mask per row, and looks back without a window."""
    config = module.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return (
        {"position_ids", "attention_mask", "past_key_values"} <= _known(module)
        and kinds == {"full_attention"}
        and not windowed
        and getattr(module.config, "_attn_implementation", None) in ("sdpa", "eager")
    )


def _tried(module: Any, rows: Rows) -> float:
    """The largest difference between two rows' next logits and those of plain passes over them."""
    import torch

    size = int(module.config.get_text_config().vocab_size)
    one, two, three = ([(7 * n + start) % size for n in range(5 + start)] for start in (0, 2, 4))
    rows.show("three", three[:3], True)
    begun = rows.begin(["one", "two"], [one[:-1], two[:-1]])
    rows.show("three", three[3:-1], False)
    found = rows.step(["two", "three", "one"], [two[-1], three[-1], one[-1]])
    worst = 0.0
    texts = (one[:-1], two[:-1], two, three, one)
    for text, logits in zip(texts, [*begun, *found], strict=True):
        plain = module(input_ids=torch.tensor([text], device=module.device)).logits[0, -1].float()
        worst = max(worst, float((plain - logits).abs().max() / (plain.max() - plain.min()).clamp(min=1e-6)))
    return worst
