"""What travels between the gateway and a model's replicas: plain values, no torch, no nnsight.

Refusals travel as values, not as exceptions: Serve would log each as a failure of the replica, and
an exception class does not survive every hop of Ray unchanged.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

FinishReason = Literal["stop", "length"]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GenerationRequest(_Message):
    """Text to be generated from exactly one of ``prompt`` (text), ``token_ids``, ``prompts`` (several of
    either) or ``messages`` (chat).

    ``n`` choices are made of each prompt. ``max_tokens`` None means the model's default.
    ``temperature`` and ``top_p`` None mean what the checkpoint's generation config says; temperature 0
    is greedy. ``stop`` strings end the text and are not part of it. ``logprobs`` None tells none, a
    number tells each token's and those of as many of the likeliest ones.
    """

    prompt: str | None = None
    token_ids: tuple[int, ...] | None = None
    prompts: tuple[str | tuple[int, ...], ...] = ()
    messages: tuple[dict[str, Any], ...] | None = None
    n: int = Field(default=1, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: int | None = Field(default=None, ge=0)
    presence_penalty: float = 0
    frequency_penalty: float = 0
    logit_bias: tuple[tuple[int, float], ...] = ()


class TokenLogprob(NamedTuple):
    """One generated token as text, its log probability, and the likeliest tokens in its place."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


class Chunk(_Message):
    """A piece of one choice's text. A choice's last has its ``finish_reason`` and its token counts.

    Choices are numbered by ``index``, those of the first prompt first; a prompt's tokens are counted
    with its first choice. An answer given as a whole has its further choices in ``others``.
    """

    text: str
    finish_reason: FinishReason | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    others: tuple[Chunk, ...] = ()


class EmbeddingRequest(_Message):
    """Texts, or lists of token ids, to be turned into one vector each."""

    inputs: tuple[str | tuple[int, ...], ...] = Field(min_length=1)


class Embeddings(_Message):
    """Vectors of length 1 in the order of the inputs: float32, little-endian, ``width`` numbers each."""

    width: int
    data: bytes = Field(repr=False)
    prompt_tokens: int


class Refusal(_Message):
    """Why a replica did not do what was asked: the client's doing (``status`` 4xx) or its own (5xx)."""

    message: str
    status: int = 400
    code: str | None = None
    param: str | None = None


class BlockRequest(_Message):
    """A traced block of nnsight's client. ``payload`` is opened by the executor and by nobody else.

    A result of at most ``inline_limit`` bytes comes back as the finished COMPLETED frame of the
    client's protocol, a larger one as bare bytes for the client to fetch.
    """

    job_id: str
    payload: bytes = Field(repr=False)
    compress: bool
    env: dict[str, Any] = Field(default_factory=dict)
    inline_limit: int = Field(default=0, ge=0)
    limit_seconds: float = Field(default=600, gt=0)
    """Time the block may run once its turn has come; then it is ended, as an ERROR."""


class FrameKind(StrEnum):
    """What a frame of a running block carries."""

    RUNNING = "running"
    """Its turn has come. No data."""
    LOG = "log"
    """One printed line, UTF-8."""
    META = "meta"
    """What it cost, JSON with nnsight's keys; before the last frame."""
    RESULT = "result"
    """Last: the result's bytes, as the client will load them."""
    COMPLETED = "completed"
    """Last: the result inside nnsight's binary COMPLETED frame."""
    ERROR = "error"
    """Last: the traceback's text, UTF-8."""


class Frame(NamedTuple):
    kind: FrameKind
    data: bytes = b""
