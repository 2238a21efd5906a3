"""The settings of the page."""

from __future__ import annotations

import pytest

from scheduler.errors import OperatorError
from scheduler.render.settings import settings_markdown
from scheduler.settings import load_settings
from scheduler.settings_web import WebSettings


def test_a_key_that_is_not_given_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NDIF_WEB__KEY", "")
    monkeypatch.setenv("NDIF_WEB__PUBLIC_URL", "")
    web = load_settings().web
    assert web.key is None and web.public_url is None


def test_a_key_is_told_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NDIF_WEB__KEY", "a long enough secret")
    assert "a long enough secret" not in str(load_settings())
    monkeypatch.setenv("NDIF_WEB__KEY", "too short")
    with pytest.raises(OperatorError, match=r"NDIF_WEB__KEY: .*at least 16") as problem:
        load_settings()
    assert "too short" not in str(problem.value)
    assert "web.key" in settings_markdown()


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "http://127.0.0.1:8280"),
        ({"host": "0.0.0.0", "port": 9000}, "http://127.0.0.1:9000"),
        ({"host": "::"}, "http://[::1]:8280"),
        ({"host": "10.1.2.3"}, "http://10.1.2.3:8280"),
        ({"public_url": "https://ndif.example.org/"}, "https://ndif.example.org"),
    ],
)
def test_where_people_find_it(settings: dict[str, object], url: str) -> None:
    assert WebSettings.model_validate(settings).url == url
