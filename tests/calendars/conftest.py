"""Fixtures of the calendars' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.calendars.google_desk import Desk
from tests.google_server import google_server


@pytest.fixture(scope="session")
def whole_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One server and one key for all tests: making an RSA key takes longer than most of them."""
    with google_server() as google:
        yield Desk(google, google.key_file(tmp_path_factory.mktemp("key")))


@pytest.fixture
def desk(whole_desk: Desk) -> Iterator[Desk]:
    """The desk as if nobody had been there; calendars are each test's own."""
    whole_desk.tidy()
    yield whole_desk
    whole_desk.tidy()
