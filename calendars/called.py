"""How the commands of this service are called by whoever reads of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "NDIF_COMMAND"
"""Set by ``start.sh``, ready to be typed: nothing else of ours need be on the PATH of who called it."""


def command(words: str = "") -> str:
    """A command of ours as it can be typed, such as ``./start.sh plan`` or ``ndif-ray plan``."""
    program = Path(sys.argv[0])
    as_module = program.name == "__main__.py" and program.parent.name == "scheduler"
    called = os.environ.get(VARIABLE) or ("python -m scheduler" if as_module else "ndif-ray")
    return f"{called} {words}".rstrip()
