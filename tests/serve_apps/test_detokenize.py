"""Text from tokens, in pieces, up to a stop string."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_apps.model.detokenize import TextStream


def decode_bytes(token_ids: Sequence[int]) -> str:
    """A tokenizer whose tokens are single bytes: characters arrive in parts."""
    return bytes(token_ids).decode(errors="replace")


def pieces(text: str, stop: Sequence[str] = ()) -> tuple[list[str], bool]:
    stream = TextStream(decode_bytes, stop)
    out = [stream.push(byte) for byte in text.encode()]
    out.append(stream.finish())
    return out, stream.stopped


@given(st.text())
def test_the_pieces_add_up_to_the_text(text: str) -> None:
    assert "".join(pieces(text)[0]) == text


@given(
    st.text(alphabet="ab\u00e9", max_size=30), st.lists(st.text(alphabet="ab\u00e9", min_size=1), max_size=3)
)
def test_the_text_ends_before_the_first_stop_string(text: str, stop: list[str]) -> None:
    out, stopped = pieces(text, stop)
    hits = [text.find(one) for one in stop if one in text]
    assert stopped == bool(hits)
    assert "".join(out) == (text[: min(first_finished(text, stop))] if hits else text)


def first_finished(text: str, stop: list[str]) -> list[int]:
    """Where the stop strings begin that are complete first: tokens come one by one."""
    ends = {one: text.find(one) + len(one) for one in stop if one in text}
    earliest = min(ends.values())
    return [end - len(one) for one, end in ends.items() if end == earliest]


@pytest.mark.parametrize("text", ["a€b", "🙂"])
def test_a_character_waits_until_it_is_whole(text: str) -> None:
    assert "\ufffd" not in "".join(pieces(text)[0])


def test_an_end_that_stays_broken_is_shown_at_last() -> None:
    stream = TextStream(decode_bytes)
    assert [stream.push(byte) for byte in b"a\xe2"] == ["a", ""]
    assert stream.finish() == "\ufffd"


def test_what_could_be_a_stop_string_is_held_back() -> None:
    stream = TextStream(decode_bytes, ["\n\n"])
    assert [stream.push(byte) for byte in b"a\nb"] == ["a", "", "\nb"]
