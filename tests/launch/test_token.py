"""The token: made once, for its owner only."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from scheduler.errors import OperatorError
from scheduler.launch.token import make_token, read_token


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_token_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "token"
    make_token(path)
    token = read_token(path)
    make_token(path)
    assert read_token(path) == token
    assert len(token) == 64
    assert mode(path) == 0o600


def test_a_token_others_can_read_is_narrowed(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("a" * 64)
    path.chmod(0o644)
    make_token(path)
    assert mode(path) == 0o600
    assert read_token(path) == "a" * 64


@pytest.mark.parametrize("content", [None, "", "  \n"])
def test_no_token_is_said(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    with pytest.raises(OperatorError, match=str(path)):
        read_token(path)


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError, match="NDIF_RAY__TOKEN_PATH"):
        make_token(tmp_path / "file" / "token")
