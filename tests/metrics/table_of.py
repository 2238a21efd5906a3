"""Reading expositions in tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

LINUX = frozenset(
    {
        "process_cpu_seconds_total",
        "process_max_fds",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_virtual_memory_bytes",
    }
)
"""What the process collector adds."""


def samples(text: str) -> Iterator[Sample]:
    """Every sample of an exposition."""
    for family in text_string_to_metric_families(text):
        yield from family.samples


def program(name: str) -> str:
    """Where a program of Debian's package prometheus is; without it the test is skipped, but not in CI."""
    found = shutil.which(name)
    if found is None:
        text = f"{name} is not installed: apt-get install prometheus (and stop the service it starts)"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    return found
