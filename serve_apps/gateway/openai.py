"""OpenAI's request and response bodies: what is accepted, what is refused and why. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from serve_apps.gateway.routing import Listed
from serve_apps.messages import EmbeddingRequest, GenerationRequest

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 200
MAX_CHOICES = 128
MAX_PROMPTS = 128
MAX_LOGPROBS = 20
MAX_BIASES = 1000
MAX_INPUTS = 2048
"""Texts in one request for embeddings, as OpenAI takes them."""
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


Penalty = Annotated[float | None, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]
TokenIds = Annotated[tuple[int, ...], Field(min_length=1)]


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
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    frequency_penalty: Penalty = None
    presence_penalty: Penalty = None
    logit_bias: dict[int, Bias] | None = Field(default=None, max_length=MAX_BIASES)

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def shared(self) -> dict[str, Any]:
        """The fields of a ``GenerationRequest`` that both endpoints fill alike."""
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "stop": self.stop,
            "seed": self.seed,
            "n": self.n or 1,
            "presence_penalty": self.presence_penalty or 0,
            "frequency_penalty": self.frequency_penalty or 0,
            "logit_bias": tuple((self.logit_bias or {}).items()),
        }


class CompletionBody(_Body):
    """``POST /v1/completions``. One or several prompts, each a text or a list of token ids."""

    prompt: (
        str
        | TokenIds
        | Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Annotated[tuple[TokenIds, ...], Field(min_length=1, max_length=MAX_PROMPTS)]
    )
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_GENERATED_TOKENS)
    logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    # accepted only where they change nothing
    best_of: Annotated[int | None, _only(1)] = None
    echo: Annotated[bool | None, _only(False)] = None
    suffix: Annotated[str | None, _only("")] = None

    def to_request(self) -> GenerationRequest:
        return GenerationRequest(
            **self._prompts(), max_tokens=self.max_tokens, logprobs=self.logprobs, **self.shared()
        )

    def _prompts(self) -> dict[str, Any]:
        if isinstance(self.prompt, str):
            return {"prompt": self.prompt}
        if isinstance(self.prompt[0], int):
            return {"token_ids": self.prompt}
        if len(self.prompt) > 1:
            return {"prompts": self.prompt}
        only = self.prompt[0]
        return {"prompt": only} if isinstance(only, str) else {"token_ids": only}


class TextPart(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One turn. Content in parts is joined; parts that are not text are refused."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    role: str = Field(min_length=1, max_length=40)
    content: str | tuple[TextPart, ...] | None = None
    name: str | None = None

    def plain(self) -> dict[str, Any]:
        content = self.content or ""
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return {"role": self.role, "content": text}


class ChatBody(_Body):
    """``POST /v1/chat/completions``."""

    messages: tuple[ChatMessage, ...] = Field(min_length=1, max_length=2000)
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_GENERATED_TOKENS)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MAX_GENERATED_TOKENS)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    # accepted only where they change nothing
    tools: Annotated[list[Any] | None, _only([])] = None
    response_format: Annotated[dict[str, Any] | None, _only({"type": "text"})] = None

    def to_request(self) -> GenerationRequest:
        return GenerationRequest(
            messages=tuple(message.plain() for message in self.messages),
            max_tokens=self.max_completion_tokens or self.max_tokens,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            **self.shared(),
        )


class EmbeddingBody(BaseModel):
    """``POST /v1/embeddings``. One or several inputs, each a text or a list of token ids."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    model: str = Field(min_length=1, max_length=2000)
    input: (
        str
        | TokenIds
        | Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_INPUTS)]
        | Annotated[tuple[TokenIds, ...], Field(min_length=1, max_length=MAX_INPUTS)]
    )
    encoding_format: Literal["float", "base64"] = "float"
    # accepted only where it changes nothing
    dimensions: Annotated[int | None, _only()] = None

    def to_request(self) -> EmbeddingRequest:
        single = isinstance(self.input, str) or isinstance(self.input[0], int)
        return EmbeddingRequest.model_validate({"inputs": (self.input,) if single else self.input})


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
