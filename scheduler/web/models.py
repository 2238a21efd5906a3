"""What the API answers with. Instants are ISO 8601 in UTC, sizes in bytes, durations in seconds."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from calendars.reservation import Frozen, UtcDatetime
from scheduler.store.records import PromiseState
from scheduler.types import ActionKind, DeploymentStatus, Proof, ReasonCode, ReasonKind


class BookingState(StrEnum):
    """How a booking stands, in the words of the page."""

    SERVING = "serving"
    LOADING = "loading"
    BOOKED = "booked"
    LATE = "late"
    PENDING = "pending"
    REFUSED = "refused"
    MISUNDERSTOOD = "misunderstood"


class OrderShown(Frozen):
    """Something the operator ordered."""

    kind: str = Field(description="pause, pin, evict, cordon or drain", examples=["cordon"])
    subject: str = Field(description="The model or node it is about; empty for a pause", examples=["gpu-b"])
    since: UtcDatetime
    until: UtcDatetime | None = Field(None, description="None: until it is taken back")
    words: str = Field(description="The order in a sentence", examples=["gpu-b takes nothing new."])


class CalendarShown(Frozen):
    """How one calendar is."""

    name: str = Field(examples=["lab@group.calendar.google.com"])
    readable: bool = Field(description="Whether it could be read the last time")
    read_at: UtcDatetime | None = Field(None, description="When it was last read well")
    age_seconds: float | None = Field(None, description="How old that reading was then", examples=[4.2])
    problem: str = Field("", description="Why it cannot be read, and what helps")


class DaemonShown(Frozen):
    """How the daemon is."""

    started: UtcDatetime
    passes: int = Field(description="Passes of its loop since it started", examples=[8412])
    next_pass: UtcDatetime | None = Field(None, description="When the next one comes at the latest")
    leads: bool = Field(description="Whether this daemon may act on the cluster")
    problems: tuple[str, ...] = Field((), description="What hinders it, a sentence each")
    paused: bool = Field(False, description="Whether the operator's hand brake is on")


class GatewayShown(Frozen):
    """Where models are asked."""

    url: str = Field(examples=["http://127.0.0.1:8267"])
    status: str = Field(description="Serve's word for it; empty until it was seen", examples=["RUNNING"])


class Counts(Frozen):
    """How many there are."""

    serving: int = Field(description="Models that serve", examples=[5])
    loading: int = Field(description="Models on their way", examples=[1])
    failed: int = Field(description="Models that have failed", examples=[0])
    booked: int = Field(description="Bookings that are or will be met", examples=[23])
    late: int = Field(description="Of these, bookings that will be met too late", examples=[1])
    refused: int = Field(description="Bookings that cannot be met, or are not understood", examples=[2])
    nodes: int = Field(examples=[4])
    devices: int = Field(examples=[20])


class StateShown(Frozen):
    """Everything at a glance."""

    at: UtcDatetime = Field(description="When the daemon knew this")
    version: int = Field(description="Grows whenever there is something new", examples=[8412])
    summary: str = Field(description="One sentence", examples=["1 to deploy; 2 bookings cannot be met."])
    daemon: DaemonShown
    gateway: GatewayShown
    counts: Counts
    calendars: tuple[CalendarShown, ...] = ()
    orders: tuple[OrderShown, ...] = ()
    parked: tuple[str, ...] = Field((), description="Models that are left alone for a while, a sentence each")
    away: tuple[str, ...] = Field((), description="Nodes that are gone, and may be back any moment")


class Offer(Frozen):
    """What one node could offer to a booking that was refused."""

    node: str = Field(examples=["gpu-a"])
    words: str = Field(examples=["gpu-a: 1 GPU empty of the 2 GPUs it takes, held by org/big"])


class Why(Frozen):
    """Why a booking stands as it does."""

    code: ReasonCode
    kind: ReasonKind = Field(description="What can change it: an edit, time, or nothing on this cluster")
    words: str = Field(
        description="The reason in a clause", examples=["it needs 8 GPUs empty on one node; gpu-a has 4"]
    )
    remedy: str | None = Field(None, description="What to do about it")
    more: tuple[str, ...] = Field((), description="What else is known, a sentence each; times are in UTC")
    proof: Proof | None = Field(None, description="How sure a refusal is")
    offers: tuple[Offer, ...] = Field((), description="What the nearest nodes could offer")


class BookingShown(Frozen):
    """One event, and what becomes of it."""

    id: str = Field(description="Names it, as long as it is at that time", examples=["b-3f2a9c0d1e"])
    title: str = Field(examples=["Llama-70B for the seminar"])
    model: str = Field(description="Empty where it is not known which", examples=["meta-llama/Llama-3.3-70B"])
    asks_for: str = Field("", description="What it asks for beyond its model", examples=["2 replicas"])
    owner: str | None = Field(None, description="Who booked; None for readers who may not know")
    calendar: str = Field(
        description="Empty for a private booking", examples=["lab@group.calendar.google.com"]
    )
    start: UtcDatetime | None
    end: UtcDatetime | None
    state: BookingState
    private: bool = Field(False, description="Whether it is the business of its people only")
    nodes: tuple[str, ...] = Field((), examples=[("gpu-a",)])
    ready_by: UtcDatetime | None = Field(None, description="When it is expected to serve")
    late_seconds: float = Field(0, description="How long after its start that is")
    earliest: UtcDatetime | None = Field(
        None, description="First start from which a refused one would fit for as long as it lasts"
    )
    why: Why
    book: str | None = Field(
        None, description="Google Calendar's form for a new event at the earliest slot, filled in"
    )


class ModelShown(Frozen):
    """A model on a node: one application of Ray Serve."""

    application: str = Field(description="Its name in Serve; empty for a private one")
    name: str = Field(examples=["meta-llama/Llama-3.3-70B"])
    node: str = Field(examples=["gpu-a"])
    status: DeploymentStatus
    replicas: int
    ready_replicas: int
    devices: float = Field(description="GPUs of one replica; 0 on a CPU", examples=[2.0])
    memory_bytes: int = Field(description="What all its replicas were placed for")
    since: UtcDatetime | None = Field(None, description="When it was deployed")
    until: UtcDatetime | None = Field(None, description="Until when it is booked; None if no longer")
    step: str = Field("", description="What is being done while it loads", examples=["downloading"])
    fraction: float | None = Field(None, description="How much of that is done, from 0 to 1")
    seconds: float | None = Field(None, description="For how long it has been loading")
    message: str = Field("", description="Why it failed")


class NodeShown(Frozen):
    """A node: what it has, who holds it, and what is free."""

    name: str = Field(examples=["gpu-a"])
    kind: str = Field(description="Its accelerator, or gpu, or cpu", examples=["NVIDIA-H100"])
    devices: int = Field(description="GPUs; 1 for a CPU that offers its memory", examples=[8])
    is_gpu: bool
    head: bool = Field(False, description="Whether Ray's head is there")
    total_bytes: int
    ours_bytes: int = Field(description="Held by what this service placed")
    others_bytes: int = Field(description="Held by other users of Ray")
    free_bytes: int
    open: bool = Field(True, description="Whether it takes something new")
    note: str = Field("", description="Why it offers nothing, or takes nothing new")
    models: tuple[str, ...] = ()


class ActionShown(Frozen):
    """One change that is being made."""

    kind: ActionKind
    model: str = Field(description="Empty for the gateway")
    node: str | None = None
    replicas_before: int = 0
    replicas: int = 0
    until: UtcDatetime | None = None
    done_by: UtcDatetime | None = None
    late_seconds: float = 0
    why: str


class StepShown(Frozen):
    """Something the plan will do later."""

    kind: ActionKind
    model: str
    node: str
    replicas: int
    at: UtcDatetime
    done_by: UtcDatetime
    until: UtcDatetime | None = None
    late_seconds: float = 0


class PlanShown(Frozen):
    """What is done now and later. The whole plan, for tools: ``ndif-ray plan --json``."""

    at: UtcDatetime
    summary: str = Field(examples=["Nothing to do."])
    actions: tuple[ActionShown, ...] = ()
    upcoming: tuple[StepShown, ...] = ()
    next_boundary: UtcDatetime | None = None


class PromiseShown(Frozen):
    """A booking that was admitted, and what came of it."""

    id: str
    title: str
    model: str
    owner: str | None = None
    start: UtcDatetime
    end: UtcDatetime
    state: PromiseState
    ready_at: UtcDatetime | None = None
    lateness_seconds: float | None = None
    broken_why: str | None = None
    private: bool = False


class PromisesShown(Frozen):
    """How well promises are kept. ``share_kept`` is of those that are due; None where none is."""

    since: UtcDatetime
    due: int
    kept: int
    late: int
    broken: int
    share_kept: float | None = Field(None, examples=[0.98])
    lateness_seconds_p95: float | None = Field(None, description="Of those that were kept or late")
    promises: tuple[PromiseShown, ...] = ()


class PastPlan(Frozen):
    """A plan that changed something, or was meant to."""

    number: int
    at: UtcDatetime
    summary: str
    actions: tuple[str, ...]
    outcome: str = Field(examples=["applied"])
    detail: str = ""
    seconds: float | None = None


class PastChange(Frozen):
    """From an instant on, this was said of a booking."""

    at: UtcDatetime
    title: str
    model: str
    state: str
    text: str


class LoadShown(Frozen):
    """How long a model takes to load on a kind of node."""

    model: str
    node_kind: str
    tier: str
    count: int
    seconds_p50: float
    seconds_p95: float
    seconds_last: float


class HistoryShown(Frozen):
    """What was done and said."""

    since: UtcDatetime
    plans: tuple[PastPlan, ...] = ()
    changes: tuple[PastChange, ...] = ()
    orders: tuple[OrderShown, ...] = ()
    load_times: tuple[LoadShown, ...] = ()


class Affected(Frozen):
    """A booking of somebody that would be met otherwise, or no longer."""

    title: str
    start: UtcDatetime | None
    end: UtcDatetime | None
    words: str = Field(examples=["would be on gpu-b"])


class AnswerShown(Frozen):
    """Whether something that nobody has booked would fit. Nothing is booked by asking."""

    fits: bool | None = Field(description="None while that cannot be known")
    words: str = Field(examples=["It fits on gpu-a."])
    booking: BookingShown
    affected: tuple[Affected, ...] = ()
    book: str | None = Field(None, description="Google Calendar's form for a new event, filled in")
    command: str | None = Field(None, description="What books it from a terminal")


class Problem(Frozen):
    """Why something was not done."""

    detail: str = Field(
        description="What is wrong, in a sentence", examples=["The daemon has not looked yet."]
    )
    remedy: str = Field("", description="What to do about it", examples=["Ask again in a moment."])


class OrderGiven(Frozen):
    """An order, given by whoever holds the key."""

    hours: float | None = Field(
        None, gt=0, le=8760, description="How long it holds; until it is taken back without", examples=[2.0]
    )
    note: str = Field("", max_length=200, description="Why; shown wherever the order is", examples=["RMA"])


class ModelOrder(OrderGiven):
    """An order about a model."""

    model: str = Field(
        min_length=1, max_length=200, description="Alias or repo id", examples=["Qwen/Qwen3-8B"]
    )
    hours: float | None = Field(1.0, gt=0, le=8760, description="How long it holds", examples=[2.0])
    replicas: int = Field(1, ge=1, le=64, description="For a pin: how many replicas shall serve")


class NodeOrder(OrderGiven):
    """An order about a node."""

    node: str = Field(min_length=1, max_length=63, description="Its name", examples=["gpu-b"])


class Done(Frozen):
    """What was ordered, or taken back."""

    words: tuple[str, ...] = Field(examples=[("Paused: nothing is changed until it is taken back.",)])


Zoom = Literal["day", "3days", "week"]
