"""The block in a description: what is written, and that a person's own words come back byte for byte."""

from __future__ import annotations

import html
import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from calendars.event_text import parse_event
from calendars.html_text import plain_text
from calendars.status_block import BAR, CLOSING, OPENING, fenced, with_block
from calendars.write_back import (
    COLOURS,
    URGENCY,
    Report,
    digest,
    render_block,
    strip_block,
    with_report,
)
from tests.calendars.google_desk import say

SERVING = say("k", "serving", "at http://node-1:8267/v1", "took 42 s & 3 GiB", "<b>[odd]</b>")

PIECES = st.sampled_from(
    [
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        "<br>",
        "<br/>",
        "<br><br>",
        "<p>",
        "</p>",
        "&nbsp;",
        "&amp;",
        " ",
        "replicas: 2",
        "model: a/b",
        "| a line of one's own",
        "[booking",
        "status]",
        "[end",
        "of",
        "ü🎉",
        "<bob@example.org>",
        "a < b",
    ]
)
WORDS = st.lists(PIECES | st.text(max_size=4), max_size=12).map("".join)
LINES = st.lists(st.text(max_size=30) | PIECES, max_size=4)
REPORTS = st.builds(say, st.text(max_size=8), st.sampled_from(sorted(COLOURS)))


def without_fences(text: str) -> bool:
    return strip_block(text) == text


@given(WORDS.filter(without_fences), LINES)
@example("", [])
@example("abc\r", [])
@example("abc<br>", ["x"])
@example("abc\n", ["x"])
def test_taking_a_block_out_undoes_putting_it_in(words: str, lines: list[str]) -> None:
    assert strip_block(with_block(words, lines)) == words


@given(WORDS, LINES, LINES)
def test_there_is_one_block_however_often_it_is_written(
    words: str, first: list[str], then: list[str]
) -> None:
    once = with_block(words, then)
    assert with_block(with_block(words, first), then) == once
    assert with_block(once, then) == once
    assert once.count(OPENING) == once.count(CLOSING) == 1


@given(st.lists(PIECES | st.sampled_from([OPENING, CLOSING, *OPENING.split()]), max_size=20).map("".join))
def test_taking_out_is_done_once_and_for_all(text: str) -> None:
    stripped = strip_block(text)
    assert strip_block(stripped) == stripped
    assert OPENING not in stripped
    assert CLOSING not in stripped


def test_the_block_as_a_person_sees_it() -> None:
    assert with_report("replicas: 2", SERVING) == (
        "replicas: 2\n\n"
        f"{OPENING}\n| serving\n| at http://node-1:8267/v1\n| took 42 s & 3 GiB\n| ‹b›(odd)‹/b›\n{CLOSING}"
    )
    assert render_block(say("k", "ended")) == f"{OPENING}\n| ended\n{CLOSING}"


def test_html_is_continued_as_html() -> None:
    assert with_report("replicas: 2<br>thanks", say("k", "loading", "3 & 4")) == (
        f"replicas: 2<br>thanks<br><br>{OPENING}<br>| loading<br>| 3 &amp; 4<br>{CLOSING}"
    )


# --- what an editor makes of it ------------------------------------------------------------------------


def edited(text: str) -> list[str]:
    """Forms in which a description comes back from HTML editors."""
    escaped = html.escape(text, quote=True)
    lines = escaped.split("\n")
    linked = re.sub(r"(http://[^\s<]+)", r'<a href="\1">\1</a>', escaped)
    return [
        text.replace("\n", "\r\n"),
        "<br>".join(lines),
        "<br/>".join(lines),
        "<br />\n".join(lines),
        "".join(f"<p>{line or '&nbsp;'}</p>" for line in lines),
        "".join(f"<div><span style='color: red'>{line or '<br>'}</span></div>" for line in lines),
        "<html-blob>" + "<br>".join(lines) + "</html-blob>",
        "<br>".join(line.replace(" ", "&nbsp;") for line in lines),
        "<br>".join(line.replace(" ", "\u00a0") for line in lines),
        "<br>".join(re.sub(r"(\w+)", r"<span>\1</span>", line, count=1) for line in lines),
        linked.replace("\n", "<br>"),
    ]


