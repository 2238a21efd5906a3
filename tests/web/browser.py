"""Chromium from the system, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

# the first has nothing that a window needs, and takes half the time
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str:
    """Where Chromium is; the tests are skipped without it, but not where they must run.

    Raises:
        RuntimeError: it is not installed, and ``CI`` is set.
    """
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        words = "There is no Chromium on the PATH: apt-get install chromium"
        if os.environ.get("CI"):
            raise RuntimeError(words)
        pytest.skip(words)
    return found


@contextmanager
def launched() -> Iterator[Browser]:
    """A Chromium without a window."""
    with sync_playwright() as playwright:
        # its sandbox needs rights that root in a container has not
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, url: str, **options: object) -> Iterator[Page]:
    """A page, whose scripts must not fail and which must load nothing from elsewhere."""
    settings: dict[str, object] = {"viewport": {"width": 1280, "height": 900}, "timezone_id": "Europe/Berlin"}
    context = browser.new_context(**(settings | options))  # type: ignore[arg-type]
    page = context.new_page()
    problems: list[str] = []
    home = url.split("/")[2]
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console", lambda said: problems.append(said.text) if "Content Security Policy" in said.text else None
    )
    page.on(
        "request",
        lambda asked: None if home in asked.url else problems.append(f"loads {asked.url}"),
    )
    page.goto(url)
    try:
        yield page
    finally:
        context.close()
    assert problems == []
