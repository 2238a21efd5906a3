"""The reservation: one occurrence of one calendar event, as read from a calendar."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

Dtype = Literal["float32", "bfloat16", "float16", "int8"]
"""What weights are kept in; ``int8`` is reckoned with in bfloat16."""

MODEL_CLASS = "nnsight.modeling.transformers.TransformersModel"
"""The nnsight class every model is served with; the part of a model key before its colon."""

MAX_REPLICAS = 64
MAX_GPUS = 1024
MAX_PRIORITY = 1000
MAX_ACCELERATOR_CHARACTERS = 64
ACCELERATOR = "[A-Za-z0-9](?:[A-Za-z0-9 -]*[A-Za-z0-9])?"
"""How a kind of GPU may be called: letters, digits, spaces and dashes."""


def _to_utc(value: datetime) -> datetime:
    return value.astimezone(UTC)


UtcDatetime = Annotated[AwareDatetime, AfterValidator(_to_utc)]
"""An instant. Naive values are rejected; every accepted one is converted to UTC."""


class Frozen(BaseModel):
    """Base of all values here: immutable, hashable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy in which some fields are others; what was worked out of them before is worked out anew."""
        copied = super().model_copy(update=update, deep=deep)
        if update:
            for name in copied.__dict__.keys() - type(self).model_fields.keys():
                del copied.__dict__[name]
        return copied


Accelerator = Annotated[str, Field(max_length=MAX_ACCELERATOR_CHARACTERS, pattern=f"^{ACCELERATOR}$")]


class ModelRequest(Frozen):
    """What an event asks for, as written: not yet looked up in any catalog.

    ``model`` is an alias (``SmolLM2-135M-Instruct``) or a Hugging Face repo id
    (``HuggingFaceTB/SmolLM2-135M-Instruct``). ``None`` means "not said: use the default".
    ``gpus`` is the number of whole GPUs one replica asks for, ``accelerator`` their kind (``H100``).
    ``private``: only the people of the event may use the model.
    """

    model: str = Field(min_length=1, max_length=200)
    revision: str | None = Field(default=None, min_length=1, max_length=200)
    task: str | None = Field(default=None, min_length=1, max_length=64)
    trust_remote_code: bool = False
    replicas: int = Field(default=1, ge=1, le=MAX_REPLICAS)
    dtype: Dtype | None = None
    gpus: int | None = Field(default=None, ge=1, le=MAX_GPUS)
    accelerator: Accelerator | None = None
    priority: int = Field(default=0, ge=-MAX_PRIORITY, le=MAX_PRIORITY)
    private: bool = False


class Reservation(Frozen):
    """One occurrence of one event: a model, asked for during ``[start, end)``.

    ``key`` names the occurrence and survives edits of its time: calendar event id plus, for an
    instance of a series, the start its series gave it. ``booked_at`` is when the event was
    created. ``title`` is the person's own words. ``people`` are the mail addresses of the owner and of
    those invited who have not declined, in lower case.
    """

    key: str
    calendar: str
    title: str
    start: UtcDatetime
    end: UtcDatetime
    booked_at: UtcDatetime
    owner: str | None = None
    people: tuple[str, ...] = ()
    request: ModelRequest

    # of a field: one of the whole would be run again wherever a reservation is put into another value
    @field_validator("end")
    @classmethod
    def _end_follows_start(cls, end: datetime, info: ValidationInfo) -> datetime:
        start = info.data.get("start")
        if start is not None and end <= start:
            raise ValueError(f"end {end.isoformat()} is not after start {start.isoformat()}")
        return end

    @property
    def private_to(self) -> tuple[str, ...] | None:
        """Who may use the model; None for everybody, empty for nobody."""
        if not self.request.private:
            return None
        return tuple(sorted({*self.people, *([self.owner] if self.owner else ())}))


class Misunderstood(Frozen):
    """An event that could not be turned into a reservation, and what its author can do about it.

    ``reason`` says what is wrong in one sentence, naming the field and the value; ``example`` is
    text that would work in its place. ``start`` and ``end`` are None where they are what is wrong.
    """

    key: str
    calendar: str
    title: str
    start: UtcDatetime | None = None
    end: UtcDatetime | None = None
    owner: str | None = None
    reason: str
    example: str


class Reading(Frozen):
    """Everything one calendar said about a window: what was understood, and what was not."""

    calendar: str
    reservations: tuple[Reservation, ...] = ()
    misunderstood: tuple[Misunderstood, ...] = ()
