"""What the scheduler and the applications on Ray agree on: arguments, names, the routing table.

Imports no Ray, no torch and no nnsight: the daemon and any tool can read it cheaply.
"""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

CONTRACT_VERSION = 1
"""Raised when an application built from older arguments must be rebuilt to be understood."""

MARKER = "ndif-ray-service"
"""Stands in the arguments of every application that is ours. Without it, hands off."""

NODE_LABEL = "ndif.us/node"
"""Ray node label with the node's stable name; applications are pinned by it."""

GPU_MEMORY_LABEL = "ndif.us/gpu-memory-mib"
"""Ray node label with the memory of each of its GPUs in MiB, where Ray itself cannot tell."""

GATEWAY_APPLICATION = "ndif-gateway"
MODEL_APPLICATION_PREFIX = "ndif-model-"
MODEL_DEPLOYMENT = "Model"
GATEWAY_DEPLOYMENT = "Gateway"
MODEL_IMPORT_PATH = "serve_apps.model.app:build"
GATEWAY_IMPORT_PATH = "serve_apps.gateway.app:build"

Dtype = Literal["float32", "bfloat16", "float16", "int8"]


class _Agreed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelArgs(_Agreed):
    """Arguments of a model application: who it is and what it takes. Changing any rebuilds it.

    ``num_gpus`` is per replica: 0 on the CPU device, a fraction below 1, or a whole number.
    ``memory_bytes`` is the RAM one replica reserves in Ray's books (0 where GPU memory is what
    counts). ``footprint_bytes`` is what the planner reckoned one replica to need on its device.
    """

    marker: Literal["ndif-ray-service"] = "ndif-ray-service"
    contract: int = CONTRACT_VERSION
    kind: Literal["model"] = "model"
    node: str
    model_key: str
    repo_id: str
    revision: str | None = None
    task: str = "text-generation"
    trust_remote_code: bool = False
    dtype: Dtype
    num_gpus: float = Field(ge=0)
    memory_bytes: int = Field(ge=0)
    footprint_bytes: int = Field(ge=0)


class ModelConfig(_Agreed):
    """``user_config`` of a model application: what may change while it serves."""

    reservations: tuple[str, ...] = ()
    """Keys of the reservations behind this model."""


class GatewayArgs(_Agreed):
    """Arguments of the gateway application. No secrets: Serve shows them to whoever may ask it.

    ``state_dir`` is a folder on the head's disk that all replicas of the gateway share: keys, jobs
    and results. None gives each process a folder of its own that goes with it.
    """

    marker: Literal["ndif-ray-service"] = "ndif-ray-service"
    contract: int = CONTRACT_VERSION
    kind: Literal["gateway"] = "gateway"
    state_dir: str | None = None
    loopback_only: bool = True
    """Whether Serve listens on loopback only."""
    require_keys: bool = False
    """Whether clients need a key on loopback too; elsewhere they always do."""
    deadline_seconds: float = Field(default=600, gt=0)
    """Longest time a request waits for its turn, and then for its answer."""
    job_seconds: float = Field(default=600, gt=0)
    """Longest time a traced block may run."""
    max_wait_seconds: float = Field(default=3600, ge=0)
    """Longest time a traced block waits for its model to come up or for its turn."""
    max_blob_bytes: int = Field(default=256 * 1024**2, gt=0)
    """Largest traced block taken; other bodies end at 1 MiB."""
    inline_bytes: int = Field(default=16 * 1024**2, ge=0)
    """Larger results go by URL, which is faster above about this size."""
    results_bytes: int = Field(default=10 * 1024**3, gt=0)
    """Disk for results and for traced blocks that wait; the oldest results make room."""
    result_seconds: float = Field(default=86400, gt=0)
    """How long results are kept, and their links valid."""
    public_url: str | None = None
    """Base of the links that clients are given; by default the address they came to."""
    object_store_url: str | None = None
    """``http(s)://host:port/bucket`` of an S3 server that keeps results instead of the disk."""
    object_store_public_url: str | None = None
    """The same store as clients reach it, where that is another address."""
    requests_per_minute: int = Field(default=600, gt=0)
    """Requests one key may make; bursts up to a tenth of it are taken at once."""
    concurrent_per_key: int = Field(default=32, gt=0)
    """Completions under way for one key."""
    queued_per_key: int = Field(default=20, gt=0)
    """Requests of one key that may wait for one model, per kind of client."""
    queued_per_model: int = Field(default=200, gt=0)
    """Requests of all keys that may wait for one model, per kind of client."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose web pages may call the gateway; ``*`` is all of them."""
    allowed_adapters: tuple[str, ...] = ()
    """PEFT adapters a traced block may ask for, by repo id."""
    warn_seconds: float = Field(default=600, ge=0)
    """So long before the end of a model's last booking its clients are told; 0 for never."""

    @property
    def keys_required(self) -> bool:
        """Whether a caller without a key is refused."""
        return self.require_keys or not self.loopback_only


class Route(_Agreed):
    """One model that is, or is about to be, reachable.

    ``names`` are what clients may call it: repo id first, then aliases. ``applications`` are the
    Serve applications that serve it, one per node. ``until`` is the end of its last booking.
    ``private_to`` are the mail addresses (without regard to case) of those who may use it, None for
    everybody: where all bookings behind it are private, their organisers and attendees.
    """

    model_key: str
    names: tuple[str, ...] = Field(min_length=1)
    applications: tuple[str, ...] = ()
    until: AwareDatetime | None = None
    private_to: tuple[str, ...] | None = None


class Booking(_Agreed):
    """A booking that has not begun, or that could not be placed: what the gateway tells a client
    who asks too early. ``refused`` is the reason and when it would fit or what would help, in sentences; None
    for one that is coming.
    ``private_to`` is as in ``Route``."""

    names: tuple[str, ...] = Field(min_length=1)
    start: AwareDatetime
    end: AwareDatetime
    refused: str | None = None
    private_to: tuple[str, ...] | None = None


class GatewayConfig(_Agreed):
    """``user_config`` of the gateway: the routing table, pushed by the scheduler at each change.

    ``version`` identifies the content to the scheduler; the gateway only keeps it.
    """

    version: str = ""
    routes: tuple[Route, ...] = ()
    bookings: tuple[Booking, ...] = ()
