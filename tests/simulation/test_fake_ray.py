"""The same checks on the stand-in for Ray's dashboard and on Ray's own, through the product's client.

Those marked ``ray`` hold the stand-in against the real one; the rest of the file is about what only the
stand-in can show quickly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from scheduler.cluster.dashboard import Dashboard, Rejected
from scheduler.cluster.leftovers import used_bytes
from scheduler.cluster.node import Cluster as Nodes
from scheduler.cluster.observe import cluster_from
from scheduler.settings import GIB, PlanningSettings, Settings
from serve_apps import contract
from tests.google_server import FakeClock
from tests.ray_cluster import RayCluster, wait_until
from tests.simulation.fake_ray import FakeRay, fake_ray
from tests.simulation.fake_serve import Needs
from tests.simulation.stand_ins import DashboardAtHand, FakeCockpit

START = datetime(2026, 3, 25, 8, 0, tzinfo=UTC)
MODEL = f"{contract.MODEL_APPLICATION_PREFIX}contract"


def gateway(**user_config: Any) -> dict[str, Any]:
    deployment = {"name": contract.GATEWAY_DEPLOYMENT, "user_config": user_config}
    return {
        "name": contract.GATEWAY_APPLICATION,
        "route_prefix": "/",
        "import_path": contract.GATEWAY_IMPORT_PATH,
        "args": contract.GatewayArgs().model_dump(mode="json"),
        "deployments": [deployment],
    }


def model(num_gpus: float = 1.0, node: str = "gpu-b", name: str = MODEL, **options: Any) -> dict[str, Any]:
    args = contract.ModelArgs(
        node=node,
        model_key="key",
        repo_id="org/contract",
        dtype="float32",
        num_gpus=num_gpus,
        memory_bytes=0,
        footprint_bytes=GIB,
    )
    return {
        "name": name,
        "route_prefix": None,
        "import_path": contract.MODEL_IMPORT_PATH,
        "args": args.model_dump(mode="json"),
        "deployments": [{"name": contract.MODEL_DEPLOYMENT, **options}],
    }


@dataclass
class Cluster:
    """Either dashboard: the product's client on it, and a way to let time pass."""

    dashboard: Dashboard | FakeCockpit
    wait: Callable[[Callable[[], bool], float, str], None]

    def put(self, *applications: dict[str, Any]) -> None:
        self.dashboard.put_serve_config(
            {
                "proxy_location": "HeadOnly",
                "http_options": {"host": "127.0.0.1", "port": 8267},
                "applications": list(applications),
            }
        )

    def apps(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.dashboard.serve_details()["applications"]
        return found

    def becomes(self, name: str, status: str | None) -> None:
        def reached() -> bool:
            return self.apps().get(name, {}).get("status") == status

        self.wait(reached, 120, f"{name} is {status or 'gone'}")


def observed(cluster: Cluster, *ours: str) -> Nodes:
    """The cluster as the product reads it."""
    return cluster_from(cluster.dashboard.nodes(), cluster.dashboard.actors(), PlanningSettings(), ours)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def ray(clock: FakeClock) -> Iterator[FakeRay]:
    with fake_ray(clock, load_seconds=30) as found:
        found.add_node("cpu-0")
        found.add_node("gpu-b", gpus=2)
        yield found


@pytest.fixture
def fake(ray: FakeRay, clock: FakeClock, tmp_path: Path) -> Iterator[Cluster]:
    def wait(condition: Callable[[], bool], seconds: float, what: str) -> None:
        for _ in range(int(seconds)):
            if condition():
                return
            clock.advance(seconds=1)
        raise AssertionError(f"not within {seconds:g} s: {what}")

    cluster = Cluster(Dashboard(ray.url, tmp_path / "no-token", 10), wait)
    yield cluster
    cluster.dashboard.close()


@pytest.fixture
def real(ray_cluster: RayCluster, tmp_path: Path) -> Iterator[Cluster]:
    def wait(condition: Callable[[], bool], seconds: float, what: str) -> None:
        wait_until(condition, seconds, what)

    cluster = Cluster(Dashboard(ray_cluster.dashboard_url, tmp_path / "no-token", 60), wait)
    cluster.put()
    cluster.wait(lambda: not cluster.apps(), 120, "nothing is deployed")
    yield cluster
    cluster.put()
    cluster.dashboard.close()


@pytest.fixture
def in_place(ray: FakeRay, clock: FakeClock, fake: Cluster) -> Cluster:
    """The stand-in without a network between, as the simulated weeks have it."""
    return Cluster(FakeCockpit(ray, clock), fake.wait)


@pytest.fixture
def at_hand(ray: FakeRay, fake: Cluster, tmp_path: Path) -> Cluster:
    """The product's client without a network between, as the worlds of `harness` have it."""
    settings = Settings(state_dir=tmp_path, ray={"dashboard_url": ray.url})
    return Cluster(DashboardAtHand(ray, settings), fake.wait)


@pytest.fixture(params=["fake", "in_place", "at_hand", pytest.param("real", marks=pytest.mark.ray)])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """One after the other."""
    found: Cluster = request.getfixturevalue(request.param)
    return found


# --- what both do ----------------------------------------------------------------------------------------


def test_an_application_is_deployed_runs_and_goes_when_the_list_is_empty(cluster: Cluster) -> None:
    cluster.put(gateway(version="one"))
    assert cluster.apps()[contract.GATEWAY_APPLICATION]["status"] == "DEPLOYING"
    assert cluster.apps()[contract.GATEWAY_APPLICATION]["deployments"] == {}
    cluster.becomes(contract.GATEWAY_APPLICATION, "RUNNING")
    app = cluster.apps()[contract.GATEWAY_APPLICATION]
    assert app["deployed_app_config"] == gateway(version="one")
    assert (app["source"], app["route_prefix"]) == ("declarative", "/")
    (replica,) = app["deployments"][contract.GATEWAY_DEPLOYMENT]["replicas"]
    assert replica["state"] == "RUNNING"
    assert replica["node_id"] in {node["node_id"] for node in cluster.dashboard.nodes()}
    cluster.put()
    cluster.becomes(contract.GATEWAY_APPLICATION, None)


def test_an_application_that_is_deleted_has_lost_its_configuration(cluster: Cluster) -> None:
    cluster.put(gateway())
    cluster.becomes(contract.GATEWAY_APPLICATION, "RUNNING")
    cluster.put()
    cluster.becomes(contract.GATEWAY_APPLICATION, "DELETING")
    assert cluster.apps()[contract.GATEWAY_APPLICATION]["deployed_app_config"] is None
    cluster.becomes(contract.GATEWAY_APPLICATION, None)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param([gateway(), gateway()], id="a name twice"),
        pytest.param([gateway(), gateway() | {"name": "other"}], id="a route twice"),
        pytest.param([gateway() | {"import_path": "nothing"}], id="no import path"),
        pytest.param([{"name": "bare"}], id="no import path at all"),
        pytest.param([gateway() | {"deployments": [{"user_config": {}}]}], id="a deployment without name"),
    ],
)
def test_an_invalid_list_is_refused_whole(cluster: Cluster, wrong: list[dict[str, Any]]) -> None:
    before = cluster.apps()
    with pytest.raises(Rejected):
        cluster.put(model(), *wrong)
    assert cluster.apps() == before


