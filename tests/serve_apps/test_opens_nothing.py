"""The gateway, the scheduler and the calendars never open what a client sent."""

from __future__ import annotations

import ast
import struct
from pathlib import Path

import pytest

from scheduler.settings import ROOT
from serve_apps.gateway.routing import AppState
from serve_apps.messages import BlockRequest
from tests.serve_apps.fakes import FakeBackend
from tests.serve_apps.front import follow, gateway_on, post_job

OPENERS = {
    "pickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "torch", "nnsight",
    "zstandard", "zstd", "zlib", "gzip", "bz2", "lzma", "zipfile", "tarfile",
}  # fmt: skip
CLOSED = [
    *sorted((ROOT / "serve_apps" / "gateway").glob("*.py")),
    ROOT / "serve_apps" / "messages.py",
    ROOT / "serve_apps" / "contract.py",
    ROOT / "serve_apps" / "providers" / "object_store.py",
    *sorted((ROOT / "scheduler").rglob("*.py")),
    *sorted((ROOT / "calendars").rglob("*.py")),
]


def imported(source: str) -> set[str]:
    """Top-level packages that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("path", CLOSED, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_unpickles_or_decompresses_is_imported(path: Path) -> None:
    assert not imported(path.read_text()) & OPENERS


def test_an_import_inside_a_function_would_be_noticed() -> None:
    assert imported("def f():\n    from torch.serialization import load") & OPENERS


def zstd_bomb() -> bytes:
    """A zstd frame of 13 bytes that says it holds 2**62."""
    return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**62)


class Trap:
    """Unpickling an instance would call ``exec``."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('opened')",)


def pickle_trap() -> bytes:
    import pickle

    return pickle.dumps(Trap())


@pytest.mark.parametrize("payload", [zstd_bomb(), pickle_trap(), b"", b"\x00" * 10_000_000])
@pytest.mark.parametrize("compress", [True, False])
def test_bombs_go_through_as_bytes(payload: bytes, compress: bool) -> None:
    backend = FakeBackend(states={"a": AppState.SERVING})
    with gateway_on(backend) as (_, client):
        done = follow(client, post_job(client, payload=payload, compress=compress).json()["id"])
    assert done["status"] == "COMPLETED"
    (request,) = [request for _, request in backend.asked if isinstance(request, BlockRequest)]
    assert request.payload == payload
