"""A real head and a real worker: they form a cluster only insiders can use, and go without a trace."""

from __future__ import annotations

import io
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from rich.console import Console

from scheduler.errors import OperatorError
from scheduler.launch import options, service
from scheduler.launch.processes import family
from scheduler.launch.ray_node import RayHead, RayNode, RayWorker, alive_nodes
from scheduler.launch.token import read_token
from scheduler.settings import RaySettings, Settings
from tests.ray_cluster import free_port, wait_until

STOP_SECONDS = 15


def own_address() -> str:
    """An address of this machine that is not loopback; sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


def settings_in(folder: Path, **ray: Any) -> Settings:
    values = {"head_port": free_port(), "client_port": free_port(), "dashboard_port": free_port()}
    values |= {"token_path": folder / "token", "num_gpus": 0}
    return Settings(state_dir=folder, ray=RaySettings(**(values | ray)))


def quiet() -> Console:
    return Console(file=io.StringIO())


def listeners(process: psutil.Process) -> set[str]:
    """The addresses on which the family of ``process`` listens."""
    found: set[str] = set()
    for member in family(process):
        try:
            connections = member.net_connections(kind="tcp")
        except psutil.Error:
            continue
        found |= {one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN}
    return found


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[RayNode], psutil.Process]]:
    """Starts nodes; whatever a failing test leaves of them is stopped afterwards."""
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")
    with ExitStack() as stack:

        def started(node: RayNode) -> psutil.Process:
            stack.callback(shutil.rmtree, options.temp_dir(node.settings, node.role), ignore_errors=True)
            stack.callback(node.stop)
            node.start()
            identity = node.process_id
            assert identity is not None
            return psutil.Process(identity.pid)

        yield started


def stop_and_see(node: RayNode, process: psutil.Process) -> None:
    """Stop a node within the time there is, and see that nothing of it is left."""
    members = {process, *family(process)}
    assert len(members) > 2
    began = time.monotonic()
    node.stop()
    assert time.monotonic() - began < STOP_SECONDS
    assert [one for one in members if one.is_running() and one.status() != psutil.STATUS_ZOMBIE] == []
    assert node.process_id is None


@pytest.mark.ray
def test_head_and_worker_form_a_cluster_and_leave_nothing(
    tmp_path: Path, start: Callable[[RayNode], psutil.Process]
) -> None:
    address = own_address()
    settings = settings_in(tmp_path / "head", host=address, node_name="first")
    other_settings = settings_in(tmp_path / "other", node_name="other")
    head, other = RayHead(settings, quiet()), RayHead(other_settings, quiet())
    head_process, other_process = start(head), start(other)

    join = {"address": f"{address}:{settings.ray.head_port}", "node_name": "second"}
    worker = RayWorker(settings_in(tmp_path / "worker", token_path=settings.ray.token_path, **join), quiet())
    worker_process = start(worker)
    wait_until(lambda: alive_nodes(settings) == {"first", "second"}, 20, "both nodes by their labels")

    # only with the token
    nodes = f"{settings.ray.dashboard}/api/v0/nodes"
    assert httpx.get(nodes).status_code == 401
    assert httpx.get(nodes, headers={"Authorization": f"Bearer {secrets.token_hex(32)}"}).status_code == 403
    token = read_token(settings.ray.token_path)
    assert httpx.get(nodes, headers={"Authorization": f"Bearer {token}"}).status_code == 200

    # a worker that goes is missed at once, and takes nobody along
    stop_and_see(worker, worker_process)
    wait_until(lambda: alive_nodes(settings) == {"first"}, 10, "the head alone")
    stop_and_see(head, head_process)
    assert other_process.is_running()
    assert alive_nodes(other_settings) == {"other"}

    # the other one is on loopback, with every server it has
    assert {one.removeprefix("::ffff:") for one in listeners(other_process)} == {"127.0.0.1"}
    stop_and_see(other, other_process)


@pytest.mark.ray
def test_a_head_refuses_a_worker_with_another_token(
    tmp_path: Path, start: Callable[[RayNode], psutil.Process]
) -> None:
    address = own_address()
    settings = settings_in(tmp_path / "head", host=address)
    start(RayHead(settings, quiet()))
    (tmp_path / "wrong").write_text(secrets.token_hex(32))
    joining = settings_in(
        tmp_path / "worker", address=f"{address}:{settings.ray.head_port}", token_path=tmp_path / "wrong"
    )
    with pytest.raises(OperatorError, match="does not accept the token"):
        start(RayWorker(joining, quiet()))


def test_a_head_that_cannot_start_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[[RayNode], psutil.Process]
) -> None:
    monkeypatch.setattr(options, "head_arguments", lambda *_: ["--no-such-option"])
    head = RayHead(settings_in(tmp_path), quiet())
    with pytest.raises(OperatorError) as error:
        start(head)
    assert "no-such-option" in error.value.reason
    assert str(head.log_path) in error.value.remedy
    assert head.process_id is None


def test_a_node_that_was_given_up_does_not_start(
    tmp_path: Path, start: Callable[[RayNode], psutil.Process]
) -> None:
    head = RayHead(settings_in(tmp_path), quiet())
    head.give_up()
    with pytest.raises(OperatorError, match="stopped"):
        start(head)
    assert head.process_id is None
    assert head.stop() is None


@pytest.mark.parametrize(
    ("address", "says"),
    [
        (None, "must know which head"),
        ("192.168.1.10", "is not the address"),
        ("ray://192.168.1.10:10001", "is not the address"),
        ("host:port", "is not the address"),
        ("127.0.0.1:6380", "takes no workers"),
        ("localhost:6380", "takes no workers"),
    ],
)
def test_a_worker_without_a_head_to_join_is_told(address: str | None, says: str) -> None:
    with pytest.raises(OperatorError, match=says) as error:
        service.head_address(Settings(ray=RaySettings(address=address)))
    assert "RAY_ADDRESS" in error.value.remedy


def test_a_heads_address_is_understood() -> None:
    assert service.head_address(Settings(ray=RaySettings(address="gpu.lab:6380"))) == ("gpu.lab", 6380)
    assert service.head_address(Settings(ray=RaySettings(address="[fd00::1]:6380"))) == ("fd00::1", 6380)


def test_a_worker_without_the_token_is_told(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, address="192.0.2.9:6380", token_path=tmp_path / "none")
    with pytest.raises(OperatorError, match="copy that file here"):
        service.run_worker(settings)
