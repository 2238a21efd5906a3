"""What runs, followed from one observation to the next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scheduler.planning.running import Running
from scheduler.types import Deployment
from tests.scheduler.builders import booking, cluster, deployed, gpus, known, planned

NODES = ("x", "y")
MODELS = ("org/a", "org/b")
(RUNS,) = planned([booking("org/a")], cluster(gpus("x", 1, 80)), known(a=7)).placements
there = st.lists(st.tuples(st.sampled_from(MODELS), st.sampled_from(NODES), st.integers(1, 2), st.booleans()))


def observed(model: str, node: str, replicas: int) -> Deployment:
    named = RUNS.target.model.model_copy(update={"repo_id": model})
    return deployed(RUNS, model=named, node=node, replicas=replicas)


@given(st.lists(there, max_size=6))
def test_it_is_what_was_observed_last_and_what_differs_is_told(
    observations: list[list[tuple[str, str, int, bool]]],
) -> None:
    """Some are the very same objects as before, some only alike; of one identity the last counts."""
    running, kept = Running(), dict[tuple[str, str, int], Deployment]()
    before: dict[tuple[str, str], Deployment] = {}
    for observation in observations:
        found = []
        for model, node, replicas, anew in observation:
            if anew or (model, node, replicas) not in kept:
                kept[model, node, replicas] = observed(model, node, replicas)
            found.append(kept[model, node, replicas])
        running.update(found)
        now = {one.identity: one for one in found}
        assert running.by_identity == now
        assert running.changed == {key for key in before | now if before.get(key) != now.get(key)}
        for model in {one.model.key for one in found}:
            nodes = {node for key, node in now if key == model}
            assert set(running.nodes_of(model)) == nodes
            assert running.of_model(model) == now[model, max(nodes)]
        assert running.of_model("org/other") is None
        before = now
