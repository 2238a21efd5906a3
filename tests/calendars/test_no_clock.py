"""Windows come in as parameters: nothing in calendars/ asks what time it is or throws dice.

Two things in ``google_client.py`` are not of that kind: its deadlines go by the monotonic clock, and the
pauses between its tries have some chance in them, which tenacity adds. No reading depends on either.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import calendars

SOURCES = sorted(Path(next(iter(calendars.__path__))).rglob("*.py"))

FORBIDDEN_CALLS = {"now", "utcnow", "today"}
FORBIDDEN_TIME = {"time", "time_ns", "localtime", "gmtime"}
FORBIDDEN_MODULES = {"random", "secrets", "uuid"}


def clocks_and_dice(source: str) -> list[str]:
    """Every use in a source text of the clock of the day or of chance, as ``line: what``."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in FORBIDDEN_CALLS:
            found.append(f"{node.lineno}: .{node.attr}")
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {
            f"time.{name}" for name in FORBIDDEN_TIME
        }:
            found.append(f"{node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.Import):
            modules = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
            if node.module == "time":
                found += [
                    f"{node.lineno}: time.{name.name}" for name in node.names if name.name in FORBIDDEN_TIME
                ]
        else:
            continue
        found += [f"{node.lineno}: {name}" for name in modules if name.split(".")[0] in FORBIDDEN_MODULES]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_calendars_know_no_clock(path: Path) -> None:
    assert clocks_and_dice(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "from datetime import datetime\ndatetime.now()",
        "import datetime as d\nd.datetime.utcnow()",
        "from datetime import date\ntoday = date.today",
        "import time\ntime.time()",
        "from time import time",
        "import random",
        "from random import choice",
        "import uuid",
    ],
)
def test_the_check_finds_clocks(source: str) -> None:
    assert clocks_and_dice(source) != []


def test_the_check_looks_at_something() -> None:
    assert {"ics.py", "event_text.py", "reservation.py"} <= {path.name for path in SOURCES}
    assert clocks_and_dice("from time import monotonic\nmonotonic()") == []
