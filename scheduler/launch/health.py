"""Whether the service of this container is well: ``python -m scheduler.launch.health``.

Exit status 0 and a word on the standard output, or 1 and the reason on the standard error.
"""

from __future__ import annotations

import sys

from scheduler.errors import OperatorError
from scheduler.launch.ray_node import alive_nodes
from scheduler.launch.runtime import RuntimeFile
from scheduler.launch.service import WORKER_NOTE
from scheduler.settings import Settings, load_settings


def problem(settings: Settings) -> str | None:
    """What is wrong with the head or the worker of this state directory, None if nothing is."""
    head = RuntimeFile(settings.runtime_file).read()
    note = head or RuntimeFile(settings.path(settings.state_dir) / WORKER_NOTE).read()
    if note is None:
        return "neither a head nor a worker runs here"
    if note.launcher.find() is None:
        return f"process {note.pid}, which ran the service, has ended"
    if note.ray is None or note.ray.find() is None:
        return "Ray has ended and is not up again yet"
    if not note.ray_is_up:
        return "Ray is starting"
    if head is not None and not alive_nodes(settings):
        return f"the dashboard at {settings.ray.dashboard} does not answer"
    return None


def main() -> int:
    try:
        found = problem(load_settings())
    except OperatorError as error:
        found = str(error)
    (sys.stderr if found else sys.stdout).write(f"{found or 'well'}\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
