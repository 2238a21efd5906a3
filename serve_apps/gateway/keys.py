"""Who calls: API keys in a SQLite file, each kept as a scrypt hash. Imports no Ray.

A key reads ``ndif-ID-SECRET``. The id is no secret: it names the key in lists and owns its jobs.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import sqlite3
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from serve_apps.gateway.database import connect

KEYS_FILE = "keys.sqlite3"
"""Its name in the gateway's folder."""

PREFIX = "ndif"
MAX_KEY_CHARACTERS = 200
COST = {"n": 2**14, "r": 8, "p": 1}
"""scrypt's: 16 MiB and about 50 ms for each guess."""
REMEMBERED = 1000

MIGRATIONS = (
    (
        """CREATE TABLE keys (
            id TEXT PRIMARY KEY, salt BLOB NOT NULL, hash BLOB NOT NULL, mail TEXT NOT NULL,
            tags TEXT NOT NULL, trusted INTEGER NOT NULL, created TEXT NOT NULL, revoked TEXT
        ) STRICT""",
    ),
)


@dataclass(frozen=True)
class Caller:
    """Who makes a request. ``owner`` is the key's id, empty for somebody without a key."""

    owner: str = ""
    mail: str | None = None
    tags: tuple[str, ...] = ()
    trusted: bool = False


ANONYMOUS = Caller()


@dataclass(frozen=True)
class Key:
    """What is known of a key; of its secret, nothing."""

    id: str
    mail: str
    tags: tuple[str, ...]
    trusted: bool
    created: datetime
    revoked: datetime | None = None

    @property
    def caller(self) -> Caller:
        return Caller(self.id, self.mail, self.tags, self.trusted)


class KeyStore:
    """The keys in one file, which other processes read and write at the same time. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path, MIGRATIONS)
        self._lock = threading.Lock()
        self._verified: OrderedDict[bytes, str] = OrderedDict()

    def close(self) -> None:
        self._connection.close()

    def add(self, mail: str, tags: tuple[str, ...], trusted: bool, now: datetime) -> tuple[Key, str]:
        """A new key, and its text, which nobody can tell again."""
        key = Key(secrets.token_hex(5), mail, tags, trusted, now)
        secret, salt = secrets.token_urlsafe(32), secrets.token_bytes(16)
        row = (key.id, salt, _hash(secret, salt), mail, json.dumps(tags), trusted, now.isoformat())
        with self._lock:
            self._connection.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, NULL)", row)
        return key, f"{PREFIX}-{key.id}-{secret}"

    def all(self) -> list[Key]:
        """Every key, the oldest first, revoked ones too."""
        with self._lock:
            return [_key(row) for row in self._connection.execute("SELECT * FROM keys ORDER BY created")]

    def revoke(self, key_id: str, now: datetime) -> Key | None:
        """Ends a key at once, everywhere; None if there is no such key. Twice changes nothing."""
        with self._lock:
            self._connection.execute(
                "UPDATE keys SET revoked = ? WHERE id = ? AND revoked IS NULL", (now.isoformat(), key_id)
            )
        row = self._row(key_id)
        return None if row is None else _key(row)

    def recognise(self, text: str) -> Caller | None:
        """Whose key this is, if this process has verified it before: one look-up, so that revoking
        works at once. None says nothing: ``identify`` must be asked."""
        key_id = self._verified.get(_digest(text))
        row = None if key_id is None else self._row(key_id)
        return None if row is None or row["revoked"] is not None else _key(row).caller

    def identify(self, text: str) -> Caller | None:
        """Whose key this is; None for one that is malformed, unknown, wrong or revoked. Takes its time."""
        prefix, _, rest = text.partition("-")
        key_id, _, secret = rest.partition("-")
        if prefix != PREFIX or not secret or len(text) > MAX_KEY_CHARACTERS:
            return None
        row = self._row(key_id)
        if row is None or row["revoked"] is not None:
            return None
        if not hmac.compare_digest(_hash(secret, row["salt"]), row["hash"]):
            return None
        with self._lock:
            self._verified[_digest(text)] = key_id
            while len(self._verified) > REMEMBERED:
                self._verified.popitem(last=False)
        return _key(row).caller

    def _row(self, key_id: str) -> sqlite3.Row | None:
        with self._lock:
            row: sqlite3.Row | None = self._connection.execute(
                "SELECT * FROM keys WHERE id = ?", (key_id,)
            ).fetchone()
        return row


def _hash(secret: str, salt: bytes) -> bytes:
    return hashlib.scrypt(secret.encode(errors="replace"), salt=salt, **COST)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="replace")).digest()


def _key(row: sqlite3.Row) -> Key:
    return Key(
        id=row["id"],
        mail=row["mail"],
        tags=tuple(json.loads(row["tags"])),
        trusted=bool(row["trusted"]),
        created=datetime.fromisoformat(row["created"]),
        revoked=None if row["revoked"] is None else datetime.fromisoformat(row["revoked"]),
    )
