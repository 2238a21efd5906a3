"""The verbs of a cluster: ``head`` and ``worker``, each in the foreground of a container or a shell."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime

from rich.console import Console

from calendars.called import command
from scheduler.errors import OperatorError
from scheduler.keys import require_keys
from scheduler.launch import ports
from scheduler.launch.options import node_name
from scheduler.launch.ray_node import RayHead, RayWorker
from scheduler.launch.runtime import RuntimeFile, port_settings
from scheduler.launch.supervision import interruptible, running
from scheduler.launch.token import read_token
from scheduler.logutil.logger import console_of_the_service, is_json, logging_of_the_service
from scheduler.settings import Settings
from scheduler.state_lock import StateLock

HEAD_LOOK_SECONDS = 3.0
WORKER_NOTE = "worker.json"


def new_console() -> Console:
    """Where what is done is told to people."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def run_head(settings: Settings) -> int:
    """Run a cluster's head and the daemon until SIGTERM or Ctrl-C.

    Raises:
        OperatorError: the state directory is in use, a port is taken, the gateway would be open without
            anybody having a key, or Ray does not start.
    """
    console = console_of_the_service(settings.log)
    with StateLock(settings), ending_quietly(console):
        RuntimeFile(settings.runtime_file).clear_leftovers()
        ports.require(ports.wanted_ports(settings))
        if settings.ray.host in ports.LOOPBACK:
            console.print("Listening on loopback only: for workers to join, set HOST_IP to an address of")
            console.print("this machine that they reach (or to 0.0.0.0, and Ray finds it).")
        settle_keys(settings, console)
        start_calendar(settings, console)
        with head_running(settings, console):
            run_daemon(settings, console)
    return 0


def settle_keys(settings: Settings, console: Console) -> None:
    """Make sure that somebody has a key where the gateway asks for one; before anything else is made.

    Raises:
        OperatorError: nobody has one, and nobody is to get a first one.
    """
    if made := require_keys(settings, datetime.now(UTC)):
        say = f"Made the first key of the gateway, for {settings.serve.first_key_for}; it is in {made}."
        console.print(say, markup=False)


def start_calendar(settings: Settings, console: Console) -> None:
    """Write an empty calendar where a service that was never run has none: it is there to be edited.

    Raises:
        OperatorError: it cannot be written.
    """
    # they take a while to import: not for the other verbs
    from calendars.ics import write_empty_calendar
    from scheduler.store.history import FILE as HISTORY

    # one that was there and is gone is a fault, not an empty calendar
    if settings.calendar.ics or settings.google_calendar_ids or settings.in_state_dir(HISTORY).exists():
        return
    path = settings.in_state_dir("calendar.ics")
    try:
        written = write_empty_calendar(path)
    except OSError as error:
        raise OperatorError(
            f"The calendar cannot be written: {error}.", "Correct the permissions of the state directory."
        ) from error
    if written:
        console.print(f"Wrote an empty calendar, {path}. Book with {command('calendar book')}.", markup=False)


def run_worker(settings: Settings) -> int:
    """Join the head at ``settings.ray.address`` until SIGTERM or Ctrl-C; join again if Ray dies.

    Waits for a head that is not up yet, as after a power failure.

    Raises:
        OperatorError: no address or token is given, the head refuses the token, or Ray does not start.
    """
    console = console_of_the_service(settings.log)
    host, port = head_address(settings)
    read_token(settings.token_file)
    note = RuntimeFile(settings.path(settings.state_dir) / WORKER_NOTE)
    note.clear_leftovers()
    node = RayWorker(settings, console, on_change=lambda ray, is_up: note.write({}, ray, is_up=is_up))
    with ending_quietly(console), logging_of_the_service(settings.log, "worker", node_name(settings)):
        try:
            await_head(host, port, console)
            with running(node, console):
                threading.Event().wait()
        finally:
            note.remove()
    return 0


@contextmanager
def ending_quietly(console: Console) -> Iterator[None]:
    """Ctrl-C and SIGTERM are how the service is meant to end: no traceback, no failure."""
    try:
        with interruptible():
            yield
    except KeyboardInterrupt:
        pass
    console.print("Stopped.")


@contextmanager
def head_running(settings: Settings, console: Console) -> Iterator[None]:
    """A Ray head runs inside, and its note lies in the state directory.

    Raises:
        OperatorError: Ray does not start.
    """
    note = RuntimeFile(settings.runtime_file)
    noted = port_settings(settings)
    node = RayHead(settings, console, on_change=lambda ray, is_up: note.write(noted, ray, is_up=is_up))
    try:
        with running(node, console):
            yield
    finally:
        note.remove()


def run_daemon(
    settings: Settings,
    console: Console,
    on_first_serving: Callable[[str], None] | None = None,
    *,
    began_the_cluster: bool = True,
) -> None:
    """Run the daemon in the foreground until it is asked to end, with its page, its metrics and its log.

    Args:
        began_the_cluster: this process has just started it, so nobody else acts on it.
    """
    # they import the planner: not for the other verbs
    from scheduler.board import Board
    from scheduler.daemon import Daemon
    from scheduler.front_process import front_for
    from scheduler.metrics.telemetry import Telemetry
    from scheduler.second_opinion import second_opinions
    from scheduler.web.server import page_served

    front, board = front_for(settings, assume=began_the_cluster), Board()
    with (
        logging_of_the_service(settings.log, "daemon", node_name(settings)) as loki,
        closing(Telemetry(settings, board, loki=loki)) as telemetry,
        page_served(settings, board, telemetry.exposition),
        second_opinions(settings) as solver,
    ):
        Daemon(
            settings,
            on_first_serving=on_first_serving,
            # what a person reads there stands in the log for programs
            console=Console(quiet=True) if is_json(settings.log.format) else console,
            front=front,
            solver=solver,
            board=board,
            meter=telemetry.meter,
        ).run()


def head_address(settings: Settings) -> tuple[str, int]:
    """Host and port of the head to join.

    Raises:
        OperatorError: none is given, it is not an address, or Ray could not use it.
    """
    example = "Set RAY_ADDRESS to the head's address and port, such as RAY_ADDRESS=192.168.1.10:6380."
    if not settings.ray.address:
        raise OperatorError("A worker must know which head to join.", example)
    host, _, port = settings.ray.address.removeprefix("ray://").rpartition(":")
    if settings.ray.address.startswith("ray://") or not host or not port.isdecimal():
        raise OperatorError(f"{settings.ray.address!r} is not the address of a head.", example)
    if host in ports.LOOPBACK:
        # Ray replaces loopback by the address of a network card, where such a head does not listen
        raise OperatorError(
            f"A head on loopback ({settings.ray.address}) takes no workers.",
            "Start the head with HOST_IP set to an address of its machine, and give that one as RAY_ADDRESS.",
        )
    return host.strip("[]"), int(port)


def await_head(host: str, port: int, console: Console) -> None:
    """Wait until somebody listens at the head's address, for as long as it takes."""
    said = False
    while not _listens(host, port):
        if not said:
            console.print(f"Nothing answers at {host}:{port} yet; waiting for the head.", markup=False)
            said = True
        threading.Event().wait(HEAD_LOOK_SECONDS)


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=HEAD_LOOK_SECONDS).close()
    except OSError:
        return False
    return True
