"""Plans to Serve's configuration and back."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from scheduler.errors import OperatorError
from scheduler.serve.config import ServeState, serve_config
from scheduler.serve.naming import application_name
from scheduler.settings import ServeSettings, load_settings
from scheduler.types import Announcement, DeploymentStatus, Directory, Model, Plan, Reason, ReasonCode
from serve_apps.contract import GatewayArgs, GatewayConfig, ModelArgs
from tests.scheduler.builders import NOON, booking, cluster, cpu, gpus, known, planned

ON = cluster(gpus("g", 8, 80), cpu("c", 8))
SETTINGS = ServeSettings()
THEIRS = {"name": "theirs", "route_prefix": "/theirs", "import_path": "their.module:app", "args": {"x": 1}}


def app(config: dict[str, Any], status: str = "RUNNING", source: str = "declarative") -> dict[str, Any]:
    """How Serve's GET shows an application that was submitted with a configuration."""
    return {
        "name": config["name"],
        "route_prefix": config["route_prefix"],
        "status": status,
        "message": "",
        "source": source,
        "deployed_app_config": config if source == "declarative" else None,
        "deployments": {},
    }


def answer(*apps: dict[str, Any]) -> ServeState:
    return ServeState({"applications": {one["name"]: one for one in apps}})


def plan(**sizes: float) -> Plan:
    names = sizes or {"a": 7.0, "b": 3.0}
    return planned([booking(f"org/{name}", replicas=2) for name in names], ON, known(**names))


def test_what_is_told_alike_is_the_same_object() -> None:
    told = [app(one) for one in serve_config(plan(), ServeState({}), SETTINGS)["applications"]]
    before = answer(*told)
    again = [copy.deepcopy(one) for one in told]
    again[1]["status"] = "UNHEALTHY"
    now = ServeState({"applications": {one["name"]: one for one in again}}, before)
    assert [one.status for one in now.deployments] == [DeploymentStatus.FAILED, DeploymentStatus.SERVING]
    assert [one is old for one, old in zip(now.deployments, before.deployments, strict=True)] == [False, True]
    assert ServeState({}, now).deployments == ()


def test_what_is_submitted_is_what_is_found_again() -> None:
    made = plan()
    config = serve_config(made, ServeState({}), SETTINGS)
    found = answer(*(app(one) for one in config["applications"]))
    assert {one.identity for one in found.deployments} == {one.identity for one in made.placements}
    for placement in made.placements:
        (one,) = [d for d in found.deployments if d.identity == placement.identity]
        target = placement.target
        assert (one.replicas, one.num_gpus, one.memory_bytes) == (
            2,
            placement.num_gpus,
            placement.memory_bytes,
        )
        assert (one.dtype, one.reservations, one.contract_current) == (
            target.dtype,
            target.reservations,
            True,
        )
        assert one.status is DeploymentStatus.SERVING
    assert found.directory_version == made.directory.version
    assert found.others == ()


def test_others_declarative_applications_are_submitted_again_exactly_as_they_were() -> None:
    state = answer(
        app(THEIRS), app(THEIRS | {"name": "imperative", "route_prefix": "/i"}, source="imperative")
    )
    config = serve_config(plan(), state, SETTINGS)
    assert config["applications"][-1] == THEIRS
    assert "imperative" not in [one["name"] for one in config["applications"]]
    assert state.others == ("imperative", "theirs")


def test_an_application_of_others_that_is_being_deleted_is_not_brought_back() -> None:
    config = serve_config(plan(), answer(app(THEIRS, "DELETING")), SETTINGS)
    assert "theirs" not in [one["name"] for one in config["applications"]]


def test_a_name_like_ours_without_our_marker_is_not_ours() -> None:
    copycat = app({"name": "ndif-model-copy", "route_prefix": None, "import_path": "x:y", "args": {}})
    assert answer(copycat).others == ("ndif-model-copy",)


