"""How far a model is, from its replica on Ray to ``status``, while it is loaded."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from scheduler.heartbeat import OnItsWay
from scheduler.settings import ROOT
from tests.faults.bench import Bench
from tests.ray_cluster import wait_until
from tests.tiny_model import TINY_REPO_ID

pytestmark = pytest.mark.ray


def test_a_replica_says_how_far_it_is_and_everybody_can_see_it(bench: Bench) -> None:
    """Nothing here has ever been loaded before, so a share can only be what the replica itself said."""
    bench.book()
    with bench.daemon("a"):
        first = wait_until(lambda: _said(bench), 120, "the replica says how far it is", every=0.05)
        assert (first.step, first.model) == ("loading", TINY_REPO_ID)
        shown = subprocess.run(
            [sys.executable, "-m", "scheduler", "status", "--json"],
            env=bench.environment("a"),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert shown.returncode == 0, shown.stderr
        assert "on_its_way" in json.loads(shown.stdout)["daemon"]["state"]
        bench.until_serves(120)
        beat = bench.beat("a")
        assert beat is not None
        wait_until(
            lambda: (now := bench.beat("a")) and not now.on_its_way, 30, "it is not on its way any more"
        )
    assert f"Loading {TINY_REPO_ID} on" in bench.log("a")


def _said(bench: Bench) -> OnItsWay | None:
    beat = bench.beat("a")
    return next((one for one in beat.on_its_way if one.fraction is not None), None) if beat else None
