"""The page as people meet it: in Chromium, light, dark, on a phone, without JavaScript, with the keyboard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from scheduler.board import View
from scheduler.web.desk import Desk
from scheduler.web.timeline import OPEN_NODES
from tests.scheduler.builders import cluster, gpus
from tests.web.browser import chromium, launched, opened
from tests.web.desk import KEY, book, cordoned, desk_for, not_understood, remember, seen, served, week

WIDTHS = {"desktop": 1280, "phone": 360}
EVIL = "<script>document.title='gotcha'</script><img src=x onerror=\"document.title='gotcha'\">\"'>]]>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    folder = tmp_path_factory.mktemp("state")
    remember(folder)
    return desk_for(folder, seen(week(), misunderstood=not_understood(), orders=(cordoned(),)), key=KEY)


@pytest.fixture(scope="module")
def address(desk: Desk) -> Iterator[str]:
    with served(desk) as url:
        yield url


def serious(page: Page) -> list[str]:
    """What axe finds that matters."""
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']} ({one['nodes'][0]['html'][:200]})"
        for one in found
        if one["impact"] in ("serious", "critical", "moderate")
    ]


def overflow(page: Page) -> int:
    """How many pixels the page is wider than its window."""
    wide: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return wide


def live(page: Page) -> None:
    expect(page.locator("#live-sign")).to_have_text("live")
    expect(page.locator("body")).to_have_attribute("data-refreshed", re.compile("[1-9]"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("path", ["/", "/api"])
def test_everybody_can_use_it(browser: Browser, address: str, scheme: str, width: int, path: str) -> None:
    with opened(
        browser, address + path, color_scheme=scheme, viewport={"width": width, "height": 800}
    ) as page:
        if path == "/":
            live(page)
            page.locator("details#operator").evaluate("one => one.open = true")
            page.locator("#refused details").first.evaluate("one => one.open = true")
        assert serious(page) == []
        assert overflow(page) == 0


def test_nothing_booked_at_all(browser: Browser, tmp_path: Path) -> None:
    with served(desk_for(tmp_path, seen([]))) as url:
        for width in WIDTHS.values():
            with opened(browser, url, viewport={"width": width, "height": 800}) as page:
                live(page)
                expect(page.locator("#timeline .empty")).to_contain_text("Nothing is booked")
                assert serious(page) == [] and overflow(page) == 0


def test_before_the_daemon_has_looked_and_when_it_then_has(browser: Browser, tmp_path: Path) -> None:
    desk = desk_for(tmp_path)
    with served(desk) as url, opened(browser, url) as page:
        expect(page.locator("h1")).to_have_text("Nothing to show yet")
        assert serious(page) == []
        desk.board.publish(seen(week()))
        expect(page.locator("#status h1")).to_contain_text("models are serving")


def many_nodes(nodes: int, bookings: int) -> View:
    return seen(
        [
            book(
                f"job {number}", f"lab/model-{number}", number % 40 - 5, number % 40 + 6, gpus=1 + number % 8
            )
            for number in range(bookings)
        ],
        cluster(*(gpus(f"gpu-{number:02}", 8, 80) for number in range(nodes))),
    )


def test_many_nodes_are_folded_up_and_open_one_by_one(browser: Browser, tmp_path: Path) -> None:
    with served(desk_for(tmp_path, many_nodes(50, 200))) as url:
        for width in WIDTHS.values():
            with opened(browser, url, viewport={"width": width, "height": 800}) as page:
                live(page)
                assert page.locator("#timeline details.folded").count() == 50
                assert page.locator("#timeline a.bar").count() == 200
                assert page.locator("#timeline").bounding_box()["height"] < 2400  # type: ignore[index]
                first = page.locator("#timeline details.folded").first
                expect(first.locator(".lanes")).not_to_be_visible()
                first.locator("summary").click()
                expect(first.locator(".lanes")).to_be_visible()
                assert overflow(page) == 0


def test_everybody_can_use_nodes_that_are_folded_up(browser: Browser, tmp_path: Path) -> None:
    # axe takes seconds for as many as above
    with served(desk_for(tmp_path, many_nodes(OPEN_NODES + 1, 30))) as url, opened(browser, url) as page:
        live(page)
        page.locator("#timeline details.folded summary").first.click()
        assert serious(page) == []


@pytest.mark.parametrize("title", ["word " * 60, "x" * 300, EVIL * 3], ids=["words", "letters", "code"])
def test_no_title_breaks_it(browser: Browser, tmp_path: Path, title: str) -> None:
    bookings = [
        book(title, "google/gemma-3-27b-it", -2, 5, owner=f"{title}@example.org"),
        book(title + "2", "deepseek-ai/DeepSeek-V3", 1, 9),
        book(title + "3", "Qwen/Qwen3-32B", 20, 30, accelerator="H100"),
    ]
    remember(tmp_path)
    with served(desk_for(tmp_path, seen(bookings))) as url:
        for width in WIDTHS.values():
            with opened(browser, url, viewport={"width": width, "height": 800}) as page:
                live(page)
                assert overflow(page) == 0
                assert page.title() == "NDIF Ray Service"
                shown = page.locator("#bookings h3").first.text_content() or ""
                assert shown.strip() == title.strip()
                assert page.locator("#main img, #main script").count() == 0


def test_the_question_and_its_answer_are_no_code_either(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        page.fill("#what", EVIL)
        page.click("#what-if-form button")
        expect(page.locator("#answer .notice")).to_contain_text("<script>")
        assert page.title() == "NDIF Ray Service"
        page.goto(f"{address}/?what=%22%3E%3Cscript%3Edocument.title=1%3C/script%3E&start=x&end=y")
        assert page.title() == "NDIF Ray Service"
        expect(page.locator("#what")).to_have_value('"><script>document.title=1</script>')


def test_what_is_new_is_shown_without_reloading(browser: Browser, tmp_path: Path) -> None:
    desk = desk_for(tmp_path, seen([]))
    with served(desk) as url, opened(browser, url) as page:
        live(page)
        page.fill("#what", "half written")
        desk.board.publish(seen(week()))
        expect(page.locator("#bookings")).to_contain_text("Llama-70B for the steering seminar")
        assert page.input_value("#what") == "half written"


def test_what_was_open_and_had_the_focus_still_is_and_has(browser: Browser, tmp_path: Path) -> None:
    desk = desk_for(tmp_path, seen(week()))
    with served(desk) as url, opened(browser, url) as page:
        live(page)
        page.locator("#refused details").first.locator("summary").click()
        page.locator("#timeline .lanes a.bar").nth(2).focus()
        was = page.evaluate("document.activeElement.dataset.more")
        desk.board.publish(seen([*week(), book("a new one", "Qwen/Qwen3-32B", 100, 110)]))
        expect(page.locator("#bookings")).to_contain_text("a new one")
        assert page.evaluate("document.activeElement.dataset.more") == was
        assert page.locator("#refused details").first.evaluate("one => one.open")


def test_a_server_that_goes_away_and_comes_back(browser: Browser, tmp_path: Path) -> None:
    desk = desk_for(tmp_path, seen([]))
    with served(desk) as url, opened(browser, url) as page:
        live(page)
        page.context.set_offline(True)
        page.evaluate("document.body.dataset.was = 'here'")
    with served(desk) as url, opened(browser, url) as page:
        live(page)
        # after such an answer the browser does not try again by itself
        page.route("**/api/v1/events", lambda route: route.fulfill(status=503))
        page.clock.install()
        page.reload()
        expect(page.locator("#live-sign")).to_have_text("reconnecting")
        page.unroute("**/api/v1/events")
        page.clock.fast_forward(5000)
        expect(page.locator("#live-sign")).to_have_text("live")


def test_where_there_is_no_browser_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CI", "1")
    with pytest.raises(RuntimeError, match="apt-get install chromium"):
        chromium()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        chromium()


def test_details_are_told_to_the_mouse_and_to_the_keyboard(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        live(page)
        bar = page.get_by_role("link", name="Llama-70B for the steering seminar").first
        bar.locator(".box").hover()
        expect(page.locator("#hover")).to_be_visible()
        expect(page.locator("#hover")).to_contain_text("meta-llama/Llama-3.3-70B-Instruct")
        page.keyboard.press("Escape")
        expect(page.locator("#hover")).not_to_be_visible()
        bar.focus()
        expect(page.locator("#hover")).to_contain_text("08:00 to 19:00")
        before = page.evaluate("document.activeElement.getAttribute('aria-label')")
        page.keyboard.press("ArrowRight")
        after = page.evaluate("document.activeElement.getAttribute('aria-label')")
        assert after and after != before
        page.keyboard.press("End")
        assert page.locator("#timeline .lanes .bar").last.evaluate("one => one === document.activeElement")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "what", "the timeline is one stop"
        bar.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#bookings .entry:target h3")).to_have_text("Llama-70B for the steering seminar")


def test_it_is_zoomed(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        live(page)
        wide = page.get_by_role("link", name="gemma circuits").locator(".box").bounding_box()
        page.get_by_role("link", name="Day", exact=True).click()
        live(page)
        wider = page.get_by_role("link", name="gemma circuits").locator(".box").bounding_box()
        assert wide and wider and wider["width"] > 3 * wide["width"]
        assert page.locator(".zoom [aria-current]").text_content() == "Day"


def test_the_line_of_the_present_stands_between_past_and_future(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        live(page)
        line = page.locator("#timeline .lanes .now").first.bounding_box()
        past = page.get_by_role("link", name="was on").first.locator(".box").bounding_box()
        future = page.get_by_role("link", name="OLMo checkpoints").locator(".box").bounding_box()
        assert line and past and future
        assert past["x"] + past["width"] <= line["x"] <= future["x"]


def test_times_are_told_by_the_readers_clock(browser: Browser, address: str) -> None:
    for zone, window in {"Europe/Berlin": "08:00 to 19:00", "America/New_York": "02:00 to 13:00"}.items():
        with opened(browser, address, timezone_id=zone) as page:
            live(page)
            expect(page.locator("footer strong").first).to_have_text(zone)
            entry = page.locator("#bookings .entry", has_text="steering seminar")
            expect(entry).to_contain_text(window)


def test_would_this_fit(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        live(page)
        page.fill("#what", "Llama-3.3-70B-Instruct 8xH100")
        page.fill("#start", "2026-03-02T18:00")
        page.fill("#end", "2026-03-02T21:00")
        page.click("#what-if-form button")
        expect(page.locator("#answer .verdict")).to_contain_text("It does not fit")
        expect(page.locator("#answer .earliest")).to_contain_text("Tue 03 Mar 01:00")
        link = page.locator("#answer a.button").first.get_attribute("href") or ""
        assert link.startswith("https://calendar.google.com/calendar/render?action=TEMPLATE")
        assert "dates=20260303T000000Z%2F20260303T030000Z" in link
        page.fill("#start", "2026-03-03T02:00")
        page.fill("#end", "2026-03-03T04:00")
        page.click("#what-if-form button")
        expect(page.locator("#answer .verdict")).to_contain_text("It fits on gpu-b")
        assert serious(page) == []


def test_without_javascript_everything_is_there_too(browser: Browser, address: str) -> None:
    with opened(browser, address, java_script_enabled=False) as page:
        assert page.locator("#timeline a.bar").count() > 10
        expect(page.locator("#refused")).to_contain_text("all of a node")
        page.fill("#what", "Llama-3.3-70B-Instruct 8xH100")
        page.fill("#start", "2026-03-02T17:00")
        page.fill("#end", "2026-03-02T20:00")
        page.click("#what-if-form button")
        expect(page.locator("#answer .verdict")).to_contain_text("It does not fit")
        page.get_by_role("link", name="3 days").click()
        expect(page.locator(".zoom [aria-current]")).to_have_text("3 days")


def test_the_operator_sees_and_orders_with_the_key(browser: Browser, tmp_path: Path) -> None:
    desk = desk_for(tmp_path, seen(week()), key=KEY)
    with served(desk) as url, opened(browser, url) as page:
        live(page)
        expect(page.locator("#bookings")).not_to_contain_text("secret review")
        page.locator("#operator summary").click()
        page.select_option("#order", "cordon")
        page.fill("#subject", "gpu-b")
        page.get_by_role("button", name="Order", exact=True).click()
        expect(page.locator("#ordered")).to_contain_text("takes the operator's key")
        page.fill("#key", KEY)
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("#bookings")).to_contain_text("secret review")
        page.get_by_role("button", name="Order", exact=True).click()
        expect(page.locator("#ordered")).to_contain_text("gpu-b takes nothing new")
        assert [one.subject for one in desk.orders.read().orders] == ["gpu-b"]
        page.get_by_role("button", name="Forget it").click()
        expect(page.locator("#bookings")).not_to_contain_text("secret review")
        assert KEY not in page.content() and KEY not in str(page.context.cookies())
