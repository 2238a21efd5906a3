"""Every setting of the service: one tree, validated at the rim.

Precedence: command line, environment, what a running local service wrote into its state directory
(``runtime.json``: the ports it really got), ``config/ray_config.yml``, the defaults below. In the
environment a setting is ``NDIF_`` plus its path joined with two underscores
(``NDIF_SERVE__PORT``); the names in ``ENVIRONMENT_NAMES`` are understood as well.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import psutil
import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from scheduler.errors import OperatorError
from scheduler.settings_loop import (
    ControllerSettings,
    Group,
    GuardSettings,
    HistorySettings,
    StepSettings,
)
from scheduler.settings_telemetry import InfluxSettings, LogSettings
from scheduler.settings_web import WebSettings
from scheduler.types import Rules

ROOT = Path(__file__).resolve().parent.parent
MIB = 1024**2
GIB = 1024**3

ENVIRONMENT_NAMES: dict[str, tuple[str, ...]] = {
    "SCHEDULING_CHECK_INTERVAL_S": ("calendar", "check_interval_seconds"),
    "SCHEDULING_GOOGLE_CALENDAR_ID": ("calendar", "google_calendar_id"),
    "SCHEDULING_GOOGLE_CREDS_PATH": ("calendar", "google_creds_path"),
    "HOST_IP": ("ray", "host"),
    "RAY_ADDRESS": ("ray", "address"),
    "RAY_DASHBOARD_HOST": ("ray", "dashboard_host"),
    # the ports inside a container, and those of a service started by hand, which win
    "RAY_HEAD_INTERNAL_PORT": ("ray", "head_port"),
    "RAY_CLIENT_INTERNAL_PORT": ("ray", "client_port"),
    "RAY_DASHBOARD_INTERNAL_PORT": ("ray", "dashboard_port"),
    "RAY_SERVE_INTERNAL_PORT": ("serve", "port"),
    "DEV_RAY_HEAD_PORT": ("ray", "head_port"),
    "DEV_RAY_CLIENT_PORT": ("ray", "client_port"),
    "DEV_RAY_DASHBOARD_PORT": ("ray", "dashboard_port"),
    "DEV_RAY_SERVE_PORT": ("serve", "port"),
    "N_DEVICES": ("ray", "num_gpus"),
    "OBJECT_STORE_URL": ("serve", "object_store_url"),
    "RAY_METRICS_GAUGE_EXPORT_INTERVAL_MS": ("ray", "metrics_interval_milliseconds"),
    "NDIF_MODEL_CACHE_PERCENTAGE": ("planning", "cpu_memory_share"),
    "NDIF_MINIMUM_DEPLOYMENT_TIME_SECONDS": ("controller", "minimum_deployment_seconds"),
    "API_URL": ("controller", "api_url"),
    "LOKI_URL": ("log", "loki_url"),
    "INFLUXDB_ADDRESS": ("influx", "address"),
    "INFLUXDB_ADMIN_TOKEN": ("influx", "admin_token"),
    "INFLUXDB_ORG": ("influx", "org"),
    "INFLUXDB_BUCKET": ("influx", "bucket"),
}
"""Names the service has always had in its environment, and the settings they set."""

Port = Annotated[int, Field(ge=1, le=65535)]


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError) as error:
        raise ValueError("not a time zone such as Europe/Berlin") from error
    return name


class CalendarSettings(Group):
    """Where reservations come from."""

    ics: str | None = Field(
        None,
        description="Path or URL of an iCalendar file; calendar.ics in the state directory without Google",
    )
    google_calendar_id: str | None = Field(
        None, description="Ids of Google calendars to read, separated by commas"
    )
    google_creds_path: Path | None = Field(
        None, description="Service account's key file; Application Default Credentials without it"
    )
    google_endpoint: str | None = Field(None, description="Address of the Calendar API, if not Google's")
    write_back: Literal["off", "colour", "colour+text"] = Field(
        "colour+text", description="How Google events are answered: off, colour or colour+text"
    )
    check_interval_seconds: float = Field(10.0, gt=0, le=3600, description="Time between two readings")
    horizon_days: float = Field(14.0, gt=0, le=366, description="How far ahead bookings are read")
    timeout_seconds: float = Field(10.0, gt=0, le=300, description="Deadline of one reading")
    max_stale_hours: float = Field(
        72.0, gt=0, le=8760, description="How old a last good reading may be to go by"
    )
    default_timezone: Annotated[str, AfterValidator(_zone)] = Field(
        "UTC", description="Zone of a calendar that does not name its own"
    )
    warn_before_end_minutes: float = Field(
        10.0,
        ge=0,
        le=1440,
        description="How long before its end a booking, and whoever asks for its model, is told; 0: never",
    )


class RaySettings(Group):
    """The Ray cluster."""

    host: str = Field("127.0.0.1", description="Address this node is reached at by the others")
    address: str | None = Field(None, description="host:port of a head to join, for workers")
    head_port: Port = Field(6380, description="Port of the head (GCS)")
    client_port: Port = Field(9998, description="Port of the Ray client server")
    dashboard_host: str = Field("127.0.0.1", description="Address the dashboard listens on")
    dashboard_port: Port = Field(8266, description="Port of the dashboard and Serve's REST API")
    dashboard_url: str | None = Field(None, description="URL of the dashboard, if not on this machine")
    token_path: Path | None = Field(
        None, description="File with the cluster's access token; ray_token in the state directory"
    )
    node_name: str | None = Field(None, description="Stable name of this node; its host name by default")
    num_gpus: int | None = Field(None, ge=0, le=1024, description="GPUs to offer; all there are by default")
    timeout_seconds: float = Field(10.0, gt=0, le=300, description="Deadline of one call to the dashboard")
    metrics_port: Port | None = Field(
        None, description="Port of this node's metrics, outside 10002 to 19999; any free one by default"
    )
    metrics_interval_milliseconds: int = Field(
        10_000, ge=1000, le=3_600_000, description="Time between two exports of Ray's own metrics"
    )

    @property
    def dashboard(self) -> str:
        """URL of the dashboard, without a trailing slash."""
        host = "127.0.0.1" if self.dashboard_host in ("0.0.0.0", "::") else self.dashboard_host
        return (self.dashboard_url or f"http://{host}:{self.dashboard_port}").rstrip("/")


class ServeSettings(Group):
    """Ray Serve's HTTP side, where clients come in."""

    host: str = Field("127.0.0.1", description="Address Serve listens on")
    port: Port = Field(8267, description="Port Serve listens on")
    public_url: str | None = Field(
        None, pattern="^https?://", description="Address that people are told; the one above by default"
    )
    gateway_replicas: int = Field(1, ge=1, le=100, description="Gateway processes, all on the head")
    gateway_dir: Path | None = Field(
        None, description="Folder on the head for keys, jobs and results; gateway in the state directory"
    )
    require_keys: bool = Field(False, description="Ask for keys on loopback too; elsewhere always asked for")
    first_key_for: str | None = Field(
        None,
        pattern=r"^[^@\s]+@[^@\s]+$",
        description="Mail of who gets a first, trusted key where keys are asked for and there is none; "
        "it is written to first_key in the state directory",
    )
    requests_per_minute: int = Field(600, ge=1, le=1_000_000, description="Requests a key may make")
    concurrent_per_key: int = Field(32, ge=1, le=100_000, description="Completions of a key at once")
    queued_per_key: int = Field(20, ge=1, le=100_000, description="Requests of a key that wait for a model")
    queued_per_model: int = Field(200, ge=1, le=100_000, description="Requests of all that wait for a model")
    deadline_seconds: float = Field(
        600.0, gt=0, le=86400, description="Longest wait for a turn, and for an answer"
    )
    job_seconds: float = Field(600.0, gt=0, le=604800, description="Longest time a traced block may run")
    max_wait_minutes: float = Field(
        60.0, ge=0, le=10080, description="Longest time a traced block waits for its model and its turn"
    )
    max_upload_mib: int = Field(256, ge=1, le=100_000, description="Largest traced block")
    results_gib: float = Field(10.0, gt=0, le=1_000_000, description="Room for results; the oldest go first")
    results_hours: float = Field(24.0, gt=0, le=8760, description="How long results are kept")
    object_store_url: str | None = Field(
        None,
        pattern="^https?://[^@]+$",
        description="S3 server for results (http://minio:9000/bucket); the head's disk without it",
    )
    object_store_public_url: str | None = Field(
        None, pattern="^https?://[^@]+$", description="The same server as clients reach it"
    )
    cors_origins: tuple[str, ...] = Field((), description="Origins whose web pages may call; * for all")
    allowed_adapters: tuple[str, ...] = Field((), description="PEFT adapters that traced blocks may use")
    drain_seconds: float = Field(
        60.0, ge=0, le=3600, description="How long running requests may go on after a model's end"
    )

    @property
    def url(self) -> str:
        """Base URL for clients on this machine."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return f"http://{host}:{self.port}"

    @property
    def url_for_clients(self) -> str:
        """Base URL that people are told."""
        return (self.public_url or self.url).rstrip("/")

    @property
    def loopback_only(self) -> bool:
        """Whether only this machine can reach the gateway."""
        return self.host in ("127.0.0.1", "localhost", "::1")


class PlanningSettings(Group):
    """How sizes and times are reckoned."""

    padding_fraction: float = Field(0.15, ge=0, le=10, description="Added to weights, as a share of them")
    padding_mib: int = Field(500, ge=0, le=1_000_000, description="Added to weights, in MiB")
    cpu_memory_share: float = Field(0.6, gt=0, le=1, description="Share of a GPU-less node's RAM on offer")
    cpu_devices: bool | None = Field(
        None, description="Whether GPU-less nodes take models; by default only if no node has a GPU"
    )
    gpu_memory_gib: dict[str, float] = Field(
        default_factory=dict, description="Memory of one GPU by accelerator type, where nothing reports it"
    )
    lead_base_seconds: float = Field(30.0, ge=0, le=86400, description="Time to start any model")
    load_mib_per_second: float = Field(200.0, gt=0, description="Speed at which weights are loaded")
    download_mib_per_second: float = Field(
        200.0, gt=0, description="Speed at which weights come to a node that has none"
    )
    linger_seconds: float = Field(
        0.0, ge=0, le=86400, description="How long a model stays after its booking if nobody needs its room"
    )
    solver_seconds: float = Field(
        5.0, ge=0, le=600, description="How long the exact solver may look at one refusal; 0: not at all"
    )


class ModelSettings(Group):
    """What can be booked."""

    catalog: Path = Field(Path("config/models.yml"), description="Aliases and defaults; may be missing")
    huggingface_home: Path | None = Field(
        None, description="Hugging Face home; huggingface in the state directory. HF_HOME wins"
    )


class BookingSettings(Group, Rules):
    """Who may book what, for how long and how much."""


class Settings(BaseSettings):
    """The whole tree. Relative paths are relative to the project's folder."""

    model_config = SettingsConfigDict(
        env_prefix="NDIF_",
        env_nested_delimiter="__",
        # compose hands on what is not set as an empty text
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
    )

    state_dir: Path = Field(Path("var"), description="Where the service keeps its files")
    calendar: CalendarSettings = CalendarSettings()
    booking: BookingSettings = BookingSettings()
    ray: RaySettings = RaySettings()
    serve: ServeSettings = ServeSettings()
    planning: PlanningSettings = PlanningSettings()
    models: ModelSettings = ModelSettings()
    guard: GuardSettings = GuardSettings()
    steps: StepSettings = StepSettings()
    history: HistorySettings = HistorySettings()
    controller: ControllerSettings = ControllerSettings()
    web: WebSettings = WebSettings()
    log: LogSettings = LogSettings()
    influx: InfluxSettings = InfluxSettings()

    @model_validator(mode="after")
    def _place_gateway(self) -> Settings:
        # the gateway's configuration is made from its group alone, which therefore holds all of it
        folder = self.path(self.serve.gateway_dir or self.state_dir / "gateway")
        object.__setattr__(self, "serve", self.serve.model_copy(update={"gateway_dir": folder}))
        return self

    def path(self, path: Path) -> Path:
        """A path of these settings, made absolute."""
        return path if path.is_absolute() else ROOT / path

    def in_state_dir(self, name: str) -> Path:
        """A file or folder of the service's own."""
        return self.path(self.state_dir) / name

    @property
    def runtime_file(self) -> Path:
        """Where a running local service notes the ports it got."""
        return self.in_state_dir("runtime.json")

    @property
    def token_file(self) -> Path:
        """The file with the cluster's access token."""
        return self.path(self.ray.token_path) if self.ray.token_path else self.in_state_dir("ray_token")

    @property
    def ics_location(self) -> str | None:
        """Absolute path or URL of the iCalendar file; None where only Google calendars are read."""
        if self.calendar.ics is None:
            return None if self.google_calendar_ids else str(self.in_state_dir("calendar.ics"))
        if "://" in self.calendar.ics:
            return self.calendar.ics
        return str(self.path(Path(self.calendar.ics).expanduser()))

    @property
    def google_calendar_ids(self) -> tuple[str, ...]:
        """The Google calendars to read, each once."""
        written = (self.calendar.google_calendar_id or "").split(",")
        return tuple(dict.fromkeys(one.strip() for one in written if one.strip()))

    @property
    def hub_cache(self) -> Path:
        """The Hugging Face hub cache folder models are loaded from."""
        home = os.environ.get("HF_HOME") or self.models.huggingface_home
        return (self.path(Path(home)) if home else self.in_state_dir("huggingface")) / "hub"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        written = _read_yaml(os.environ.get("NDIF_CONFIG"))
        state_dir = os.environ.get("NDIF_STATE_DIR") or str(written.get("state_dir") or "var")
        return (
            init_settings,
            env_settings,
            InitSettingsSource(settings_cls, _from_environment_names()),
            InitSettingsSource(settings_cls, _read_json(ROOT / state_dir / "runtime.json")),
            InitSettingsSource(settings_cls, written),
        )


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; ``overrides`` are what the command line says.

    Raises:
        OperatorError: a file cannot be read or a value is not acceptable; names each of them.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = "; ".join(_describe(problem) for problem in error.errors())
        raise OperatorError(
            f"Some settings cannot be used: {problems}.",
            "Correct them in the environment or in config/ray_config.yml; docs/settings.md lists them all.",
        ) from error


