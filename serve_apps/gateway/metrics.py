"""What the gateway tells of its requests and jobs: metrics through Ray, points into InfluxDB."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from serve_apps.telemetry.influx import Points
from serve_apps.telemetry.labels import UNKNOWN, Bounded
from serve_apps.telemetry.metric import Measurement, Metric
from serve_apps.telemetry.ray_metrics import Recorder

NO_MODEL = "none"
"""The label of requests that are about no model."""
GONE = 499
"""The code of a request whose client left before it was answered, as proxies count it."""
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)

JobEnd = Literal["completed", "failed", "too long", "waited too long", "cancelled", "lost", "refused"]
"""How a job ended: with a result, with its own error, after its time, before its turn, by its sender, with a
replica or the gateway, or because its model will not come (or its result had no room)."""

REQUESTS = Metric(
    "ndif_gateway_requests_total",
    "counter",
    "Requests over HTTP, by model (unknown: none of that name; none: about no model), route and status code; "
    "499 where the client left first.",
    ("model", "route", "code"),
)
REQUEST_SECONDS = Metric(
    "ndif_gateway_request_duration_seconds",
    "histogram",
    "How long requests took, to the last byte.",
    ("model", "route"),
    SECONDS,
)
TURN_SECONDS = Metric(
    "ndif_gateway_turn_wait_seconds",
    "histogram",
    "How long completions and embeddings waited for their turn at a model.",
    ("model",),
    SECONDS,
)
FIRST_SECONDS = Metric(
    "ndif_gateway_first_piece_seconds",
    "histogram",
    "From the request until the first piece of a streamed answer came from the model.",
    ("model",),
    SECONDS,
)
TOKENS = Metric(
    "ndif_gateway_tokens_total",
    "counter",
    "Tokens read (prompt) and written (completion).",
    ("model", "kind"),
)
RESPONSE_BYTES = Metric(
    "ndif_gateway_response_bytes_total", "counter", "Bytes of answers' bodies.", ("model", "route")
)
WAITING = Metric(
    "ndif_gateway_waiting",
    "gauge",
    "Length of the queues: completions and jobs that wait for their turn. Their sum over replicas is right.",
    ("model", "kind"),
)
RUNNING = Metric(
    "ndif_gateway_running", "gauge", "Completions and jobs that are with a model.", ("model", "kind")
)
USERS = Metric("ndif_gateway_users", "gauge", "Different keys that asked for something within the last hour.")
SESSIONS = Metric("ndif_gateway_sessions", "gauge", "Open websockets of nnsight's clients.")
JOBS = Metric(
    "ndif_gateway_jobs_total",
    "counter",
    "Jobs (traced blocks) by how they ended: completed, failed, too long, waited too long, cancelled, lost, "
    "refused.",
    ("model", "end"),
)
JOB_SECONDS = Metric(
    "ndif_gateway_job_phase_seconds",
    "histogram",
    "How long jobs spent waiting (for their turn), starting (at the model), running, and finishing "
    "(results kept and sent).",
    ("model", "phase"),
    SECONDS,
)
DROPPED = Metric(
    "ndif_gateway_telemetry_dropped_total",
    "counter",
    "Points and log lines of gateways that were given up because their server was away.",
    ("sink",),
)

GATEWAY: tuple[Metric, ...] = tuple(one for one in list(vars().values()) if isinstance(one, Metric))
"""All of them, in the order of this file."""


PHASES = ("waiting", "starting", "running", "finishing")
"""Of a job, in their order."""

REQUEST_POINT = Measurement(
    "request",
    "A request about a model is over: how long it took, by phase (0: there was none), and how much it was.",
    ("model", "route", "code"),
    (
        "seconds",
        "turn_seconds",
        "first_piece_seconds",
        "prompt_tokens",
        "completion_tokens",
        "response_bytes",
    ),
)
JOB_POINT = Measurement(
    "job",
    "A job is over: its phases, the size of what came and went, and the most memory it held on its devices "
    "(of the machine where it ran without GPU).",
    ("model", "end"),
    (*(f"{phase}_seconds" for phase in PHASES), "payload_bytes", "response_bytes", "memory_bytes"),
)
GATEWAY_POINTS = (REQUEST_POINT, JOB_POINT)


@dataclass
class Exchange:
    """One request under way, and what is found out about it meanwhile. Durations are in seconds."""

    model: str = NO_MODEL
    route: str = UNKNOWN
    code: int = GONE
    seconds: float = 0.0
    turn_seconds: float | None = None
    first_seconds: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    response_bytes: int = 0


current_exchange: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


@dataclass
class JobPhases:
    """When (Unix seconds) a job came into each of its phases, 0 for those it never came to."""

    created: float = 0.0
    claimed: float = 0.0
    running: float = 0.0
    computed: float = 0.0
    ended: float = 0.0

    @property
    def seconds(self) -> dict[str, float]:
        """How long each phase took that began."""
        edges = {
            "waiting": self.created,
            "starting": self.claimed,
            "running": self.running,
            "finishing": self.computed,
        }
        begun = [(name, at) for name, at in edges.items() if at]
        until = [*(at for _, at in begun[1:]), self.ended]
        return {name: max(0.0, end - at) for (name, at), end in zip(begun, until, strict=True)}


@dataclass(frozen=True)
class JobNews:
    """A job that ended. ``memory_bytes`` is the most it held of its device, 0 where nobody measured it."""

    model: str
    end: JobEnd
    phases: JobPhases
    payload_bytes: int = 0
    result_bytes: int = 0
    memory_bytes: int = 0


class Unmetered:
    """Nobody listens. The others do as this one does, and never raise or wait."""

    def request(self, exchange: Exchange) -> None:
        """A request is over."""

    def job(self, news: JobNews) -> None:
        """A job is over."""

    def lines(self, waiting: Mapping[tuple[str, str], int], running: Mapping[tuple[str, str], int]) -> None:
        """How long the lines are and how many are at work, by model and kind; told every second."""

    def people(self, sessions: int, users: int | None) -> None:
        """How many websockets are open here, and how many keys were used; told every second.

        ``users`` is None where another replica tells it.
        """

    def close(self) -> None:
        """Nothing more will come."""


@dataclass
class RayMeter(Unmetered):
    """Metrics through Ray, and points where InfluxDB is."""

    points: Points | None = None
    recorder: Recorder = field(default_factory=lambda: Recorder(GATEWAY))
    _models: Bounded = field(default_factory=Bounded)
    _known: dict[Metric, set[tuple[str, str]]] = field(default_factory=dict)
    _dropped: int = 0

    def request(self, exchange: Exchange) -> None:
        one, model, tell = exchange, self._models(exchange.model), self.recorder
        tell.count(REQUESTS, 1, model, one.route, str(one.code))
        tell.observe(REQUEST_SECONDS, one.seconds, model, one.route)
        tell.count(RESPONSE_BYTES, one.response_bytes, model, one.route)
        tell.count(TOKENS, one.prompt_tokens, model, "prompt")
        tell.count(TOKENS, one.completion_tokens, model, "completion")
        if one.turn_seconds is not None:
            tell.observe(TURN_SECONDS, one.turn_seconds, model)
        if one.first_seconds is not None:
            tell.observe(FIRST_SECONDS, one.first_seconds, model)
        if self.points is not None and one.model != NO_MODEL:
            self.points.put(
                REQUEST_POINT,
                {"model": model, "route": one.route, "code": str(one.code)},
                {
                    "seconds": one.seconds,
                    "turn_seconds": one.turn_seconds or 0.0,
                    "first_piece_seconds": one.first_seconds or 0.0,
                    "prompt_tokens": one.prompt_tokens,
                    "completion_tokens": one.completion_tokens,
                    "response_bytes": one.response_bytes,
                },
                datetime.now(UTC),
            )

    def job(self, news: JobNews) -> None:
        model, phases = self._models(news.model), news.phases.seconds
        self.recorder.count(JOBS, 1, model, news.end)
        for phase, seconds in phases.items():
            self.recorder.observe(JOB_SECONDS, seconds, model, phase)
        if self.points is not None:
            times = {f"{phase}_seconds": phases.get(phase, 0.0) for phase in PHASES}
            sizes = {
                "payload_bytes": news.payload_bytes,
                "response_bytes": news.result_bytes,
                "memory_bytes": news.memory_bytes,
            }
            self.points.put(
                JOB_POINT, {"model": model, "end": news.end}, {**times, **sizes}, datetime.now(UTC)
            )

    def lines(self, waiting: Mapping[tuple[str, str], int], running: Mapping[tuple[str, str], int]) -> None:
        for metric, lengths in ((WAITING, waiting), (RUNNING, running)):
            told = {(self._models(model), kind): 0 for model, kind in lengths}
            for (model, kind), length in lengths.items():
                told[self._models(model), kind] += length
            # what is over is told as 0: else its last length would stand until Ray forgets it
            for model, kind in self._known.get(metric, set()) | set(told):
                self.recorder.set(metric, told.get((model, kind), 0), model, kind)
            self._known[metric] = set(told)
        if self.points is not None:
            dropped = self.points.outbox.dropped
            self.recorder.count(DROPPED, dropped - self._dropped, "influx")
            self._dropped = dropped

    def people(self, sessions: int, users: int | None) -> None:
        self.recorder.set(SESSIONS, sessions)
        if users is not None:
            self.recorder.set(USERS, users)

    def close(self) -> None:
        if self.points is not None:
            self.points.close()
