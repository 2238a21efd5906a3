"""``python -m serve_apps.controller.process``: holds the Ray driver of a daemon, and speaks with the actor.

Reads one line of JSON from standard input (``identity``, ``name``, ``held``, ``state``), answers with one on
standard output, and so on; ends with its input, which ends with the daemon, however that ends. ``problem``
in an answer tells why the actor could not be asked.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import threading
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from serve_apps.controller.desk import Desk

NAME = "Controller"
NAMESPACE = "NDIF"
ANSWER_SECONDS = 5.0
"""Deadline of one call of the actor."""


class _Controller(Desk):
    """The desk as an actor; one that Ray has restarted knows that somebody may have the lease."""

    def __init__(self, lease_seconds: float) -> None:
        restarted = ray.get_runtime_context().was_current_actor_reconstructed
        super().__init__(lease_seconds, anew=restarted)


def main() -> int:
    """Connect, then answer line by line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--address", required=True)
    parser.add_argument("--lease-seconds", type=float, required=True)
    options = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else is printed here is no answer
    ray.init(address=options.address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
    actor: Any = None
    identity = ""
    for line in sys.stdin:
        asked = json.loads(line)
        identity = asked["identity"]
        try:
            actor = actor or _actor(options.lease_seconds)
            call = actor.exchange.remote(identity, asked["name"], asked["held"], asked["state"])
            answer = ray.get(call, timeout=ANSWER_SECONDS)
        except (ray.exceptions.RayError, ValueError, TimeoutError, ConnectionError) as error:
            actor, answer = None, {"problem": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
        answers.write(json.dumps(answer) + "\n")
    _give_back(actor, identity)
    return 0


def _actor(lease_seconds: float) -> Any:
    """The actor of this cluster, made where there is none."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    made = ray.remote(_Controller).options(
        name=NAME,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
        scheduling_strategy=here,
    )
    return made.remote(lease_seconds)


def _give_back(actor: Any, identity: str) -> None:
    """Release the lease, if that can be done at once, and end."""
    # where the cluster is gone, Ray's own farewell would wait for it
    threading.Timer(3.0, os._exit, (0,)).start()
    if actor is not None:
        with contextlib.suppress(ray.exceptions.RayError, TimeoutError):
            ray.get(actor.release.remote(identity), timeout=2.0)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
