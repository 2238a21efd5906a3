"""Vectors of texts, for models whose task is to make them."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from serve_apps.contract import ModelArgs
from serve_apps.messages import EmbeddingRequest, Embeddings, Refusal
from serve_apps.model.generation import context_length
from serve_apps.model.loading import cached_snapshot, hub_cache

TASKS = ("feature-extraction", "sentence-similarity")
BATCH_TOKENS = 4096
"""Padded tokens computed in one pass."""


class Embedder:
    """Averages a model's last hidden states over each text, or takes the token its checkpoint says.

    sentence-transformers' ``1_Pooling/config.json`` says which; without one it is the mean. Vectors are
    scaled to length 1, as OpenAI's are.
    """

    def __init__(self, model: Any, args: ModelArgs) -> None:
        self._module = model._module
        self._tokenizer = copy.deepcopy(model.tokenizer)
        self._task = args.task
        self._pooling = _pooling(args)
        self._length = context_length(self._module.config)

    def embed(self, request: EmbeddingRequest) -> Embeddings | Refusal:
        """Never raises: what goes wrong is the refusal."""
        if self._task not in TASKS or self._tokenizer is None:
            text = f"This model makes no embeddings: its task is {self._task}."
            return Refusal(message=text, param="model")
        try:
            return self._embed(request)
        except Exception as error:  # noqa: BLE001 - becomes this client's error, not a crash
            return Refusal(message=f"The model failed: {type(error).__name__}: {error}", status=500)

    def _embed(self, request: EmbeddingRequest) -> Embeddings | Refusal:
        import torch

        texts = [self._token_ids(item) for item in request.inputs]
        size = int(self._module.config.get_text_config().vocab_size)
        for number, text in enumerate(texts):
            if not text or any(not 0 <= token_id < size for token_id in text):
                said = "is empty" if not text else f"has a token id that is not between 0 and {size - 1}"
                return Refusal(message=f"Input {number} {said}.", param="input")
            if self._length is not None and len(text) > self._length:
                said = f"has {len(text)} tokens; this model takes {self._length}"
                return Refusal(
                    message=f"Input {number} {said}. Shorten it.",
                    code="context_length_exceeded",
                    param="input",
                )
        with torch.inference_mode():
            parts = [self._vectors(batch) for batch in _batches(texts)]
            vectors = torch.nn.functional.normalize(torch.cat(parts), dim=-1).cpu().contiguous()
        return Embeddings(
            width=vectors.shape[1],
            data=vectors.numpy().astype("<f4").tobytes(),
            prompt_tokens=sum(map(len, texts)),
        )

    def _token_ids(self, item: str | tuple[int, ...]) -> list[int]:
        return (
            list(self._tokenizer(item, verbose=False)["input_ids"]) if isinstance(item, str) else list(item)
        )

    def _vectors(self, texts: Sequence[Sequence[int]]) -> Any:
        import torch

        width = max(map(len, texts))
        padding = self._tokenizer.pad_token_id or 0
        ids = torch.tensor([[*text, *[padding] * (width - len(text))] for text in texts])
        mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
        ids, mask = ids.to(self._module.device), mask.to(self._module.device)
        hidden = self._module(input_ids=ids, attention_mask=mask)[0].float()
        if self._pooling == "cls":
            return hidden[:, 0]
        if self._pooling == "last":
            return hidden[torch.arange(len(texts), device=hidden.device), mask.sum(1) - 1]
        weights = mask[:, :, None].float()
        return (hidden * weights).sum(1) / weights.sum(1)


def _batches(texts: Sequence[list[int]]) -> list[list[list[int]]]:
    """In the given order, as many in one as fit when padded to the longest."""
    batches: list[list[list[int]]] = [[]]
    for text in texts:
        longest = max(len(text), *(len(other) for other in batches[-1]), 0)
        if batches[-1] and longest * (len(batches[-1]) + 1) > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(text)
    return batches


def _pooling(args: ModelArgs) -> str:
    folder = cached_snapshot(hub_cache(), args.repo_id, args.revision)
    path = folder / "1_Pooling" / "config.json" if folder is not None else None
    if path is None or not path.is_file():
        return "mean"
    said = json.loads(path.read_text())
    if said.get("pooling_mode_cls_token"):
        return "cls"
    return "last" if said.get("pooling_mode_lasttoken") else "mean"
