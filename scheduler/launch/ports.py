"""Which ports are free, and what to take when a wanted one is not."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from scheduler.errors import OperatorError
from scheduler.settings import Settings

RAY_WORKER_PORTS = range(10002, 20000)
"""Ray gives these to its workers, so nothing that listens for long may lie among them."""

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
WILDCARD = frozenset({"0.0.0.0", "::"})


@dataclass(frozen=True)
class WantedPort:
    """A port a service is meant to get. ``host`` is the address it listens on, "" for all."""

    purpose: str
    group: str
    field: str
    host: str
    port: int


@dataclass(frozen=True)
class GivenPort:
    """What a service gets instead of, or as, the port it wanted."""

    wanted: WantedPort
    port: int

    @property
    def moved(self) -> bool:
        return self.port != self.wanted.port


def wanted_ports(settings: Settings) -> list[WantedPort]:
    """The ports a head node listens on, from the settings."""
    ray, serve, web = settings.ray, settings.serve, settings.web
    # Ray's own servers listen on every interface, unless the node lives on loopback
    node_host = "127.0.0.1" if ray.host in LOOPBACK else ""
    wanted = [
        WantedPort("the Ray head", "ray", "head_port", node_host, ray.head_port),
        WantedPort("the Ray client server", "ray", "client_port", node_host, ray.client_port),
        WantedPort("the dashboard", "ray", "dashboard_port", ray.dashboard_host, ray.dashboard_port),
        WantedPort("the gateway", "serve", "port", serve.host, serve.port),
    ]
    if web.enabled:
        wanted.append(WantedPort("the page", "web", "port", web.host, web.port))
    return wanted


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens on ``port`` of the interface ``host`` ("" means all) just now."""
    bind_to = "" if host in WILDCARD else host
    family = socket.AF_INET6 if ":" in bind_to else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # connections that were closed a moment ago do not take a port; listeners still do
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind_to, port))
        except OSError:
            return False
    return True


def settle(wanted: Iterable[WantedPort]) -> list[GivenPort]:
    """Give each service its wanted port, or the next higher one that is free and nobody else wants.

    Raises:
        OperatorError: no port above a wanted one is free.
    """
    wanted = list(wanted)
    reserved = {one.port for one in wanted}
    given: list[GivenPort] = []
    for one in wanted:
        taken = {other.port for other in given}
        port = one.port if one.port not in taken and is_free(one.host, one.port) else None
        if port is None:
            port = _next_free(one, reserved | taken)
        given.append(GivenPort(one, port))
    return given


def require(wanted: Iterable[WantedPort]) -> None:
    """Make sure that every wanted port is free.

    Raises:
        OperatorError: one is not; names it and, where the system tells, who holds it.
    """
    for one in wanted:
        if not is_free(one.host, one.port):
            raise OperatorError(
                f"Port {one.port}, wanted for {one.purpose}, is taken{_by_whom(one.port)}.",
                f"Stop what listens there, or set NDIF_{one.group.upper()}__{one.field.upper()} "
                "to a free port.",
            )


def with_ports(settings: Settings, given: Iterable[GivenPort]) -> Settings:
    """The settings with the ports that were given."""
    for one in given:
        group = getattr(settings, one.wanted.group)
        changed = group.model_copy(update={one.wanted.field: one.port})
        settings = settings.model_copy(update={one.wanted.group: changed})
    return settings


def _next_free(wanted: WantedPort, avoid: set[int]) -> int:
    for port in range(wanted.port + 1, 65536):
        if port not in RAY_WORKER_PORTS and port not in avoid and is_free(wanted.host, port):
            return port
    raise OperatorError(
        f"Port {wanted.port}, wanted for {wanted.purpose}, is taken, and so is every higher one.",
        f"Set NDIF_{wanted.group.upper()}__{wanted.field.upper()} to a lower port.",
    )


def _by_whom(port: int) -> str:
    # only a privileged user sees the sockets of others on some systems
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""