def test_what_serve_does_not_know_is_dropped_and_user_config_changes_in_place(cluster: Cluster) -> None:
    cluster.put(gateway(version="one") | {"marker": "mine"})
    cluster.becomes(contract.GATEWAY_APPLICATION, "RUNNING")
    app = cluster.apps()[contract.GATEWAY_APPLICATION]
    (before,) = app["deployments"][contract.GATEWAY_DEPLOYMENT]["replicas"]
    assert "marker" not in app["deployed_app_config"]
    cluster.put(gateway(version="two"))

    def changed() -> bool:
        now = cluster.apps()[contract.GATEWAY_APPLICATION]
        config = now["deployed_app_config"]["deployments"][0]["user_config"]
        return bool(config == {"version": "two"} and now["status"] == "RUNNING")

    cluster.wait(changed, 60, "the new version runs")
    (after,) = cluster.apps()[contract.GATEWAY_APPLICATION]["deployments"]["Gateway"]["replicas"]
    assert after["replica_id"] == before["replica_id"]


def test_code_that_is_not_there_fails_to_deploy_and_says_why(cluster: Cluster) -> None:
    cluster.put(gateway() | {"import_path": "nowhere.to_be_found:build"})
    cluster.becomes(contract.GATEWAY_APPLICATION, "DEPLOY_FAILED")
    app = cluster.apps()[contract.GATEWAY_APPLICATION]
    assert app["deployments"] == {}
    assert "ModuleNotFoundError" in app["message"]
    cluster.put()
    cluster.becomes(contract.GATEWAY_APPLICATION, None)


def test_a_replica_for_which_no_node_has_room_stays_deploying_without_a_node(cluster: Cluster) -> None:
    cluster.put(model(num_gpus=3))

    def replicas() -> list[dict[str, Any]]:
        deployment = cluster.apps()[MODEL]["deployments"].get(contract.MODEL_DEPLOYMENT, {})
        found: list[dict[str, Any]] = deployment.get("replicas", [])
        return found

    cluster.wait(lambda: replicas() != [], 60, "it is built")
    (replica,) = replicas()
    assert (cluster.apps()[MODEL]["status"], replica["state"]) == ("DEPLOYING", "STARTING")
    assert not replica.get("node_id")
    cluster.put()
    cluster.becomes(MODEL, None)


def test_nodes_are_listed_as_the_product_reads_them(cluster: Cluster) -> None:
    found = observed(cluster)
    node = found.named("gpu-b")
    assert node is not None
    assert [device.memory_bytes for device in node.devices] == [80 * GIB, 80 * GIB]
    head = found.named("cpu-0")
    assert head is not None
    assert (head.is_head, head.devices) == (True, ())


