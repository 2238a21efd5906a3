"""The gateway's API keys, as the operator sees them: where they are, and whether there must be some."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from calendars.called import command
from scheduler.errors import OperatorError
from scheduler.settings import Settings
from serve_apps.gateway.database import TooNew
from serve_apps.gateway.keys import KEYS_FILE, KeyStore

FIRST_KEY_FILE = "first_key"


@contextmanager
def opened(settings: Settings) -> Iterator[KeyStore]:
    """The keys in the gateway's folder, which is made if there is none.

    Raises:
        OperatorError: they cannot be read or written.
    """
    path = (settings.serve.gateway_dir or settings.in_state_dir("gateway")) / KEYS_FILE
    try:
        store = KeyStore(path)
    except (OSError, sqlite3.Error, TooNew) as error:
        raise OperatorError(
            f"The keys in {path} cannot be used: {error}.",
            "Correct the folder's permissions, or set NDIF_SERVE__GATEWAY_DIR to the folder of the head.",
        ) from error
    try:
        yield store
    except (OSError, sqlite3.Error) as error:
        raise OperatorError(f"The keys in {path} cannot be used: {error}.", "Try again.") from error
    finally:
        store.close()


def require_keys(settings: Settings, now: datetime) -> Path | None:
    """Refuse to open the gateway where nobody has a key, and where nobody is to get a first one.

    Returns:
        The file with the first key, if it was made just now.

    Raises:
        OperatorError: the gateway would listen beyond loopback (or is to ask for keys), there is no key,
            and ``serve.first_key_for`` names nobody; or the keys cannot be read or written.
    """
    serve = settings.serve
    if serve.loopback_only and not serve.require_keys:
        return None
    with opened(settings) as store:
        known = store.all()
        if any(key.revoked is None for key in known):
            return None
        # whoever revoked the last one did not mean a new one to be made
        if serve.first_key_for and not known:
            return _first_key(store, settings, serve.first_key_for, now)
    why = "keys are required" if serve.loopback_only else f"it listens on {serve.host}, beyond this machine"
    raise OperatorError(
        f"The gateway asks for keys because {why}, and there is no key yet.",
        f"Make one with {command('keys add')} --mail YOU@EXAMPLE.ORG, with --trusted for whoever may run "
        "traced blocks; or leave NDIF_SERVE__HOST at 127.0.0.1.",
    )


def _first_key(store: KeyStore, settings: Settings, mail: str, now: datetime) -> Path:
    path = settings.in_state_dir(FIRST_KEY_FILE)
    # the file before the key: a key that nobody can read would stand in the way of the next start
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(store.add(mail, ("first",), True, now)[1] + "\n")
    return path
