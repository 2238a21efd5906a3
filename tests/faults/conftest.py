"""A bench for each file, on the session's cluster, and what was measured on it printed at its end."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.faults.bench import Bench
from tests.ray_cluster import RayCluster, wait_until


@pytest.fixture(scope="module")
def bench(ray_cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(ray_cluster, tmp_path_factory.mktemp("faults"))
    yield made
    ray_cluster.put([])
    wait_until(lambda: not made.ours(), 60, "our applications are gone")
    for what, seconds in made.measured.items():
        sys.stdout.write(f"{what}: {seconds:.1f} s\n")
