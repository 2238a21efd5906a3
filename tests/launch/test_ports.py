"""Ports: the wanted one if free, else the next that is, never one of Ray's own."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from scheduler.errors import OperatorError
from scheduler.launch import ports
from scheduler.launch.ports import WantedPort
from scheduler.settings import RaySettings, ServeSettings, Settings
from tests.ray_cluster import free_port


@contextmanager
def listening(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    with socket.socket() as server:
        server.bind((host, port))
        server.listen()
        yield server.getsockname()[1]


def wanted(port: int, host: str = "127.0.0.1") -> WantedPort:
    return WantedPort("the gateway", "serve", "port", host, port)


def test_a_free_port_is_given_as_wanted() -> None:
    port = free_port()
    (given,) = ports.settle([wanted(port)])
    assert (given.port, given.moved) == (port, False)


@pytest.mark.parametrize("listener", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", ""])
def test_a_listener_takes_a_port_on_its_interface_and_on_all(listener: str, host: str) -> None:
    with listening(listener) as port:
        assert not ports.is_free(host, port)
        (given,) = ports.settle([wanted(port, host)])
    assert given.moved
    assert given.port > port


def test_a_connection_that_was_closed_a_moment_ago_does_not_take_a_port() -> None:
    with listening() as port:
        pass
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()
        client.close()
    assert ports.is_free("127.0.0.1", port)


def test_ports_of_ray_workers_are_never_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda host, port: port not in (10001, 20000))
    (given,) = ports.settle([wanted(10001)])
    assert given.port == 20001


def test_a_moved_service_does_not_take_what_another_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda host, port: port != 8266)
    given = ports.settle([wanted(8266), wanted(8267)])
    assert [one.port for one in given] == [8268, 8267]


def test_two_services_never_get_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda host, port: True)
    given = ports.settle([wanted(9000), wanted(9000)])
    assert [one.port for one in given] == [9000, 9001]


def test_no_port_left_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda host, port: False)
    with pytest.raises(OperatorError, match="65000"):
        ports.settle([wanted(65000)])


def test_a_port_that_must_be_free_is_named_with_what_to_set() -> None:
    with listening() as port, pytest.raises(OperatorError) as error:
        ports.require([wanted(port)])
    assert f"Port {port}, wanted for the gateway, is taken" in str(error.value)
    assert "NDIF_SERVE__PORT" in str(error.value)


def test_given_ports_end_up_in_the_settings() -> None:
    settings = Settings(ray=RaySettings(dashboard_port=4001), serve=ServeSettings(port=4002))
    given = [ports.GivenPort(one, one.port + 1000) for one in ports.wanted_ports(settings)]
    moved = ports.with_ports(settings, given)
    assert (moved.ray.dashboard_port, moved.serve.port) == (5001, 5002)
    assert moved.ray.host == settings.ray.host
