"""How Ray is started: its arguments, its environment, its labels. Nothing is started here."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psutil

from scheduler.errors import OperatorError
from scheduler.launch.ports import LOOPBACK, WILDCARD
from scheduler.settings import GIB, MIB, Settings
from serve_apps.contract import GPU_MEMORY_LABEL, NODE_LABEL

MAX_TEMP_DIR_CHARACTERS = 37
"""Ray puts sockets below its folder, and the system allows about 107 characters for such a path."""

SHARED_MEMORY_SHARE = 0.9
"""Of what there is of it, Ray's object store may take so much."""

LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
"""What Ray accepts as the value of a label."""

FOREIGN = (
    "RAY_ADDRESS",
    "RAY_API_SERVER_ADDRESS",
    "RAY_AUTH_TOKEN",
    "RAY_JOB_ID",
    "RAY_NAMESPACE",
    "RAY_REDIS_ADDRESS",
    "RAY_RUNTIME_ENV_HOOK",
    "RAY_START_HOOK",
    "RAY_TMPDIR",
)
"""Variables that would make our node use another cluster's address, token or folder."""

SECRETS = ("INFLUXDB_ADMIN_TOKEN", "NDIF_INFLUX__ADMIN_TOKEN", "NDIF_WEB__KEY")
"""The daemon's alone: replicas run the code of others. The gateways read what they need from a file."""

# With the default on Linux, Ray replaces 127.0.0.1 by the address of a network card and listens
# everywhere. The name is historic; 0 makes every server of the node, and every driver, stay on loopback.
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

PREFERRED = {
    # ray:// clients: the proxier forks while gRPC has threads, and its children die of it
    "GRPC_ENABLE_FORK_SUPPORT": "0",
    # A dead raylet is noticed in about 3 s, not 14. The timeout stays generous: a false alarm kills a
    # node that is merely busy loading weights, with every model on it.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
    # A dead proxy is replaced in about 6 s, not 28
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "3",
    # A client that is uploading answers no pings; its websocket is not to be closed for that
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_apps.gateway.proxy:be_patient",
    # raylets and the head's books log as the daemon and the replicas do
    "RAY_BACKEND_LOG_JSON": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # When we stop a node we mean now; draining would take 30 s of the 15 there are
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
}
"""Variables of Ray that are set unless the caller's environment already does."""


def node_name(settings: Settings) -> str:
    """The stable name of this node: the one that is set, else made from the host name.

    Raises:
        OperatorError: the name that is set cannot be a label.
    """
    if settings.ray.node_name is not None:
        if not LABEL_VALUE.fullmatch(settings.ray.node_name):
            raise OperatorError(
                f"A node cannot be named {settings.ray.node_name!r}.",
                "Set NDIF_RAY__NODE_NAME to at most 63 letters, digits, dots, dashes and underscores, "
                "beginning and ending with a letter or digit, such as gpu-a.",
            )
        return settings.ray.node_name
    cleaned = re.sub(r"[^A-Za-z0-9_.-]+", "-", socket.gethostname())[:63].strip("-_.")
    return cleaned or "node"


def gpu_memory_mib() -> int | None:
    """Memory of the smallest GPU of this machine in MiB, None without GPUs or ``nvidia-smi``."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    sizes = [int(line) for line in answer.stdout.split() if line.isdecimal()]
    return min(sizes) if answer.returncode == 0 and sizes else None


def labels(name: str, memory_mib: int | None) -> str:
    """The node's labels as ``ray start --labels`` takes them."""
    parts = [f"{NODE_LABEL}={name}"]
    if memory_mib:
        parts.append(f"{GPU_MEMORY_LABEL}={memory_mib}")
    return ",".join(parts)


def temp_dir(settings: Settings, role: str) -> Path:
    """Ray's folder for sockets and logs: short, and the same at every start from one state directory.

    Raises:
        OperatorError: the system's temporary folder has too long a path, or the folder is another's.
    """
    base = Path("/tmp") if os.access("/tmp", os.W_OK) else Path(tempfile.gettempdir())
    identity = f"{os.getuid()} {settings.path(settings.state_dir).resolve()} {role}"
    path = base / f"ndif-ray-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
    if len(str(path)) > MAX_TEMP_DIR_CHARACTERS:
        raise OperatorError(
            f"Ray cannot work in {path}: its sockets would have longer paths than the system allows.",
            "Set TMPDIR to a folder with a shorter path, such as /tmp.",
        )
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        owner = path.lstat().st_uid
    except OSError as error:
        raise OperatorError(f"{path} cannot be used: {error}.", "Remove it, or set TMPDIR.") from error
    if path.is_symlink() or owner != os.getuid():
        raise OperatorError(f"{path} belongs to somebody else.", "Have it removed.")
    return path


