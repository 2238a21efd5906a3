"""Faults on command: what is to happen to the next requests instead of, or after, being served.

Kinds:

==============  ==================================================================================
``error``       the named error of ``errors.NAMED``; nothing is done (``error="backendError"`` by default)
``hang``        no answer until ``release()``; then the connection drops and nothing has been done
``slow``        the answer comes, ``seconds`` later
``truncated``   the work is done, the body breaks off in the middle
``drop_before`` the connection drops, nothing has been done
``drop_after``  the work is done, the answer is lost
``html``        200 with a page of HTML, nothing has been done
``empty``       200 with an empty body, nothing has been done
==============  ==================================================================================
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.google_server.errors import NAMED
from tests.google_server.times import Json

KINDS = ("error", "hang", "slow", "truncated", "drop_before", "drop_after", "html", "empty")
STORM = (
    "error:backendError",
    "error:serviceUnavailable",
    "error:rateLimitExceeded",
    "error:rateLimitExceeded429",
    "error:quotaExceeded",
    "truncated",
    "drop_before",
    "drop_after",
    "html",
    "empty",
)
"""What a storm is made of unless told; hanging and slow answers are left out, they cost real time."""


@dataclass(eq=False)
class Fault:
    """One fault. ``times`` None is for ever; ``path`` is a regular expression searched for."""

    kind: str
    times: int | None = 1
    method: str | None = None
    path: str | None = None
    error: str = "backendError"
    seconds: float = 0.0
    hits: int = 0
    reached: threading.Event = field(default_factory=threading.Event, repr=False)
    released: threading.Event = field(default_factory=threading.Event, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no fault {self.kind!r}; there are {', '.join(KINDS)}")
        if self.error not in NAMED:
            raise ValueError(f"no error {self.error!r}; there are {', '.join(NAMED)}")

    @property
    def name(self) -> str:
        return f"error:{self.error}" if self.kind == "error" else self.kind

    def takes(self, method: str, path: str) -> bool:
        return (
            (self.times is None or self.hits < self.times)
            and self.method in (None, method)
            and (self.path is None or re.search(self.path, path) is not None)
        )

    def release(self) -> None:
        """Lets hanging and slow requests go, those to come too."""
        self.released.set()

    def as_json(self) -> Json:
        return {
            name: getattr(self, name)
            for name in ("kind", "times", "method", "path", "error", "seconds", "hits")
        }


def fault_from(name: str, **options: object) -> Fault:
    """``"error:backendError"`` or ``"drop_after"`` as a fault."""
    kind, _, error = name.partition(":")
    return Fault(kind, error=error or "backendError", **options)  # type: ignore[arg-type]


class Faults:
    """The faults waiting for requests, oldest first, and the storm."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Fault] = []
        self._storm: tuple[random.Random, float, Sequence[str], str | None] | None = None
        self._struck: list[Fault] = []

    def add(
        self,
        name: str,
        times: int | None = 1,
        *,
        method: str | None = None,
        path: str | None = None,
        seconds: float = 0.0,
    ) -> Fault:
        """The next ``times`` matching requests meet this: ``faults.add("error:quotaExceeded", 3)``."""
        fault = fault_from(name, times=times, method=method, path=path, seconds=seconds)
        with self._lock:
            self._waiting.append(fault)
        return fault

    def storm(self, seed: int, rate: float, kinds: Sequence[str] = STORM, path: str | None = None) -> None:
        """From now on each request (whose path matches) meets one of ``kinds`` with probability ``rate``.

        The same seed gives the same faults in the order requests come in; ``clear`` ends it.
        """
        for name in kinds:
            fault_from(name)
        with self._lock:
            self._storm = (random.Random(seed), rate, tuple(kinds), path)

    def clear(self) -> None:
        """Ends all faults and the storm, and releases what hangs."""
        with self._lock:
            for fault in (*self._waiting, *self._struck):
                fault.release()
            self._waiting, self._struck, self._storm = [], [], None

    @property
    def waiting(self) -> list[Fault]:
        with self._lock:
            return [fault for fault in self._waiting if fault.times is None or fault.hits < fault.times]

    def strike(self, method: str, path: str) -> Fault | None:
        """The fault this request meets, counted."""
        with self._lock:
            fault = next((one for one in self._waiting if one.takes(method, path)), None)
            if fault is None and self._storm is not None:
                chance, rate, kinds, where = self._storm
                if (where is None or re.search(where, path)) and chance.random() < rate:
                    fault = fault_from(chance.choice(kinds))
            if fault is not None:
                fault.hits += 1
                fault.reached.set()
                if fault.kind in ("hang", "slow") and fault not in self._struck:
                    self._struck.append(fault)
            return fault
