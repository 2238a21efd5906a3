"""Names of Serve applications."""

from __future__ import annotations

import hashlib
import re

from scheduler.types import Model
from serve_apps.contract import MODEL_APPLICATION_PREFIX

MAX_WORD = 40


def application_name(model: Model, node: str) -> str:
    """The application that serves a model on a node: readable, and unique by a digest of both."""
    digest = hashlib.sha256(f"{model.key}\n{node}".encode()).hexdigest()[:8]
    words = (_word(model.repo_id.rpartition("/")[2]), _word(node), digest)
    return MODEL_APPLICATION_PREFIX + "-".join(words)


def _word(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:MAX_WORD]
