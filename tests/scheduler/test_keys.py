"""The commands ``ndif-ray keys``, and that an open gateway needs one."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from scheduler.errors import OperatorError
from scheduler.keys import opened, require_keys
from scheduler.keys_commands import keys
from scheduler.settings import load_settings
from serve_apps.gateway.keys import KEYS_FILE, KeyStore

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NDIF_STATE_DIR", str(tmp_path))
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(keys, arguments, standalone_mode=False)


def add(*arguments: str) -> dict[str, object]:
    made: dict[str, object] = json.loads(run("add", "--json", *arguments).output)
    return made


def test_a_key_is_shown_once_and_kept_as_a_hash(state: Path) -> None:
    made = add("--mail", "ada@example.org", "--tag", "lab", "--tag", "b", "--trusted")
    (listed,) = json.loads(run("list", "--json").output)
    assert listed == {name: value for name, value in made.items() if name != "key"}
    assert (listed["mail"], listed["tags"], listed["trusted"]) == ("ada@example.org", ["lab", "b"], True)
    secret = str(made["key"])[-16:].encode()
    for path in (state / "gateway").iterdir():
        assert secret not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0


def test_a_revoked_key_stays_listed_and_opens_nothing(state: Path) -> None:
    made = add("--mail", "ada@example.org")
    store = KeyStore(state / "gateway" / KEYS_FILE)
    assert store.identify(str(made["key"])) is not None
    assert "is revoked" in run("revoke", str(made["id"])).output
    assert store.identify(str(made["key"])) is None
    store.close()
    (listed,) = json.loads(run("list", "--json").output)
    assert listed["revoked"] is not None


def test_the_text_for_people_names_whom_and_what(state: Path) -> None:
    assert "no keys" in run("list").output
    text = run("add", "--mail", "ada@example.org", "--trusted").output
    assert "ada@example.org, trusted with code" in text and "ndif-" in text
    assert "ada@example.org" in run("list").output


@pytest.mark.parametrize("mail", ["ada", "@example.org", "ada@", "a da@example.org"])
def test_what_is_no_mail_address_is_refused(state: Path, mail: str) -> None:
    assert isinstance(run("add", "--mail", mail).exception, OperatorError)


def test_an_unknown_id_is_an_error_and_a_missing_mail_too(state: Path) -> None:
    assert isinstance(run("revoke", "nobody").exception, OperatorError)
    assert isinstance(run("add").exception, click.ClickException)


def test_keys_of_a_later_version_are_left_alone(state: Path) -> None:
    import sqlite3

    add("--mail", "ada@example.org")
    with sqlite3.connect(state / "gateway" / KEYS_FILE) as database:
        database.execute("PRAGMA user_version = 99")
    assert "version 99" in str(run("list").exception)


@pytest.mark.parametrize(
    ("serve", "refused"),
    [
        ({}, False),
        ({"host": "localhost"}, False),
        ({"require_keys": True}, True),
        ({"host": "0.0.0.0"}, True),
        ({"host": "192.168.1.10"}, True),
    ],
)
def test_a_gateway_that_asks_for_keys_does_not_start_before_there_is_one(
    state: Path, serve: dict[str, object], refused: bool
) -> None:
    settings = load_settings(serve=serve)
    if not refused:
        require_keys(settings, NOW)
        return
    with pytest.raises(OperatorError) as caught:
        require_keys(settings, NOW)
    assert "keys add" in caught.value.remedy
    made = add("--mail", "ada@example.org")
    require_keys(settings, NOW)
    run("revoke", str(made["id"]))
    with pytest.raises(OperatorError):
        require_keys(settings, NOW)


def test_the_first_key_is_made_once_and_lies_where_only_the_operator_reads_it(state: Path) -> None:
    settings = load_settings(serve={"host": "0.0.0.0", "first_key_for": "ada@example.org"})
    path = require_keys(settings, NOW)
    assert path is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with opened(settings) as store:
        caller = store.identify(path.read_text().strip())
    assert caller is not None
    assert (caller.mail, caller.trusted) == ("ada@example.org", True)
    assert require_keys(settings, NOW) is None


def test_a_key_that_was_taken_back_is_not_made_again(state: Path) -> None:
    settings = load_settings(serve={"host": "0.0.0.0", "first_key_for": "ada@example.org"})
    require_keys(settings, NOW)
    with opened(settings) as store:
        store.revoke(store.all()[0].id, NOW)
    with pytest.raises(OperatorError, match="no key yet"):
        require_keys(settings, NOW)
