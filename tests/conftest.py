"""Fixtures shared by the tests of all packages."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from loguru import logger

from tests import examples
from tests.ray_cluster import RayCluster, running_ray_cluster

examples.register()
# collecting imports torch and Ray and makes thousands of tests: there is no garbage among them to look for
gc.disable()


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
