"""Which application answers to a name, and what is said when none does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from serve_apps.contract import Booking, GatewayConfig, Route
from serve_apps.gateway.routing import (
    AppState,
    AppStatus,
    RoutingTable,
    Serving,
    Unavailable,
    parse_model_key,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def key(repo_id: str = "org/llama", extra: str = "") -> str:
    named = f'{{"repo_id": "{repo_id}", "revision": null, "task": "text-generation"{extra}}}'
    return f"nnsight.modeling.transformers.TransformersModel:{named}"


UP = {"a": AppStatus(AppState.SERVING), "b": AppStatus(AppState.SERVING)}
TABLE = RoutingTable(
    GatewayConfig(
        routes=(
            Route(
                model_key=key(), names=("org/llama", "llama"), applications=("a", "b"), until=NOW + 3 * HOUR
            ),
            Route(model_key=key("org/other"), names=("org/other",), applications=("c",)),
        ),
        bookings=(
            Booking(names=("org/later", "late"), start=NOW + 2 * HOUR, end=NOW + 3 * HOUR),
            Booking(names=("org/later",), start=NOW + HOUR, end=NOW + 2 * HOUR),
            Booking(names=("org/past",), start=NOW - 2 * HOUR, end=NOW - HOUR),
            Booking(names=("org/begun",), start=NOW - HOUR, end=NOW + HOUR),
            Booking(names=("org/huge",), start=NOW + HOUR, end=NOW + 2 * HOUR, refused="needs 800 GiB."),
        ),
    )
)


@pytest.mark.parametrize(
    "name",
    [
        "org/llama",
        "ORG/LLaMa",
        "llama",
        key(),
        key("Org/Llama"),
        key().replace("null", '"main"'),
        key().replace('": ', '":  '),
    ],
)
def test_a_model_answers_to_repo_id_alias_and_key(name: str) -> None:
    found = TABLE.resolve(name, UP, NOW)
    assert isinstance(found, Serving)
    assert found.applications == ("a", "b")


@pytest.mark.parametrize(
    "name",
    [
        key("org/llama", ', "trust_remote_code": true'),
        key().replace("text-generation", "fill-mask"),
        key().replace("null", '"abc"'),
        "other.Class:" + key().partition(":")[2],
    ],
)
def test_another_revision_task_class_or_trust_is_another_model(name: str) -> None:
    found = TABLE.resolve(name, UP, NOW)
    assert isinstance(found, Unavailable) and found.status == 404


def test_only_serving_applications_are_called() -> None:
    found = TABLE.resolve("llama", {**UP, "a": AppStatus(AppState.LOADING)}, NOW)
    assert isinstance(found, Serving) and found.applications == ("b",)


@pytest.mark.parametrize(
    ("name", "status", "code", "retry", "words"),
    [
        ("org/other", 503, "model_loading", 5, ["loading"]),
        ("org/later", 503, "model_not_up_yet", 3600, ["2026-03-01 13:00 UTC", "14:00"]),
        ("LATE", 503, "model_not_up_yet", 7200, ["15:00"]),
        (key("org/later"), 503, "model_not_up_yet", 3600, ["org/later"]),
        ("org/begun", 503, "model_loading", 5, ["11:00"]),
        ("org/huge", 404, "booking_refused", None, ["was refused: needs 800 GiB."]),
        (
            "org/past",
            404,
            "model_not_found",
            None,
            ["neither up nor", "org/llama (until", "org/later"],
        ),
        ("", 404, "model_not_found", None, ["org/llama"]),
    ],
)
def test_what_is_said_when_nobody_answers(
    name: str, status: int, code: str, retry: int | None, words: list[str]
) -> None:
    found = TABLE.resolve(name, UP, NOW)
    assert isinstance(found, Unavailable)
    assert (found.status, found.code, found.retry_after_seconds) == (status, code, retry)
    for word in words:
        assert word in found.message


def test_a_failed_application_tells_its_last_line() -> None:
    statuses = {"c": AppStatus(AppState.FAILED, "Traceback …\nValueError: no such revision\n")}
    found = TABLE.resolve("org/other", statuses, NOW)
    assert isinstance(found, Unavailable)
    assert (found.status, found.code) == (503, "model_failed")
    assert found.message.endswith("ValueError: no such revision")


def test_the_listing_names_states_and_times() -> None:
    states = {item.name: (item.state, item.start, item.reason) for item in TABLE.listing(UP, NOW)}
    assert states["org/llama"] == ("serving", None, None)
    assert states["org/other"] == ("loading", None, None)
    assert states["org/huge"] == ("refused", NOW + HOUR, "needs 800 GiB.")
    assert "org/past" not in states


@pytest.mark.parametrize("text", ["", "org/model", "a:b", "a:{", 'a:{"repo_id": 3}', 'a:["x"]', "a:{}"])
def test_what_is_not_a_model_key(text: str) -> None:
    assert parse_model_key(text) is None
