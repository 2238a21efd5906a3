"""The API: what it says, to whom, and what it does only for whoever has the key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from scheduler.board import CalendarView
from scheduler.settings import ROOT
from scheduler.store.orders import Order, OrderKind
from scheduler.web.app import make_app
from scheduler.web.desk import Desk
from tests.scheduler.builders import NOON
from tests.web.desk import CALENDAR, KEY, NOW, Here, cordoned, desk_for, not_understood, remember, seen, week

BEARER = {"authorization": f"Bearer {KEY}"}
ORDERS = {
    "pause": {},
    "resume": None,
    "pin": {"model": "Qwen3-32B", "hours": 2},
    "evict": {"model": "Qwen/Qwen3-32B"},
    "release": {"model": "Qwen3-32B"},
    "cordon": {"node": "gpu-b"},
    "drain": {"node": "gpu-b", "note": "new fan"},
    "uncordon": {"node": "gpu-b"},
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    folder = tmp_path_factory.mktemp("state")
    remember(folder)
    return desk_for(folder, seen(week(), misunderstood=not_understood(), orders=(cordoned(),)), key=KEY)


ASKED = {
    "what": "Llama-3.3-70B-Instruct 8xH100",
    "start": "2026-03-03T13:00:00Z",
    "end": "2026-03-03T17:00:00Z",
}


NAMES = (
    "localhost:8280",
    "127.0.0.1:8280",
    "[::1]:8280",
    "10.1.2.3",
    "ndif.localhost",
    "page.lab",
    "ray:8280",
)


def client_of(desk: Desk, client: str = "127.0.0.1", **options: object) -> TestClient:
    base = {"base_url": "http://localhost:8280", "client": (client, 50_000)} | options
    return TestClient(make_app(desk, lambda: (b"up 1\n", "text/plain; version=0.0.4")), **base)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def client(desk: Desk) -> Iterator[TestClient]:
    with client_of(desk) as found:
        yield found


class TestReading:
    def test_everything_at_a_glance(self, client: TestClient) -> None:
        state = client.get("/api/v1/state").json()
        assert state["at"] == "2026-03-02T14:20:00Z"
        assert state["daemon"]["passes"] == 8412 and state["daemon"]["leads"]
        assert state["counts"]["serving"] == 4 and state["counts"]["loading"] == 1
        assert state["counts"]["refused"] == 3
        assert [one["kind"] for one in state["orders"]] == ["cordon"]
        assert state["orders"][0]["words"].startswith("gpu-old takes nothing new")
        assert state["calendars"][0]["age_seconds"] == 3.0

    def test_every_booking_with_its_reason(self, client: TestClient) -> None:
        bookings = {one["title"]: one for one in client.get("/api/v1/verdicts").json()}
        assert bookings["Llama-70B for the steering seminar"]["state"] == "serving"
        assert bookings["Llama-70B for the steering seminar"]["owner"] == "ada@example.org"
        assert bookings["gemma circuits"]["state"] == "loading"
        assert bookings["OLMo checkpoints"]["state"] == "booked"
        assert bookings["lama 3 big"]["state"] == "misunderstood"
        refused = bookings["Llama-70B, all of a node"]
        assert refused["state"] == "refused" and refused["why"]["kind"] == "later"
        assert refused["earliest"] == "2026-03-03T00:00:00Z"
        assert any("would fit from" in line for line in refused["why"]["more"])
        assert "dates=20260303T000000Z%2F20260303T060000Z" in refused["book"]
        assert "gpus%3A+8" in refused["book"]

    def test_bookings_can_be_asked_for_by_state(self, client: TestClient) -> None:
        found = client.get("/api/v1/verdicts?state=refused&state=misunderstood").json()
        assert {one["state"] for one in found} == {"refused", "misunderstood"}

    def test_what_is_loading_tells_how_far_it_is(self, client: TestClient) -> None:
        (loading,) = [one for one in client.get("/api/v1/models").json() if one["status"] == "loading"]
        assert (loading["name"], loading["step"]) == ("google/gemma-3-27b-it", "downloading")
        assert loading["fraction"] == 0.62

    def test_the_memory_of_a_node_adds_up(self, client: TestClient) -> None:
        nodes = {one["name"]: one for one in client.get("/api/v1/nodes").json()}
        for one in nodes.values():
            assert one["ours_bytes"] + one["others_bytes"] + one["free_bytes"] == one["total_bytes"]
        assert nodes["gpu-old"]["others_bytes"] == nodes["gpu-old"]["total_bytes"] // 4
        assert not nodes["gpu-old"]["open"] and nodes["gpu-old"]["note"] == "takes nothing new"
        assert nodes["gpu-a"]["ours_bytes"] > 0

    def test_the_plan_tells_what_comes(self, client: TestClient) -> None:
        plan = client.get("/api/v1/plan").json()
        assert [one["model"] for one in plan["actions"] if one["kind"] == "deploy"] == [
            "google/gemma-3-27b-it"
        ]
        assert plan["upcoming"]

    def test_promises_are_counted(self, client: TestClient) -> None:
        found = client.get("/api/v1/promises").json()
        assert (found["due"], found["kept"], found["late"], found["broken"]) == (5, 3, 1, 1)
        assert found["share_kept"] == 0.6
        assert client.get("/api/v1/promises?hours=2").json()["due"] == 2

    def test_the_past_is_told(self, client: TestClient) -> None:
        found = client.get("/api/v1/history?hours=48").json()
        assert found["plans"][-1]["actions"] == ["deploy google/gemma-3-27b-it gpu-a"]

    def test_before_the_daemon_has_looked_there_is_nothing(self, tmp_path: Path) -> None:
        with client_of(desk_for(tmp_path)) as client:
            answer = client.get("/api/v1/state")
            assert answer.status_code == 503 and answer.headers["retry-after"]
            assert answer.json()["detail"] == "The daemon has not looked yet."
            assert "Nothing to show yet" in client.get("/").text

    def test_a_calendar_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        view = seen(week())
        away = CalendarView(CALENDAR, NOW - timedelta(hours=2), "It is away.", "It is asked again.")
        object.__setattr__(view, "calendars", (away,))
        with client_of(desk_for(tmp_path, view)) as client:
            (found,) = client.get("/api/v1/state").json()["calendars"]
            assert not found["readable"] and found["age_seconds"] == 7200
            page = client.get("/").text
            assert "cannot be read" in page and "It is asked again." in page

    def test_it_is_described_with_examples(self, client: TestClient) -> None:
        described = client.get("/api/v1/openapi.json").json()
        assert set(described["paths"]) >= {"/api/v1/state", "/api/v1/what-if"}
        for path, operations in described["paths"].items():
            for one in operations.values():
                assert one["summary"] and one["description"], path
        assert "examples" in json.dumps(described["components"]["schemas"]["BookingShown"])
        shown = client.get("/api").text
        assert all(path in shown for path in described["paths"])

    def test_every_path_stands_in_the_documentation(self, client: TestClient) -> None:
        page = (ROOT / "docs/page.md").read_text()
        for path in client.get("/api/v1/openapi.json").json()["paths"]:
            assert f"{path.rpartition('/')[2]}`" in page, path

    def test_metrics_are_served_beside_it(self, client: TestClient) -> None:
        answer = client.get("/metrics")
        assert answer.text == "up 1\n" and answer.headers["content-type"] == "text/plain; version=0.0.4"

    def test_but_not_through_a_proxy_as_they_name_what_is_private(self, client: TestClient) -> None:
        proxied = {"x-forwarded-for": "1.2.3.4"}
        assert client.get("/metrics", headers=proxied).status_code == 403
        assert client.get("/metrics", headers=proxied | BEARER).status_code == 200

    def test_a_silent_daemon_is_not_well(self, tmp_path: Path, desk: Desk) -> None:
        with client_of(desk) as client:
            assert client.get("/healthz").status_code == 200
        late = desk_for(tmp_path, seen(week()), at=NOW + timedelta(minutes=6))
        with client_of(late) as client:
            assert client.get("/healthz").status_code == 503
            assert "has shown nothing for 6 min" in client.get("/").text

    def test_where_the_history_cannot_be_read_nothing_is_shown_that_may_be_private(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "history.db").write_bytes(b"no database at all" * 100)
        with client_of(desk_for(tmp_path, seen(week()))) as client:
            assert client.get("/api/v1/models").status_code == 409
            assert "cannot be read" in client.get("/").text


class TestWhatIf:
    def test_it_says_where_something_would_fit_and_books_nothing(self, client: TestClient) -> None:
        found = client.get("/api/v1/what-if", params=ASKED).json()
        assert found["fits"] is True and found["booking"]["nodes"] == ["gpu-b"]
        assert found["words"] == "It fits on gpu-b."
        assert "text=Llama-3.3-70B-Instruct" in found["book"] and "src=lab%40group" in found["book"]
        titles = [one["title"] for one in client.get("/api/v1/verdicts").json()]
        assert ASKED["what"] not in titles

    def test_it_says_why_something_would_not(self, client: TestClient) -> None:
        asked = ASKED | {"start": "2026-03-02T17:00:00Z", "end": "2026-03-02T20:00:00Z"}
        found = client.get("/api/v1/what-if", params=asked).json()
        assert found["fits"] is False and "needs 8 GPUs" in found["words"]
        assert found["booking"]["earliest"] == "2026-03-03T00:00:00Z"
        assert "20260303T000000Z" in found["book"]

    @pytest.mark.parametrize(
        ("change", "status"),
        [
            ({"what": ","}, 409),
            ({"what": "no model at all"}, 409),
            ({"end": "2026-03-03T12:00:00Z"}, 409),
            ({"start": "2026-03-03T13:00"}, 422),
            ({"end": "9999-12-31T23:59:59Z"}, 409),
            ({"what": "x" * 301}, 422),
        ],
    )
    def test_what_makes_no_sense_is_said(
        self, client: TestClient, change: dict[str, str], status: int
    ) -> None:
        assert client.get("/api/v1/what-if", params=ASKED | change).status_code == status

    def test_rules_about_who_may_book_are_answered_for_who_asks(self, tmp_path: Path) -> None:
        desk = desk_for(tmp_path, seen([]))
        rules = desk.settings.booking.model_copy(update={"organisers": ("example.org",)})
        desk = replace(desk, settings=desk.settings.model_copy(update={"booking": rules}))
        desk = replace(desk, judges=Here(desk.settings))
        with client_of(desk) as client:
            assert client.get("/api/v1/what-if", params=ASKED).json()["fits"] is False
            ours = client.get("/api/v1/what-if", params=ASKED | {"by": "ada@example.org"}).json()
            assert ours["fits"] is True
            assert 'name="by"' in client.get("/").text
        assert not desk_for(tmp_path).asks_who


class TestWhoMaySee:
    def test_elsewhere_neither_names_nor_words_are_shown(self, desk: Desk) -> None:
        with client_of(desk, "192.168.1.77", base_url="http://10.0.0.1:8280") as client:
            for path in paths(client):
                text = client.get(path).text
                assert "@example.org" not in text, path
                assert "steering seminar" not in text, path
                assert "lama 3 big" not in text, path
            assert "meta-llama/Llama-3.3-70B-Instruct" in client.get("/").text
            assert "shown to readers with the key" in client.get("/").text

    def test_with_the_key_they_are(self, desk: Desk) -> None:
        with client_of(desk, "192.168.1.77", base_url="http://10.0.0.1:8280", headers=BEARER) as client:
            assert "ada@example.org" in client.get("/api/v1/verdicts").text
            assert "steering seminar" in client.get("/live").text

    @pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "x-real-ip"])
    def test_through_a_proxy_on_this_machine_they_are_not(self, client: TestClient, header: str) -> None:
        text = client.get("/api/v1/verdicts", headers={header: "1.2.3.4"}).text
        assert "ada@example.org" not in text

    def test_what_is_private_is_nobodys_business(self, client: TestClient) -> None:
        for path in paths(client):
            # what can be booked is no secret
            text = re.sub("<datalist.*?</datalist>", "", client.get(path).text, flags=re.DOTALL)
            for word in ("secret", "unpublished", "rosalind"):
                assert word not in text, f"{word} in {path}"
        found = [one for one in client.get("/api/v1/verdicts").json() if one["private"]]
        assert [(one["title"], one["model"], one["owner"]) for one in found] == [
            ("Private booking", "a private model", None)
        ]
        assert "a private model" in client.get("/api/v1/nodes").text

    def test_but_the_operators(self, client: TestClient) -> None:
        text = client.get("/live", headers=BEARER).text
        assert "secret review" in text and "secret-lab/unpublished-9b" in text

    def test_a_private_booking_is_not_given_away_by_what_it_would_be_in_the_way_of(
        self, client: TestClient
    ) -> None:
        asked = {"start": "2026-03-02T15:00:00Z", "end": "2026-03-02T20:00:00Z"}
        text = client.get("/api/v1/what-if", params=asked | {"what": "gpt-oss-120b, gpus: 8"}).text
        assert "secret" not in text and "rosalind" not in text
        assert "a private model" in text


class TestTheDoor:
    @pytest.mark.parametrize("host", NAMES)
    def test_it_goes_by_these_names(self, tmp_path: Path, host: str) -> None:
        with client_of(desk_for(tmp_path, seen([]), hosts=("page.lab",))) as client:
            assert client.get("/api/v1/state", headers={"host": host}).status_code == 200

    @pytest.mark.parametrize("host", ["evil.example.org", "localhost.evil.org", "", "10.1.2.3.evil.org:8280"])
    def test_and_no_others(self, client: TestClient, host: str) -> None:
        for path in ("/", "/api/v1/state", "/metrics", "/static/page.js"):
            answer = client.get(path, headers={"host": host})
            assert answer.status_code == 421 and "web.hosts" in answer.json()["remedy"]

    def test_browsers_are_told_to_load_nothing_from_elsewhere(self, client: TestClient) -> None:
        for path in ("/", "/live", "/api", "/api/v1/state", "/static/page.css", "/nowhere"):
            headers = client.get(path).headers
            assert "default-src 'self'" in headers["content-security-policy"], path
            assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
            assert "access-control-allow-origin" not in headers

    def test_nothing_in_the_page_comes_from_elsewhere(self, client: TestClient) -> None:
        page = client.get("/").text
        assert 'src="http' not in page and 'rel="stylesheet" href="http' not in page
        assert "<script>" not in page and " style=" not in page and " onclick" not in page

    def test_long_bodies_are_not_read(self, client: TestClient) -> None:
        answer = client.post("/api/v1/orders/pause", content=b"x" * 20_000, headers=BEARER)
        assert answer.status_code == 413

        def parts() -> Iterator[bytes]:
            yield b"{"

        assert client.post("/api/v1/orders/pause", content=parts(), headers=BEARER).status_code == 413


class TestOrders:
    @pytest.mark.parametrize("name", ORDERS)
    def test_nobody_gives_orders_without_the_key(self, client: TestClient, desk: Desk, name: str) -> None:
        before = desk.orders.read()
        answer = client.post(f"/api/v1/orders/{name}", json=ORDERS[name])
        assert answer.status_code == 403 and "Bearer" in answer.json()["remedy"]
        answer = client.post(
            f"/api/v1/orders/{name}", json=ORDERS[name], headers={"authorization": "Bearer wrong wrong wrong"}
        )
        assert answer.status_code == 401
        assert desk.orders.read() == before

    def test_where_there_is_no_key_nobody_does(self, tmp_path: Path) -> None:
        with client_of(desk_for(tmp_path, seen([]))) as client:
            assert client.post("/api/v1/orders/pause", json={}).json()["remedy"] == "Set NDIF_WEB__KEY first."
            assert client.post("/api/v1/orders/pause", json={}, headers=BEARER).status_code == 401
            assert 'id="operator"' not in client.get("/").text

    def test_a_wrong_key_is_no_key_for_reading_either(self, client: TestClient) -> None:
        answer = client.get("/api/v1/state", headers={"authorization": "Bearer wrong wrong wrong"})
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"

    def test_orders_are_kept_where_the_daemon_reads_them(self, tmp_path: Path) -> None:
        desk = desk_for(tmp_path, seen([]), key=KEY)
        with client_of(desk, headers=BEARER) as client:
            said = client.post("/api/v1/orders/pause", json={"hours": 1.5, "note": "power  cut"}).json()
            assert said["words"][0].startswith("Paused: nothing is changed until 15:50")
            assert client.post("/api/v1/orders/pin", json=ORDERS["pin"]).status_code == 200
            assert client.post("/api/v1/orders/drain", json=ORDERS["drain"]).status_code == 200
        pause, pin, drain = desk.orders.read().orders
        assert (pause.kind, pause.until, pause.note) == (
            OrderKind.PAUSE,
            NOW + timedelta(hours=1.5),
            "power cut",
        )
        assert (pin.kind, pin.subject, pin.until) == (OrderKind.PIN, "Qwen3-32B", NOW + timedelta(hours=2))
        assert (drain.kind, drain.subject, drain.until) == (OrderKind.DRAIN, "gpu-b", None)
        with client_of(desk, headers=BEARER) as client:
            (resumed,) = client.post("/api/v1/orders/resume").json()["words"]
            assert resumed.startswith("No longer paused: what is booked is carried out again")
            assert client.post("/api/v1/orders/resume").json()["words"] == []
            assert client.post("/api/v1/orders/uncordon", json=ORDERS["uncordon"]).status_code == 200
        assert [one.kind for one in desk.orders.read().orders] == [OrderKind.PIN]

    @pytest.mark.parametrize(
        ("name", "body"),
        [("cordon", {"node": "gpu-z"}), ("pin", {"model": "Llamma"}), ("evict", {"model": "two words"})],
    )
    def test_what_does_not_exist_cannot_be_ordered(
        self, client: TestClient, name: str, body: dict[str, str]
    ) -> None:
        answer = client.post(f"/api/v1/orders/{name}", json=body, headers=BEARER)
        assert answer.status_code == 404 and answer.json()["remedy"]

    def test_orders_of_the_terminal_are_shown(self, tmp_path: Path) -> None:
        pause = Order(kind=OrderKind.PAUSE, since=NOON, by="ops@desk")
        view = seen([], orders=(pause,), pause=pause)
        with client_of(desk_for(tmp_path, view)) as client:
            assert client.get("/api/v1/state").json()["daemon"]["paused"] is True
            assert "Paused: nothing is changed" in client.get("/").text


def paths(client: TestClient) -> list[str]:
    """All that can be read without saying more."""
    described: dict[str, dict[str, object]] = client.get("/api/v1/openapi.json").json()["paths"]
    asking = {"/api/v1/what-if", "/api/v1/events"}
    reading = [path for path, how in described.items() if "get" in how and path not in asking]
    return ["/", "/live?zoom=day", "/live", *reading]
