"""Where large results wait for their clients: the gateway's own disk, or an S3 server such as MinIO.

The link a client is given authorises itself and expires: nnsight's client fetches it without a key.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import secrets
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import quote, urlsplit

SECRET_BYTES = 32
COPY_BYTES = 1024 * 1024
S3_TIMEOUT_SECONDS = 20.0
MAX_PRESIGNED_SECONDS = 7 * 86400
"""S3 signs no longer links."""
DEFAULT_BUCKET = "ndif-results"


class StoreError(RuntimeError):
    """The store could not take a result; the text is for the operator's log."""


class ObjectStore(Protocol):
    """Keeps results by name. Names are made by the gateway and hold letters, digits and dashes."""

    async def put(self, name: str, data: bytes) -> None:
        """Keeps ``data``, whole or not at all. Raises ``StoreError``."""
        ...

    def link(self, name: str, base_url: str, now: float, seconds: float) -> str:
        """A URL that gives ``name`` to whoever has it, for so many seconds from ``now`` (Unix seconds).

        ``base_url`` is the gateway's own, with a slash at its end.
        """
        ...

    async def remove(self, names: Iterable[str]) -> None:
        """Lets results go; what is not there is no mistake. Raises ``StoreError``."""
        ...


class DiskStore:
    """Results as files in ``folder``, links signed with a secret kept beside them (HMAC-SHA256).

    All replicas of the gateway share the folder, and any of them answers a link.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "results"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._secret = shared_secret(folder / "link_secret")

    async def put(self, name: str, data: bytes) -> None:
        try:
            await asyncio.to_thread(write_whole, self._folder / name, data)
        except OSError as error:
            raise StoreError(f"a result could not be written: {error}") from error

    def link(self, name: str, base_url: str, now: float, seconds: float) -> str:
        expires = int(now + seconds)
        return f"{base_url}results/{quote(name)}?expires={expires}&signature={self._sign(name, expires)}"

    async def remove(self, names: Iterable[str]) -> None:
        for name in names:
            (self._folder / name).unlink(missing_ok=True)

    def open(self, name: str, expires: int, signature: str, now: float) -> Path | None:
        """The file behind a link that is genuine and has not expired, None for any other."""
        genuine = hmac.compare_digest(self._sign(name, expires).encode(), signature.encode())
        path = self._folder / name
        # a genuine signature was made here, so the name is one of ours and no path
        return path if genuine and now < expires and path.is_file() else None

    def _sign(self, name: str, expires: int) -> str:
        digest = hmac.digest(self._secret, f"{name}\n{expires}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


class S3Store:
    """Results in a bucket of an S3 server, with presigned links.

    Credentials come from where boto3 always looks (``AWS_ACCESS_KEY_ID`` and so on).
    """

    def __init__(self, url: str, public_url: str | None = None) -> None:
        """``url`` is ``http(s)://host:port/bucket``, ``public_url`` the same as clients reach it."""
        endpoint, self._bucket = split_store_url(url)
        self._client = _client(endpoint)
        # the host is part of what is signed
        self._signer = _client(split_store_url(public_url)[0]) if public_url else self._client
        self._there = False

    async def put(self, name: str, data: bytes) -> None:
        await asyncio.to_thread(self._put, name, data)

    def _put(self, name: str, data: bytes) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            if not self._there:
                self._make_bucket()
            self._client.put_object(Bucket=self._bucket, Key=name, Body=data)
        except (BotoCoreError, ClientError) as error:
            raise StoreError(f"the object store did not take a result: {error}") from error

    def _make_bucket(self) -> None:
        from botocore.exceptions import ClientError

        try:
            self._client.head_bucket(Bucket=self._bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
                raise
            with suppress(
                self._client.exceptions.BucketAlreadyOwnedByYou, self._client.exceptions.BucketAlreadyExists
            ):
                self._client.create_bucket(Bucket=self._bucket)
        self._there = True

    def link(self, name: str, base_url: str, now: float, seconds: float) -> str:
        lasts = max(1, min(int(seconds), MAX_PRESIGNED_SECONDS))
        where = {"Bucket": self._bucket, "Key": name}
        return str(self._signer.generate_presigned_url("get_object", Params=where, ExpiresIn=lasts))

    async def remove(self, names: Iterable[str]) -> None:
        await asyncio.to_thread(self._remove, list(names))

    def _remove(self, names: list[str]) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            for name in names:
                self._client.delete_object(Bucket=self._bucket, Key=name)
        except (BotoCoreError, ClientError) as error:
            raise StoreError(f"the object store did not let results go: {error}") from error


def split_store_url(url: str) -> tuple[str, str]:
    """Endpoint and bucket. Raises ``ValueError``, also for credentials, which others could read there."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not an address such as http://minio:9000/bucket")
    if parts.username or parts.password:
        raise ValueError(
            "the object store's address holds a password: set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY in the environment instead"
        )
    return f"{parts.scheme}://{parts.netloc}", parts.path.strip("/") or DEFAULT_BUCKET


def _client(endpoint: str) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        signature_version="s3v4",
        # a bucket's name as a host name needs DNS that MinIO seldom has
        s3={"addressing_style": "path"},
        connect_timeout=5,
        read_timeout=S3_TIMEOUT_SECONDS,
        retries={"max_attempts": 3, "mode": "standard"},
    )
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return boto3.client("s3", endpoint_url=endpoint, region_name=region, config=config)


def write_whole(path: Path, data: bytes | BinaryIO) -> None:
    """Writes a file that others see complete or not at all. Raises ``OSError``."""
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    try:
        with new.open("wb") as file:
            if isinstance(data, bytes):
                file.write(data)
            else:
                shutil.copyfileobj(data, file, COPY_BYTES)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def shared_secret(path: Path) -> bytes:
    """The secret in ``path``, made by the first process that asks and readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(SECRET_BYTES))
    # a link appears whole, and only where nobody was faster
    with suppress(FileExistsError):
        os.link(new, path)
    new.unlink()
    secret = path.read_bytes()
    if len(secret) < SECRET_BYTES:
        raise StoreError(f"{path} is too short to be a secret; delete it, and it is made anew.")
    return secret
