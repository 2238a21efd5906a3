"""The gateway's API keys, as the operator sees them: where they are, and whether there must be some."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from scheduler.errors import OperatorError
from scheduler.settings import Settings
from serve_apps.gateway.database import TooNew
from serve_apps.gateway.keys import KEYS_FILE, KeyStore


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


def require_keys(settings: Settings) -> None:
    """Refuse to open the gateway where nobody has a key.

    Raises:
        OperatorError: it would listen beyond loopback (or is to ask for keys), and there is no key.
    """
    serve = settings.serve
    if serve.loopback_only and not serve.require_keys:
        return
    with opened(settings) as store:
        if any(key.revoked is None for key in store.all()):
            return
    why = "keys are required" if serve.loopback_only else f"it listens on {serve.host}, beyond this machine"
    raise OperatorError(
        f"The gateway asks for keys because {why}, and there is no key yet.",
        "Make one with ./start.sh keys add --mail YOU@EXAMPLE.ORG, with --trusted for whoever may run "
        "traced blocks; or leave NDIF_SERVE__HOST at 127.0.0.1.",
    )
