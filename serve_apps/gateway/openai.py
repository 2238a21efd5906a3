"""OpenAI's request and response bodies: what is accepted, what is refused and why. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from serve_apps.gateway.routing import Listed
from serve_apps.messages import Chunk, GenerationRequest

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 200
MAX_GENERATED_TOKENS = 1_000_000
"""Merely keeps numbers sane; the model's context is what really limits."""


def _as_stops(value: Any) -> Any:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


def _only(*allowed: Any) -> Any:
    """Accepts None and ``allowed``; everything else would change the answer and is not supported."""

    def check(value: Any) -> Any:
        if value is not None and value not in allowed:
            shown = " or ".join(repr(item) for item in allowed) or "nothing"
            raise ValueError(f"not supported here; leave it out or give {shown}")
        return value

    return AfterValidator(check)


Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
Stops = Annotated[tuple[Stop, ...], BeforeValidator(_as_stops), Field(max_length=MAX_STOPS)]


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")
    include_usage: bool = False


class _Body(BaseModel):
    """What both endpoints share. Unknown fields are ignored, as OpenAI's own clients expect."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    model: str = Field(min_length=1, max_length=2000)
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stop: Stops = ()
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    # accepted only where they change nothing
    n: Annotated[int | None, _only(1)] = None
    frequency_penalty: Annotated[float | None, _only(0)] = None
    presence_penalty: Annotated[float | None, _only(0)] = None
    logit_bias: Annotated[dict[str, float] | None, _only({})] = None

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionBody(_Body):
    """``POST /v1/completions``. One prompt: a text, or a list of token ids."""

    prompt: (
        str
        | Annotated[tuple[int, ...], Field(min_length=1)]
        | Annotated[tuple[str, ...], Field(min_length=1, max_length=1)]
    )
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_GENERATED_TOKENS)
    best_of: Annotated[int | None, _only(1)] = None
    echo: Annotated[bool | None, _only(False)] = None
    logprobs: Annotated[int | None, _only()] = None
    suffix: Annotated[str | None, _only("")] = None

    def to_request(self) -> GenerationRequest:
        text: str | None = None
        token_ids: tuple[int, ...] | None = None
        if isinstance(self.prompt, str):
            text = self.prompt
        elif isinstance(self.prompt[0], str):
            text = self.prompt[0]
        else:
            token_ids = tuple(int(token_id) for token_id in self.prompt)
        return GenerationRequest(
            prompt=text,
            token_ids=token_ids,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            stop=self.stop,
            seed=self.seed,
        )


class TextPart(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One turn. Content in parts is joined; parts that are not text are refused."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    role: str = Field(min_length=1, max_length=40)
    content: str | tuple[TextPart, ...]
    name: str | None = None

    def plain(self) -> dict[str, Any]:
        content = self.content
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return {"role": self.role, "content": text}


class ChatBody(_Body):
    """``POST /v1/chat/completions``."""

    messages: tuple[ChatMessage, ...] = Field(min_length=1, max_length=2000)
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_GENERATED_TOKENS)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MAX_GENERATED_TOKENS)
    logprobs: Annotated[bool | None, _only(False)] = None
    tools: Annotated[list[Any] | None, _only([])] = None
    response_format: Annotated[dict[str, Any] | None, _only({"type": "text"})] = None

    def to_request(self) -> GenerationRequest:
        return GenerationRequest(
            messages=tuple(message.plain() for message in self.messages),
            max_tokens=self.max_completion_tokens or self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            stop=self.stop,
            seed=self.seed,
        )


def usage(last: Chunk) -> dict[str, int]:
    return {
        "prompt_tokens": last.prompt_tokens,
        "completion_tokens": last.completion_tokens,
        "total_tokens": last.prompt_tokens + last.completion_tokens,
    }


class Shape:
    """The bodies of one answer; ``chat`` tells the two endpoints' shapes apart."""

    def __init__(self, chat: bool, answer_id: str, created: int, model: str) -> None:
        self._chat = chat
        self._base = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{answer_id}",
            "created": created,
            "model": model,
        }

    def whole(self, answer: Chunk) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": answer.finish_reason, "logprobs": None}
        if self._chat:
            choice["message"] = {"role": "assistant", "content": answer.text}
        else:
            choice["text"] = answer.text
        kind = "chat.completion" if self._chat else "text_completion"
        return {**self._base, "object": kind, "choices": [choice], "usage": usage(answer)}

    def first(self) -> dict[str, Any] | None:
        """What opens a stream: chat names the speaker before the first word."""
        return self._piece({"role": "assistant", "content": ""}, None) if self._chat else None

    def piece(self, chunk: Chunk) -> dict[str, Any]:
        if self._chat:
            return self._piece({"content": chunk.text} if chunk.text else {}, chunk.finish_reason)
        return self._piece(chunk.text, chunk.finish_reason)

    def counts(self, last: Chunk) -> dict[str, Any]:
        """What ends a stream whose client asked for usage."""
        return {**self._base, "object": self._stream_kind, "choices": [], "usage": usage(last)}

    @property
    def _stream_kind(self) -> str:
        return "chat.completion.chunk" if self._chat else "text_completion"

    def _piece(self, content: Any, finish_reason: str | None) -> dict[str, Any]:
        key = "delta" if self._chat else "text"
        choice = {"index": 0, key: content, "finish_reason": finish_reason, "logprobs": None}
        return {**self._base, "object": self._stream_kind, "choices": [choice]}


def error_body(message: str, code: str | None, status: int, param: str | None = None) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 and status != 429 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def model_body(item: Listed) -> dict[str, Any]:
    """A model in OpenAI's list, with what a client here may want to know besides."""
    extras = {
        "state": item.state,
        "start": item.start.isoformat() if item.start else None,
        "until": item.until.isoformat() if item.until else None,
        "aliases": list(item.names[1:]),
        "reason": item.reason,
    }
    # OpenAI's clients want a creation time; a booked model has none
    return {"id": item.name, "object": "model", "created": 0, "owned_by": "ndif", **extras}
