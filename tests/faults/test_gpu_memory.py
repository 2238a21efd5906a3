"""Memory that stays in use after a model went, as NVML tells it to Ray's agents, and they to the daemon.

There is no GPU here: NVML itself is a stand-in (``fake_nvml.c``), and all above it is Ray's own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.cluster.dashboard import Dashboard
from scheduler.cluster.leftovers import used_bytes
from scheduler.settings import MIB
from tests.faults.bench import Bench
from tests.ray_cluster import environment, running_ray_cluster, wait_until

pytestmark = [
    pytest.mark.ray,
    pytest.mark.faults,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="no compiler for the stand-in for NVML"),
]
IN_USE, IDLE = 60_000, 500


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """The file that says how much of each GPU is in use, in MiB; every GPU at first."""
    library, source = tmp_path / "libnvidia-ml.so.1", Path(__file__).with_name("fake_nvml.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source], check=True)
    file = tmp_path / "memory"
    file.write_text(f"{IN_USE} {IN_USE}")
    with environment({"LD_LIBRARY_PATH": str(tmp_path), "FAKE_NVML_MEMORY": str(file)}):
        yield file


@pytest.mark.timeout(300)
def test_a_model_waits_for_memory_that_nvml_says_is_in_use(memory: Path, tmp_path: Path) -> None:
    with running_ray_cluster() as cluster:
        cluster.kill_node("gpu-a")
        bench = Bench(cluster, tmp_path)
        dashboard = Dashboard(cluster.dashboard_url, tmp_path / "no-token", 10)
        wait_until(lambda: used_bytes(dashboard.gpu_memory()), 60, "the agents tell of the GPUs")
        assert set(used_bytes(dashboard.gpu_memory()).values()) == {(IN_USE * MIB, IN_USE * MIB)}
        bench.book()
        with bench.daemon("a", NDIF_GUARD__HELD_MEMORY_SECONDS="600"):
            wait_until(lambda: (beat := bench.beat("a")) and "gpu-b" in beat.in_use, 60, "it is told")
            passes = bench.beat("a").passes  # type: ignore[union-attr]
            wait_until(lambda: bench.beat("a").passes > passes + 3, 60, "it looks again and again")  # type: ignore[union-attr]
            assert bench.ours() == {}
            memory.write_text(f"{IN_USE} {IDLE}")
            since = time.monotonic()
            wait_until(bench.ours, 60, "it is placed")
            bench.measure("GPU memory free again: model placed", since, 30)
            bench.until_serves(120)
            assert "still in use" in bench.log("a")
        dashboard.close()
        cluster.put([])
        for what, seconds in bench.measured.items():
            sys.stdout.write(f"{what}: {seconds:.1f} s\n")
