"""OpenAI's answers: what a client reads of what a model said. Pure."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Any

from serve_apps.messages import Chunk, Embeddings, TokenLogprob


def usage(ends: Sequence[Chunk]) -> dict[str, int]:
    """The counts of an answer, from the last chunk of each of its choices."""
    prompt = sum(end.prompt_tokens for end in ends)
    completion = sum(end.completion_tokens for end in ends)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


class Shape:
    """The bodies of one answer; ``chat`` tells the two endpoints' shapes apart.

    Of a stream it remembers which choices have begun, how long each is, and their ends.
    """

    def __init__(
        self,
        chat: bool,
        answer_id: str,
        created: int,
        model: str,
        logprobs: bool = False,
        usage: bool = False,
    ) -> None:
        self._chat = chat
        self._logprobs = logprobs
        self._usage = usage
        self._lengths: dict[int, int] = {}
        self._ends: list[Chunk] = []
        self._base = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{answer_id}",
            "created": created,
            "model": model,
        }

    def whole(self, answer: Chunk) -> dict[str, Any]:
        chunks = (answer, *answer.others)
        choices = []
        for index, chunk in enumerate(chunks):
            choice: dict[str, Any] = {"index": index, "finish_reason": chunk.finish_reason}
            choice["logprobs"] = self._told(chunk, 0)
            if self._chat:
                choice["message"] = {"role": "assistant", "content": chunk.text}
            else:
                choice["text"] = chunk.text
            choices.append(choice)
        kind = "chat.completion" if self._chat else "text_completion"
        return {**self._base, "object": kind, "choices": choices, "usage": usage(chunks)}

    def pieces(self, chunk: Chunk) -> list[dict[str, Any]]:
        """The events of one chunk; chat names the speaker of a choice before its first word."""
        found = []
        if self._chat and chunk.index not in self._lengths:
            found.append(self._piece(chunk.index, {"role": "assistant", "content": ""}, None, None))
        told = self._told(chunk, self._lengths.get(chunk.index, 0))
        self._lengths[chunk.index] = self._lengths.get(chunk.index, 0) + len(chunk.text)
        content: Any = chunk.text
        if self._chat:
            content = {"content": chunk.text} if chunk.text else {}
        found.append(self._piece(chunk.index, content, chunk.finish_reason, told))
        if chunk.finish_reason is not None:
            self._ends.append(chunk)
        return found

    def last(self) -> dict[str, Any] | None:
        """What ends a stream whose client asked for usage."""
        if not self._usage:
            return None
        return {**self._base, "object": self._stream_kind, "choices": [], "usage": usage(self._ends)}

    @property
    def _stream_kind(self) -> str:
        return "chat.completion.chunk" if self._chat else "text_completion"

    def _piece(self, index: int, content: Any, finish_reason: str | None, told: Any) -> dict[str, Any]:
        key = "delta" if self._chat else "text"
        choice = {"index": index, key: content, "finish_reason": finish_reason, "logprobs": told}
        body = {**self._base, "object": self._stream_kind, "choices": [choice]}
        return {**body, "usage": None} if self._usage else body

    def _told(self, chunk: Chunk, offset: int) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        if self._chat:
            return {"content": [_chat_token(token) for token in chunk.logprobs], "refusal": None}
        offsets = []
        for token in chunk.logprobs:
            offsets.append(offset)
            offset += len(token.text)
        return {
            "tokens": [token.text for token in chunk.logprobs],
            "token_logprobs": [token.logprob for token in chunk.logprobs],
            # tokens of incomplete characters look alike: the likeliest of them is told
            "top_logprobs": [dict(reversed(token.top)) for token in chunk.logprobs],
            "text_offset": offsets,
        }


def _chat_token(token: TokenLogprob) -> dict[str, Any]:
    def one(text: str, logprob: float) -> dict[str, Any]:
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    return {**one(token.text, token.logprob), "top_logprobs": [one(*other) for other in token.top]}


def embedding_body(model: str, found: Embeddings, as_base64: bool) -> dict[str, Any]:
    """The list of vectors: as numbers, or each as the base64 of its little-endian float32."""
    size = 4 * found.width
    data = []
    for index in range(len(found.data) // size):
        raw = found.data[index * size : (index + 1) * size]
        vector = base64.b64encode(raw).decode() if as_base64 else list(struct.unpack(f"<{found.width}f", raw))
        data.append({"object": "embedding", "index": index, "embedding": vector})
    counts = {"prompt_tokens": found.prompt_tokens, "total_tokens": found.prompt_tokens}
    return {"object": "list", "model": model, "data": data, "usage": counts}
