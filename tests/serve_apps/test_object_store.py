"""Where large results go: the gateway's disk, and a real S3 server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from serve_apps.gateway.routing import AppState
from serve_apps.messages import Frame, FrameKind
from serve_apps.providers.object_store import (
    DEFAULT_BUCKET,
    DiskStore,
    S3Store,
    StoreError,
    shared_secret,
    split_store_url,
    write_whole,
)
from tests.serve_apps.fakes import FakeBackend
from tests.serve_apps.front import follow, gateway_on, post_job

BASE = "http://127.0.0.1:8267/"


def parts(link: str) -> tuple[str, int, str]:
    """Name, expiry and signature in a link of the disk's."""
    address = urlsplit(link)
    query = parse_qs(address.query)
    return address.path.removeprefix("/results/"), int(query["expires"][0]), query["signature"][0]


class TestDisk:
    def test_a_link_gives_what_was_put_until_it_expires(self, tmp_path: Path) -> None:
        store = DiskStore(tmp_path)
        asyncio.run(store.put("one", b"data"))
        name, expires, signature = parts(store.link("one", BASE, 1000.0, 60))
        assert (name, expires) == ("one", 1060)
        path = store.open(name, expires, signature, 1059.9)
        assert path is not None and path.read_bytes() == b"data"
        assert store.open(name, expires, signature, 1060.0) is None

    def test_whatever_is_changed_makes_it_worthless(self, tmp_path: Path) -> None:
        store = DiskStore(tmp_path)
        for name in ("one", "two"):
            asyncio.run(store.put(name, b"data"))
        name, expires, signature = parts(store.link("one", BASE, 1000.0, 60))
        assert store.open("two", expires, signature, 1000.0) is None
        assert store.open(name, expires + 1, signature, 1000.0) is None
        assert store.open(name, expires, signature[:-1], 1000.0) is None
        assert store.open(name, expires, "", 1000.0) is None
        assert store.open(name, expires, "é", 1000.0) is None
        assert store.open("../link_secret", expires, signature, 1000.0) is None

    def test_links_outlive_the_process_and_nobody_else_reads_the_secret(self, tmp_path: Path) -> None:
        asyncio.run(DiskStore(tmp_path).put("one", b"data"))
        link = DiskStore(tmp_path).link("one", BASE, 1000.0, 60)
        assert DiskStore(tmp_path).open(*parts(link), 1000.0) is not None
        assert (tmp_path / "link_secret").stat().st_mode & 0o077 == 0

    def test_processes_that_start_at_once_agree_on_the_secret(self, tmp_path: Path) -> None:
        with ThreadPoolExecutor(8) as pool:
            secrets = set(pool.map(lambda _: shared_secret(tmp_path / "secret"), range(8)))
        assert len(secrets) == 1
        assert [path.name for path in tmp_path.iterdir()] == ["secret"]

    def test_a_secret_that_is_none_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_bytes(b"")
        with pytest.raises(StoreError, match="too short"):
            shared_secret(tmp_path / "secret")

    def test_what_is_let_go_is_gone_and_twice_is_no_mistake(self, tmp_path: Path) -> None:
        store = DiskStore(tmp_path)
        asyncio.run(store.put("one", b"data"))
        for _ in range(2):
            asyncio.run(store.remove(["one"]))
        assert store.open(*parts(store.link("one", BASE, 1000.0, 60)), 1000.0) is None

    def test_a_file_that_cannot_be_written_leaves_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        with pytest.raises(OSError, match="folder"):
            write_whole(tmp_path / "folder", b"data")
        assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of a bucket that does not exist yet, on a server of its own."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}/results"
    finally:
        server.stop()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("credentials")
class TestS3:
    def test_a_presigned_link_gives_what_was_put(self, s3: str) -> None:
        store = S3Store(s3)
        asyncio.run(store.put("one", b"data"))
        link = store.link("one", BASE, time.time(), 60)
        assert httpx.get(link).content == b"data"
        query = parse_qs(urlsplit(link).query)
        assert query["X-Amz-Expires"] == ["60"] and "secret" not in link

    def test_clients_may_reach_it_by_another_address(self, s3: str) -> None:
        link = S3Store(s3, "https://files.example.org/results").link("one", BASE, time.time(), 10**9)
        assert link.startswith("https://files.example.org/results/one?")
        assert parse_qs(urlsplit(link).query)["X-Amz-Expires"] == ["604800"]

    def test_what_is_let_go_is_gone(self, s3: str) -> None:
        store = S3Store(s3)
        asyncio.run(store.put("one", b"data"))
        for _ in range(2):
            asyncio.run(store.remove(["one"]))
        assert httpx.get(store.link("one", BASE, time.time(), 60)).status_code == 404

    def test_a_server_that_is_not_there_is_an_error_of_the_stores(self) -> None:
        with pytest.raises(StoreError, match="did not take"):
            asyncio.run(S3Store("http://127.0.0.1:9/results").put("one", b"data"))

    def test_a_job_ends_in_a_link_to_it(self, s3: str) -> None:
        backend = FakeBackend(states={"a": AppState.SERVING}, frames=(Frame(FrameKind.RESULT, b"large"),))
        with gateway_on(backend, object_store_url=s3) as (_, client):
            done = follow(client, post_job(client).json()["id"])
        assert done["data"].startswith(s3)
        assert httpx.get(done["data"]).content == b"large"

    def test_a_job_whose_result_finds_no_store_is_told(self) -> None:
        backend = FakeBackend(states={"a": AppState.SERVING})
        with gateway_on(backend, object_store_url="http://127.0.0.1:9/results") as (_, client):
            done = follow(client, post_job(client).json()["id"])
        assert done["status"] == "ERROR" and "could not be stored" in done["description"]


def test_a_stores_address_names_server_and_bucket() -> None:
    assert split_store_url("http://minio:9000/results/") == ("http://minio:9000", "results")
    assert split_store_url("https://s3.example.org") == ("https://s3.example.org", DEFAULT_BUCKET)
    for wrong in ("minio:9000", "ftp://minio/results", "http://user:password@minio/results", "http:///x"):
        with pytest.raises(ValueError, match="address"):
            split_store_url(wrong)
