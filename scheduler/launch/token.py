"""The cluster's access token: whoever has it may run code on every node."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from loguru import logger

from scheduler.errors import OperatorError

TOKEN_BYTES = 32
OWNER_ONLY = 0o600


def make_token(path: Path) -> None:
    """Write a new token for its owner's eyes only, unless there is one; narrow one others can read.

    Raises:
        OperatorError: the file cannot be written, or holds nothing.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # exclusive and with its mode from the start: at no moment can another user read or place it
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY), "w") as file:
            file.write(secrets.token_hex(TOKEN_BYTES))
    except FileExistsError:
        read_token(path)
        _narrow(path)
    except OSError as error:
        raise OperatorError(
            f"The cluster's token cannot be written to {path}: {error}.",
            "Correct the folder's permissions, or set NDIF_RAY__TOKEN_PATH to a file that can be written.",
        ) from error


def read_token(path: Path) -> str:
    """The token in ``path``.

    Raises:
        OperatorError: there is none.
    """
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(
            f"The cluster's token cannot be read from {path}: {error}.",
            "The head writes it on its first start; copy that file here, or set NDIF_RAY__TOKEN_PATH to it.",
        ) from error
    if not token:
        raise OperatorError(
            f"The cluster's token file {path} is empty.",
            "On the head, delete it and start again; on a worker, copy the head's file here.",
        )
    return token


def _narrow(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & 0o077:
        return
    try:
        path.chmod(OWNER_ONLY)
        logger.warning("{} could be read by other users of this machine; now only by you.", path)
    except OSError:
        # a mounted secret is often read-only; that is its keeper's decision
        logger.warning("{} can be read by other users of this machine.", path)
