"""How far a replica says it is while its model is loaded; on Ray in ``tests/faults/test_progress.py``."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from serve_apps.contract import ModelArgs
from serve_apps.model import progress as progress_module
from serve_apps.model.loading import cached_repository, load_model
from serve_apps.model.progress import Download, LoadingProgress, TellsController, wanted_sizes
from tests.ray_cluster import wait_until
from tests.tiny_model import TINY_REPO_ID, model_key

REPO, COMMIT = "org/slow", "c" * 40
FILES = {"config.json": b"{}" * 500, "model.safetensors": b"w" * 4_000_000, "model.bin": b"b" * 9_000_000}
ARGS = ModelArgs(
    node="cpu-0",
    model_key=model_key(),
    repo_id=TINY_REPO_ID,
    dtype="float32",
    num_gpus=0,
    memory_bytes=0,
    footprint_bytes=0,
)


def sha256(name: str) -> str:
    return hashlib.sha256(FILES[name]).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """Hands out `FILES`; of the weights the second half only once it ``may_go_on``."""

    protocol_version = "HTTP/1.1"
    may_go_on: ClassVar[threading.Event] = threading.Event()

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""

    def do_HEAD(self) -> None:
        if not self.path.startswith(("/api/models/", f"/{REPO}/")):
            self.send_error(404)
            return
        if self.path.startswith("/api/"):
            listed = "/tree/" not in self.path
            files = [
                {
                    "rfilename" if listed else "path": name,
                    "type": "file",
                    "size": len(data),
                    "blobId" if listed else "oid": "0" * 40,
                    "lfs": {"sha256" if listed else "oid": sha256(name), "size": len(data), "pointerSize": 1},
                }
                for name, data in FILES.items()
            ]
            body = json.dumps({"id": REPO, "sha": COMMIT, "siblings": files} if listed else files).encode()
            headers = {"Content-Type": "application/json"}
        else:
            name = self.path.rpartition("/")[2]
            body = FILES[name]
            headers = {"ETag": f'"{sha256(name)}"', "X-Repo-Commit": COMMIT}
        self.send_response(200)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            half = len(body) // 2
            self.wfile.write(body[:half])
            self.wfile.flush()
            if self.path.endswith("model.safetensors"):
                self.may_go_on.wait(30)
            self.wfile.write(body[half:])

    do_GET = do_HEAD


class HubServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # the client asks for all files at once


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from huggingface_hub import constants

    server = HubServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    Hub.may_go_on.clear()
    yield url
    Hub.may_go_on.set()
    server.shutdown()
    server.server_close()


def test_the_share_of_a_download_is_that_of_its_bytes(hub: str, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    download = Download(REPO, None, cached_repository(tmp_path, REPO))
    assert download.fraction == 0.0
    fetching = threading.Thread(
        target=snapshot_download, args=(REPO,), kwargs={"cache_dir": tmp_path, "endpoint": hub}
    )
    fetching.start()
    half = wait_until(lambda: (share := download.fraction) and share > 0.45 and share, 20, "half is here")
    assert half < 0.55
    Hub.may_go_on.set()
    fetching.join()
    assert download.fraction == 1.0


def test_a_hub_that_says_nothing_leaves_the_share_unknown(hub: str, tmp_path: Path) -> None:
    from huggingface_hub import constants

    constants.ENDPOINT = "http://127.0.0.1:9"  # put back by the fixture
    assert Download(REPO, None, cached_repository(tmp_path, REPO)).fraction is None


def test_only_the_weights_that_are_fetched_count() -> None:
    def file(name: str, size: int) -> SimpleNamespace:
        return SimpleNamespace(rfilename=name, size=size, blob_id=name, lfs=None)

    listed = [file("a.safetensors", 5), file("a.bin", 7), file("config.json", 1), file("onnx/a.onnx", 9)]
    assert wanted_sizes(listed) == {"a.safetensors": 5, "config.json": 1}
    assert wanted_sizes(listed[1:]) == {"a.bin": 7, "config.json": 1}


def test_a_model_that_is_loaded_tells_how_many_of_its_weights_are_in_place(hf_home: Path) -> None:
    told: list[tuple[str, float | None]] = []
    seen: list[tuple[str, float | None]] = []
    first = threading.Event()

    def tell(step: str, fraction: float | None) -> None:
        told.append((step, fraction))
        first.set()

    with LoadingProgress(tell, look_seconds=0.001) as progress:
        assert first.wait(5)
        load_model(ARGS, progress)
        seen.append(progress.now)
        progress.warming()
        wait_until(lambda: told[-1] == ("warming", None), 5, "it is told that it is warmed", every=0.01)
    assert told[0] == ("loading", 0.0)
    assert seen == [("loading", 1.0)]
    shares = [share for step, share in told if step == "loading" and share is not None]
    assert shares == sorted(shares)


def test_what_cannot_be_told_stops_nothing() -> None:
    tries = threading.Semaphore(0)

    def tell(step: str, fraction: float | None) -> None:
        tries.release()
        raise ConnectionError("nobody there")

    with LoadingProgress(tell, look_seconds=0.001) as progress:
        assert tries.acquire(timeout=5)
        progress.warming()
        assert tries.acquire(timeout=5)


def test_loading_does_not_wait_for_one_who_does_not_listen() -> None:
    asked, release = threading.Event(), threading.Event()

    def tell(step: str, fraction: float | None) -> None:
        asked.set()
        release.wait(30)

    with LoadingProgress(tell) as progress:
        assert asked.wait(5)
        progress.warming()
        assert progress.now == ("warming", None)
    release.set()


def test_where_there_is_no_controller_it_is_not_looked_for_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray

    looked: list[str] = []

    def get_actor(name: str, namespace: str) -> Any:
        looked.append(f"{namespace}/{name}")
        raise ValueError("no such actor")

    monkeypatch.setattr(ray, "get_actor", get_actor)
    tells = TellsController("app")
    tells("loading", 0.0)
    tells("loading", 0.5)
    assert looked == ["NDIF/Controller"]
    monkeypatch.setattr(progress_module, "SEARCH_SECONDS", -1.0)
    tells("loading", 0.6)
    assert len(looked) == 2


def test_a_replica_outside_serve_tells_nobody(replica: Any) -> None:
    assert asyncio.run(replica.complete(_request())).text is not None


def _request() -> Any:
    from serve_apps.messages import GenerationRequest

    return GenerationRequest(prompt="the cat", max_tokens=1)