def _describe(problem: Any) -> str:
    path = tuple(str(part) for part in problem["loc"])
    names = ["NDIF_" + "__".join(path).upper()]
    names += [name for name, target in ENVIRONMENT_NAMES.items() if target == path]
    name = next((name for name in names if name in os.environ), ".".join(path))
    said = name if path[-1:] == ("key",) else f"{name} is {problem['input']!r}"  # a key stands in no log
    return f"{said}: {problem['msg']}"


def _from_environment_names() -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, (group, field) in ENVIRONMENT_NAMES.items():
        if value := os.environ.get(name):
            tree.setdefault(group, {})[field] = value
    return tree


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise OperatorError(f"{path} cannot be read: {error}.", "Delete it; it is written anew.") from error
    if not isinstance(content, dict) or not _runs(content.get("pid"), content.get("created")):
        return {}  # left by a run that was killed: its ports mean nothing any more
    settings = content.get("settings", {})
    return settings if isinstance(settings, dict) else {}


def _runs(pid: Any, created: Any) -> bool:
    """Whether the process ``pid`` that was created at ``created`` (Unix seconds) still runs."""
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(created)) < 2.0
    except (psutil.Error, TypeError, ValueError):
        return False


def _read_yaml(named: str | None) -> dict[str, Any]:
    """The settings file: the shipped one may be missing, one that was named may not."""
    path = ROOT / (named or "config/ray_config.yml")
    if not path.is_file():
        if named:
            raise OperatorError(f"There is no settings file {path}.", "Correct NDIF_CONFIG, or unset it.")
        return {}
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise OperatorError(f"{path} cannot be read: {error}.", "Correct the file or delete it.") from error
    if content is None:
        return {}
    if isinstance(content, dict):
        # A group of which every line is a comment is nothing, and no mistake.
        return {name: group for name, group in content.items() if group is not None}
    raise OperatorError(
        f"{path} holds {type(content).__name__}, not settings.",
        "Write it as `group:` with `name: value` lines below, such as `serve:` and `  port: 8267`.",
    )