def object_store_bytes(ram_bytes: int, shared_bytes: int, has_gpu: bool) -> int:
    """Size of Ray's object store: only requests and results pass through it, weights never do.

    It lies in shared memory, of which a container has little; more than there is would go to the disk.
    """
    share, most = (0.10, 16 * GIB) if has_gpu else (0.05, 1 * GIB)
    return max(128 * MIB, min(most, int(ram_bytes * share), int(shared_bytes * SHARED_MEMORY_SHARE)))


def shared_memory_bytes() -> int:
    """Shared memory of this machine, or of this container."""
    try:
        return shutil.disk_usage("/dev/shm").total
    except OSError:
        return psutil.virtual_memory().total


def common_arguments(settings: Settings, folder: Path, memory_mib: int | None) -> list[str]:
    """Arguments of ``ray start`` that a head and a worker share."""
    ram_bytes, has_gpu = psutil.virtual_memory().total, memory_mib is not None
    arguments = [
        "--block",
        "--log-color=false",
        "--disable-usage-stats",
        f"--temp-dir={folder}",
        f"--labels={labels(node_name(settings), memory_mib)}",
        f"--object-store-memory={object_store_bytes(ram_bytes, shared_memory_bytes(), has_gpu)}",
        # any free port: a fixed one is taken when a second Ray runs on this machine
        "--dashboard-agent-listen-port=0",
    ]
    if settings.ray.num_gpus is not None:
        arguments.append(f"--num-gpus={settings.ray.num_gpus}")
    if settings.ray.metrics_port is not None:
        arguments.append(f"--metrics-export-port={settings.ray.metrics_port}")
    return arguments


def head_arguments(settings: Settings, folder: Path, memory_mib: int | None) -> list[str]:
    """Arguments of ``ray start`` for the head."""
    ray = settings.ray
    arguments = [
        "--head",
        f"--port={ray.head_port}",
        f"--ray-client-server-port={ray.client_port}",
        f"--dashboard-host={ray.dashboard_host}",
        f"--dashboard-port={ray.dashboard_port}",
    ]
    if ray.host not in WILDCARD:
        arguments.append(f"--node-ip-address={ray.host}")
    return arguments + common_arguments(settings, folder, memory_mib)


def worker_arguments(settings: Settings, folder: Path, memory_mib: int | None) -> list[str]:
    """Arguments of ``ray start`` for a node that joins ``settings.ray.address``."""
    arguments = [f"--address={settings.ray.address}"]
    if settings.ray.host not in WILDCARD | LOOPBACK:
        arguments.append(f"--node-ip-address={settings.ray.host}")
    return arguments + common_arguments(settings, folder, memory_mib)


def environment(
    settings: Settings, caller: Mapping[str, str], *, head: bool, has_gpu: bool
) -> dict[str, str]:
    """What Ray, and through it every replica on this node, finds in its environment."""
    found = {name: value for name, value in caller.items() if name not in FOREIGN}
    for name, value in PREFERRED.items():
        found.setdefault(name, value)
    if not has_gpu:
        # one thread per replica: more of them on busy cores make generation 20 times slower
        found.setdefault("OMP_NUM_THREADS", "1")
    if head and settings.ray.host in LOOPBACK:
        found |= LOOPBACK_ONLY
    found |= _access(settings)
    # the name Ray goes by today
    found["RAY_metrics_report_interval_ms"] = str(settings.ray.metrics_interval_milliseconds)
    if settings.log.loki_url is not None:
        # replicas ship their logs themselves
        found["LOKI_URL"] = settings.log.loki_url
    for name in SECRETS:
        found.pop(name, None)
    found["HF_HOME"] = str(settings.hub_cache.parent)
    found["PYTHONUNBUFFERED"] = "1"
    return found


def client_environment(settings: Settings) -> dict[str, str]:
    """What a program on this machine needs to join the cluster as a driver, and to find the gateway."""
    found = {"RAY_ADDRESS": f"{settings.ray.host}:{settings.ray.head_port}"} | _access(settings)
    if settings.ray.host in LOOPBACK:
        found |= LOOPBACK_ONLY
    return found | {"NDIF_HOST": settings.serve.url, "HF_HOME": str(settings.hub_cache.parent)}


def _access(settings: Settings) -> dict[str, str]:
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(settings.token_file)}