def test_an_application_of_others_at_the_root_is_an_error_that_names_it() -> None:
    with pytest.raises(OperatorError, match=r"theirs.*route_prefix"):
        serve_config(plan(), answer(app(THEIRS | {"route_prefix": "/"})), SETTINGS)


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("DEPLOYING", DeploymentStatus.LOADING),
        ("RUNNING", DeploymentStatus.SERVING),
        ("UNHEALTHY", DeploymentStatus.FAILED),
        ("DEPLOY_FAILED", DeploymentStatus.FAILED),
    ],
)
def test_serves_words_for_how_an_application_is(word: str, status: DeploymentStatus) -> None:
    (config,) = serve_config(plan(a=7.0), ServeState({}), SETTINGS)["applications"][1:]
    assert answer(app(config, word)).deployments[0].status is status


def test_what_is_being_deleted_is_no_longer_deployed_but_still_ours() -> None:
    config = serve_config(plan(a=7.0), ServeState({}), SETTINGS)["applications"][1]
    gone = app(config, "DELETING") | {"deployed_app_config": None}
    assert answer(gone).deployments == ()
    assert answer(gone).others == ()


def test_arguments_of_another_contract_are_known_as_such() -> None:
    config = serve_config(plan(a=7.0), ServeState({}), SETTINGS)["applications"][1]
    old = config | {"args": config["args"] | {"contract": 0}}
    assert answer(app(old)).deployments[0].contract_current is False


def unreadable() -> dict[str, Any]:
    config = serve_config(plan(a=7.0), ServeState({}), SETTINGS)["applications"][1]
    return config | {"args": {"marker": "ndif-ray-service", "kind": "model", "contract": 99, "later": True}}


def test_one_application_that_cannot_be_read_is_left_alone_and_hides_no_other() -> None:
    readable = serve_config(plan(b=7.0), ServeState({}), SETTINGS)["applications"][1]
    state = answer(app(unreadable()), app(readable))
    assert [one.model.repo_id for one in state.deployments] == ["org/b"]
    assert state.others == (unreadable()["name"],)
    assert "later" in state.unreadable[unreadable()["name"]]
    listed = serve_config(plan(b=7.0), state, SETTINGS)["applications"]
    assert unreadable() in listed


def test_one_that_cannot_be_read_gives_way_to_what_is_wanted_under_its_name() -> None:
    state = answer(app(unreadable()))
    listed = serve_config(plan(a=7.0), state, SETTINGS)["applications"]
    assert [one["args"].get("repo_id") for one in listed[1:]] == ["org/a"]


def test_the_fingerprint_changes_with_any_configuration_and_with_nothing_else() -> None:
    before = answer(app(THEIRS))
    assert before.fingerprint == answer(app(THEIRS, "DEPLOYING")).fingerprint
    assert before.fingerprint != answer(app(THEIRS | {"args": {"x": 2}})).fingerprint
    assert before.fingerprint != answer().fingerprint


def test_a_gateway_that_failed_is_no_gateway() -> None:
    gateway = serve_config(plan(), ServeState({}), SETTINGS)["applications"][0]
    assert answer(app(gateway, "DEPLOY_FAILED")).directory_version is None
    assert answer(app(gateway, "UNHEALTHY")).directory_version is not None


def test_the_gateway_is_given_routes_and_the_refused_with_their_reason_in_words() -> None:
    made = planned([booking("org/a"), booking("org/huge")], ON, known(a=7, huge=9999))
    gateway = serve_config(made, ServeState({}), SETTINGS)["applications"][0]
    config = GatewayConfig.model_validate(gateway["deployments"][0]["user_config"])
    assert [route.names for route in config.routes] == [("org/a",)]
    assert config.routes[0].applications == (application_name(Model(repo_id="org/a"), "g"),)
    (refused,) = config.bookings
    assert "9999.0 GiB" in (refused.refused or "")