def test_the_agents_of_all_nodes_tell_the_memory_of_their_gpus(cluster: Cluster) -> None:
    """Those of the real cluster are only counted by Ray: its agents see none."""
    alive = {node["node_id"] for node in cluster.dashboard.nodes() if node["state"] == "ALIVE"}
    cluster.wait(lambda: alive <= _told(cluster), 30, "every agent has told")
    assert set(used_bytes(cluster.dashboard.gpu_memory())) <= alive


def _told(cluster: Cluster) -> set[str]:
    return {one["raylet"].get("nodeId", "") for one in cluster.dashboard.gpu_memory() if "gpus" in one}


# --- what is shown on the stand-in only --------------------------------------------------------------------


def test_serve_that_was_never_started_lists_nothing(fake: Cluster) -> None:
    assert fake.apps() == {}


def test_what_was_deployed_in_code_is_left_alone_until_it_is_listed(fake: Cluster, ray: FakeRay) -> None:
    ray.run_in_code("theirs", Needs("D", num_gpus=1, node="gpu-b"), route_prefix="/theirs")
    fake.put(gateway())
    fake.put()
    fake.becomes("theirs", "RUNNING")
    assert fake.apps()["theirs"]["source"] == "imperative"
    assert fake.apps()["theirs"]["deployed_app_config"] is None
    fake.put(gateway() | {"name": "theirs"})
    fake.put()
    fake.becomes("theirs", None)


def test_room_is_enforced_and_freed(fake: Cluster) -> None:
    first, second = model(1.5, name="ndif-model-1"), model(1.0, name="ndif-model-2")
    fake.put(first)
    fake.becomes("ndif-model-1", "RUNNING")
    fake.put(first, second)
    fake.wait(lambda: fake.apps()["ndif-model-2"]["deployments"] != {}, 10, "the second is built")
    assert fake.apps()["ndif-model-2"]["status"] == "DEPLOYING"
    assert sum(held(fake)) == 1.5
    assert held(fake, "ndif-model-1", "ndif-model-2") == [0.0, 0.0]
    fake.put(second)
    fake.becomes("ndif-model-2", "RUNNING")
    assert sum(held(fake)) == 1.0


def held(cluster: Cluster, *ours: str) -> list[float]:
    """What others than ``ours`` hold of each GPU of gpu-b."""
    node = observed(cluster, *ours).named("gpu-b")
    assert node is not None
    return [device.taken_share for device in node.devices]


def test_loading_takes_its_time_from_when_there_is_room(fake: Cluster, clock: FakeClock) -> None:
    fake.put(model())
    clock.advance(seconds=31)
    assert fake.apps()[MODEL]["status"] == "DEPLOYING"
    clock.advance(seconds=1)
    assert fake.apps()[MODEL]["status"] == "RUNNING"


def test_replicas_are_added_and_taken_away_in_place(fake: Cluster) -> None:
    fake.put(model())
    fake.becomes(MODEL, "RUNNING")
    fake.put(model(num_replicas=2))
    assert fake.apps()[MODEL]["status"] == "DEPLOYING"
    fake.becomes(MODEL, "RUNNING")
    assert sum(held(fake)) == 2.0
    fake.put(model(num_replicas=1))
    fake.wait(lambda: sum(held(fake)) == 1.0, 10, "one of the two is gone")


def test_a_failed_build_is_tried_again_at_every_put_and_a_failed_start_is_not(
    fake: Cluster, ray: FakeRay
) -> None:
    ray.serve.fail_build[MODEL] = "ImportError: no such thing"
    fake.put(model())
    fake.becomes(MODEL, "DEPLOY_FAILED")
    ray.serve.fail_build.clear()
    ray.serve.fail_start[MODEL] = "OSError: no such file"
    fake.put(model())
    assert fake.apps()[MODEL]["status"] == "DEPLOYING"
    fake.becomes(MODEL, "DEPLOY_FAILED")
    assert "no such file" in fake.apps()[MODEL]["deployments"][contract.MODEL_DEPLOYMENT]["message"]
    ray.serve.fail_start.clear()
    fake.put(model())
    assert fake.apps()[MODEL]["status"] == "DEPLOY_FAILED"
    fake.put(model(num_gpus=2))
    fake.becomes(MODEL, "RUNNING")


def test_a_node_that_dies_takes_its_replicas_and_gets_them_again(fake: Cluster, ray: FakeRay) -> None:
    fake.put(model())
    fake.becomes(MODEL, "RUNNING")
    ray.kill_node("gpu-b")
    assert fake.apps()[MODEL]["status"] == "DEPLOYING"
    assert observed(fake).named("gpu-b") is None
    ray.add_node("gpu-b", gpus=2)
    fake.becomes(MODEL, "RUNNING")