@pytest.mark.parametrize("form", range(len(edited(""))))
def test_a_block_survives_editors(form: int) -> None:
    description = edited(with_report("replicas: 2\ngpus: 1", SERVING))[form]
    words = strip_block(description)
    assert "booking status" not in plain_text(words)
    assert "serving" not in words
    expected = parse_event("gpt2", "replicas: 2\ngpus: 1")
    assert parse_event("gpt2", description) == expected
    again = with_report(description, say("k", "ended"))
    assert plain_text(again).count("[end of booking status]") == 1
    assert parse_event("gpt2", again) == expected


def test_what_is_written_below_the_block_is_the_persons_own() -> None:
    text = with_report("gpus: 1", SERVING) + "\nreplicas: 2"
    assert strip_block(text) == "gpus: 1\nreplicas: 2"
    assert with_report(text, SERVING) == with_report("gpus: 1\nreplicas: 2", SERVING)


def test_every_copy_of_a_block_goes() -> None:
    block = render_block(SERVING)
    assert strip_block(f"a\n\n{block}\n\n{block}\nb") == "a\nb"


@pytest.mark.parametrize(
    ("damaged", "left"),
    [
        (f"a\n\n{OPENING}\n| replicas: many\n| model: x y\nb", "a\nb"),
        (f"a\n\n{OPENING}<br>| replicas: many<br>b", "a<br>b"),
        (f"a\n| loading\n{CLOSING}\nb", "a\n| loading\nb"),
        (f"a\n\n{OPENING}\n| x\n{OPENING}\n| y\n{CLOSING}\nb", "a\nb"),
    ],
    ids=["no end", "no end, HTML", "no beginning", "twice begun"],
)
def test_a_damaged_block_takes_no_words_along(damaged: str, left: str) -> None:
    assert strip_block(damaged) == left


@given(st.lists(st.sampled_from(["gpus: many", "replicas = 99", "model: a b", "modle: x"]), min_size=1))
def test_no_line_of_a_block_is_a_setting_even_without_its_fences(lines: list[str]) -> None:
    inner = "\n".join(fenced(lines).splitlines()[1:-1])
    assert all(line.startswith(BAR) for line in inner.splitlines())
    assert parse_event("gpt2", inner) == parse_event("gpt2", "")


@given(LINES)
def test_no_line_can_forge_a_fence_or_a_tag(lines: list[str]) -> None:
    block = fenced([*lines, OPENING, CLOSING, "<br>"])
    assert block.count("[") == block.count("]") == 2
    assert "<" not in block


@pytest.mark.parametrize(
    "text",
    [
        "[booking " * 2_200,
        "[booking" + " " * 19_990,
        "[booking" + "&nbsp;" * 3_300,
        "[booking " + "<" * 19_990,
        OPENING * 440,
        (OPENING + "\n| x") * 400,
        CLOSING * 800,
        "[booking status, kept up to date by " * 200 + "ndif-ray]" * 200,
    ],
    ids=range(8),
)
def test_the_longest_description_is_stripped_at_once(text: str) -> None:
    begun = time.monotonic()
    strip_block(text)
    assert time.monotonic() - begun < 2


# --- digests, colours --------------------------------------------------------------------------------------


def test_a_digest_tells_state_lines_style_and_event() -> None:
    said = [
        (say("k", "serving"), "colour+text"),
        (say("k", "serving", "x"), "colour+text"),
        (say("k", "ended"), "colour+text"),
        (say("other", "serving"), "colour+text"),
        (say("k", "serving"), "colour"),
    ]
    assert len({digest(report, style) for report, style in said}) == len(said)  # type: ignore[arg-type]
    assert digest(say("k", "serving", "x"), "colour") == digest(say("k", "serving", "y"), "colour")


def test_an_aside_is_written_after_the_lines_and_is_no_reason_to_write() -> None:
    report = say("k", "serving", "x")
    aside = report.model_copy(update={"asides": ("took 42 s",)})
    assert render_block(aside).index("| x\n| took 42 s\n") > 0
    assert with_report("", aside) == render_block(aside)
    assert digest(aside, "colour+text") == digest(report, "colour+text")


@given(REPORTS)
def test_a_digest_fits_into_a_property(report: Report) -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", digest(report, "colour+text"))


def test_every_state_has_a_colour_and_an_urgency() -> None:
    assert set(COLOURS) == set(URGENCY)
    assert len(set(COLOURS.values())) == len(COLOURS)
