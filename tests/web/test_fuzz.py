"""Whatever is sent to the API, it answers, and never with a fault of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from tests.examples import examples
from tests.web.desk import KEY, desk_for, not_understood, remember, seen, served, week

EXAMPLES = settings(
    max_examples=examples(5),
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
BEARER = {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("state")
    remember(folder)
    view = seen(week()[:4], misunderstood=not_understood())
    with served(desk_for(folder, view, key=KEY)) as url:
        yield url


@pytest.mark.parametrize("headers", [{}, BEARER], ids=["reader", "operator"])
def test_nothing_that_the_openapi_allows_or_forbids_is_a_fault(address: str, headers: dict[str, str]) -> None:
    api = schemathesis.openapi.from_url(f"{address}/api/v1/openapi.json")
    tried: dict[str, set[int]] = {}
    for operation in (found.ok() for found in api.get_all_operations()):
        if operation.path.endswith("/events"):
            continue  # it never ends
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(EXAMPLES)
            def ask(case: Any) -> None:
                answer = case.call(timeout=20, headers=headers)
                assert answer.status_code < 500, f"{case.as_curl_command()}\n{answer.text}"
                tried.setdefault(operation.label, set()).add(answer.status_code)  # noqa: B023 - called at once

            # some operations have nothing that could be wrong
            with suppress(Unsatisfiable):
                ask()
    assert {"GET /api/v1/state", "GET /api/v1/what-if", "POST /api/v1/orders/pin"} <= tried.keys()
    ordering = {status for label, found in tried.items() if label.startswith("POST") for status in found}
    assert (200 in ordering) == bool(headers), "orders are for the operator only"
    assert httpx.get(f"{address}/healthz").status_code == 200


@pytest.mark.parametrize("hours", [0, -1, 8761, 1e12, 1e308])
def test_no_order_and_no_look_back_is_for_longer_than_calendars_reach(address: str, hours: float) -> None:
    with httpx.Client(base_url=f"{address}/api/v1", headers=BEARER) as operator:
        for order, about in {"pause": {}, "pin": {"model": "m"}, "cordon": {"node": "n"}}.items():
            assert operator.post(f"/orders/{order}", json={"hours": hours, **about}).status_code == 422
        for past in ("history", "promises"):
            assert operator.get(f"/{past}", params={"hours": hours}).status_code == 422


@given(what=st.text(), start=st.text(max_size=40), end=st.text(max_size=40), zoom=st.text(max_size=12))
@EXAMPLES
def test_the_form_takes_anything(address: str, what: str, start: str, end: str, zoom: str) -> None:
    asked = "&".join(
        f"{name}={quote(value, errors='replace')}"
        for name, value in {"what": what, "start": start, "end": end, "zoom": zoom}.items()
    )
    for path in ("/", "/live", "/what-if"):
        assert httpx.get(f"{address}{path}?{asked}").status_code in (200, 422)


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "Asia/Kathmandu", "../../etc/passwd", "No/Where", "\x00", "x" * 80]
)
def test_the_zone_a_browser_names_may_be_anything(address: str, zone: str) -> None:
    answer = httpx.get(f"{address}/live", headers={"cookie": f"zone={quote(zone, safe='/')}"})
    assert answer.status_code in (200, 422)
