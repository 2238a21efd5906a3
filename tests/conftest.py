"""Fixtures shared by the tests of all packages."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from tests import examples
from tests.ray_cluster import RayCluster, running_ray_cluster

examples.register()
# collecting imports torch and Ray and makes thousands of tests: there is no garbage among them to look for
gc.disable()


MEMORY = Path("/dev/shm")
ROOM_BYTES = 2 * 1024**3


def pytest_configure(config: pytest.Config) -> None:
    """Tests without Ray have their files in memory, where there is room: a disk takes ten times as long."""
    if config.option.markexpr != "not ray" or "TMPDIR" in os.environ or not MEMORY.is_dir():
        return
    runs_programs = not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
    if runs_programs and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_BYTES:
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For ``-n auto`` one more than there are cores: now and then a test waits for a process or a browser."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_finish() -> None:
    """What was collected stays; from here on it is passed over."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """One Ray cluster for the whole session; start each test with ``put([])`` of its own making."""
    with running_ray_cluster() as cluster:
        yield cluster


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written instead of compared; look at the difference in git."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What is logged during the test, a line each, with its level."""
    lines: list[str] = []
    sink = logger.add(lines.append, format="{level} {message}", level="DEBUG")
    yield lines
    logger.remove(sink)