@pytest.mark.parametrize(
    ("reason", "earliest", "words"),
    [
        (Reason(code=ReasonCode.NO_NODES), NOON, "no node of the cluster offers a device. "
         "It would fit from 2026-03-02 12:00 UTC on."),
        (Reason(code=ReasonCode.EVICTED, detail="until 13:00 UTC", remedy="Ask the operator."), None,
         "the operator has taken it down until 13:00 UTC. Ask the operator."),
        (Reason(code=ReasonCode.NO_NODES), None, "no node of the cluster offers a device."),
    ],
)  # fmt: skip
def test_the_gateway_is_told_when_what_is_refused_would_fit_or_what_would_help(
    reason: Reason, earliest: datetime | None, words: str
) -> None:
    told = Announcement(
        names=("org/a",), start=NOON, end=NOON + timedelta(hours=1), refused=reason, earliest=earliest
    )
    made = planned([], ON, {}).model_copy(update={"directory": Directory(announcements=(told,))})
    gateway = serve_config(made, ServeState({}), SETTINGS)["applications"][0]
    (one,) = GatewayConfig.model_validate(gateway["deployments"][0]["user_config"]).bookings
    assert one.refused == words


def test_the_gateway_is_told_for_whom_a_model_and_a_booking_are() -> None:
    now = booking("org/a", private=True, people=("bob@e.org",), owner="ada@e.org")
    later = booking("org/b", start=48, end=49, private=True, owner=None)
    made = planned([now, later, booking("org/c")], ON, known(a=7, b=3, c=3))
    gateway = serve_config(made, ServeState({}), SETTINGS)["applications"][0]
    config = GatewayConfig.model_validate(gateway["deployments"][0]["user_config"])
    assert {one.names[0]: one.private_to for one in config.routes} == {
        "org/a": ("ada@e.org", "bob@e.org"),
        "org/c": None,
    }
    assert [(one.names[0], one.private_to) for one in config.bookings] == [("org/b", ())]


def test_every_deployment_is_named_since_unnamed_ones_are_dropped_in_silence() -> None:
    for one in serve_config(plan(), ServeState({}), SETTINGS)["applications"]:
        assert all(deployment["name"] for deployment in one["deployments"])
        assert set(one) == {"name", "route_prefix", "import_path", "args", "logging_config", "deployments"}


def test_application_names_tell_models_nodes_and_revisions_apart() -> None:
    names = {
        application_name(Model(repo_id=repo, revision=revision), node)
        for repo in ("org/a.b", "other/a-b", "org/" + "x" * 200)
        for revision in (None, "v1")
        for node in ("n1", "n-1")
    }
    assert len(names) == 12
    assert all(len(name) < 120 and name == name.lower() for name in names)


def test_arguments_hold_no_more_than_the_contract_allows() -> None:
    config = serve_config(plan(a=7.0), ServeState({}), SETTINGS)["applications"][1]
    assert ModelArgs.model_validate(config["args"]).repo_id == "org/a"


def test_the_gateway_is_given_its_folder_its_limits_and_its_replicas() -> None:
    settings = load_settings(
        state_dir="/srv/ndif", serve={"gateway_replicas": 3, "max_wait_minutes": 5}
    ).serve
    gateway = serve_config(plan(), ServeState({}), settings)["applications"][0]
    args = GatewayArgs.model_validate(gateway["args"])
    assert (args.state_dir, args.max_wait_seconds, args.keys_required) == ("/srv/ndif/gateway", 300, False)
    assert gateway["deployments"][0]["num_replicas"] == 3


@pytest.mark.parametrize(
    "change", [{"gateway_replicas": 2}, {"require_keys": True}, {"host": "0.0.0.0"}, {"job_seconds": 5}]
)
def test_a_gateway_of_other_settings_is_deployed_anew(change: dict[str, Any]) -> None:
    gateway = serve_config(plan(), ServeState({}), SETTINGS)["applications"][0]
    assert answer(app(gateway)).gateway_is_for(SETTINGS)
    assert not answer(app(gateway)).gateway_is_for(ServeSettings(**change))


def test_the_gateway_is_told_how_long_before_an_end_it_tells_its_clients() -> None:
    gateway = serve_config(plan(), ServeState({}), SETTINGS, 7.0)["applications"][0]
    assert GatewayArgs.model_validate(gateway["args"]).warn_seconds == 420
    assert answer(app(gateway)).gateway_is_for(SETTINGS, 7.0)
    assert not answer(app(gateway)).gateway_is_for(SETTINGS, 8.0)


def test_the_gateways_arguments_hold_no_secrets() -> None:
    with pytest.raises(ValidationError):
        ServeSettings(object_store_url="http://user:password@minio:9000/results")
