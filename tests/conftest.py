"""Fixtures shared by the tests of all packages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ray_cluster import RayCluster, running_ray_cluster


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """One Ray cluster for the whole session; start each test with ``put([])`` of its own making."""
    with running_ray_cluster() as cluster:
        yield cluster
