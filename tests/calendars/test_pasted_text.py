"""What people really paste: the HTML of calendar editors, web pages and documents, read as it was meant."""

from __future__ import annotations

import html
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calendars.event_text import MAX_DESCRIPTION_CHARACTERS, Problem, parse_event, render_request
from calendars.html_text import is_html, plain_text
from calendars.reservation import MODEL_CLASS, ModelRequest
from calendars.status_block import with_block
from tests.calendars.test_event_text import KEY, REPO, REQUESTS, TEXTS, asks

HUB = "https://huggingface.co"
STYLE = "<style type='text/css'>p { margin: 0 } model: wrong/one; gpus: 9; a > b {color:red}</style>"

MEANT = {
    "Google's editor": (
        f"<span>model: {REPO}</span><br><span>replicas:&nbsp;2</span>",
        asks(replicas=2),
    ),
    "paragraphs, with attributes": (
        f'<p class="MsoNormal" style="margin:0cm"><b>model:</b> {REPO}</p>\n<p>gpus: 1</p>',
        asks(gpus=1),
    ),
    "each word in a span of its own": (
        f"<span style='color:rgb(1, 2, 3)'>model</span><span>:</span> <span>{REPO}</span>",
        asks(),
    ),
    "a numbered list": ("<ol><li>model: a/b</li><li>gpus: 1</li></ol>", asks("a/b", gpus=1)),
    "bullets of a document": ("● model: a/b\n○ gpus: 1\n▪ replicas: 2", asks("a/b", gpus=1, replicas=2)),
    "a table": (
        "<table><tbody><tr><td>model: a/b</td></tr><tr><td>gpus: 1</td></tr></tbody></table>",
        asks("a/b", gpus=1),
    ),
    "html-blob": ("<html-blob><u></u>model: a/b<br>gpus: 1<u></u></html-blob>", asks("a/b", gpus=1)),
    "a pasted style": (f"{STYLE}<p>model: a/b</p>", asks("a/b")),
    "a pasted page": (
        f"<html><head><title>gpus: 7</title>{STYLE}</head><body><!-- gpus: 8 -->model: a/b</body></html>",
        asks("a/b"),
    ),
    "a comment of Word": ("<!--[if gte mso 9]><xml>gpus: 9</xml><![endif]-->model: a/b", asks("a/b")),
    "spaces of every kind": ("model:\u00a0a/b\u202f\n\u2009gpus:\u30001", asks("a/b", gpus=1)),
    "nothing visible in between": ("mo\u00addel:\u200b a/b\ufeff\ngp\u2060us: 1", asks("a/b", gpus=1)),
    "smart quotes": ("model: “a/b”\ndtype: ‘bf16’", asks("a/b", dtype="bfloat16")),
    "quotes of other languages": ("model: «a/b»\ndtype: „bf16“", asks("a/b", dtype="bfloat16")),
    "a colon as wide as a letter": ("model：a/b\ngpus： 1", asks("a/b", gpus=1)),
    "a key with &quot;": (
        KEY.replace('"', "&quot;"),
        asks("a/b", task="text-generation"),
    ),
    "a key with &#34; over lines": (
        "<div>" + KEY.replace('"', "&#34;").replace(", ", ",</div><div>&nbsp; ") + "</div>",
        asks("a/b", task="text-generation"),
    ),
    "a key in smart quotes and tags": (
        "<p><code>nnsight.modeling.transformers.TransformersModel:{“repo_id”:&nbsp;“a/b”}</code></p>",
        asks("a/b"),
    ),
    "a key whose class became a link": (
        f'<a href="http://{MODEL_CLASS}">{MODEL_CLASS}</a>:{{"repo_id": "a/b"}}',
        asks("a/b"),
    ),
    "a key whose repo id became a link": (
        f'{MODEL_CLASS}:{{"repo_id": "<a href="http://a.ai/b">a.ai/b</a>"}}',
        asks("a.ai/b"),
    ),
    "a repo id that became a link": (
        'model: <a href="http://org.ai/model-v1.5" target="_blank">org.ai/model-v1.5</a>',
        asks("org.ai/model-v1.5"),
    ),
    "half a repo id that became a link": (
        'model: <a href="http://meta.ai/Llama-3">meta.ai/Llama-3</a>.1-8B',
        asks("meta.ai/Llama-3.1-8B"),
    ),
    "a link that is named otherwise shows its name": (
        f'model: <a href="{HUB}/other/model">a/b</a>',
        asks("a/b"),
    ),
    "a link to the Hub under its title": (
        f'model: <a href="{HUB}/{REPO}">HuggingFaceTB/SmolLM2 · Hugging Face</a>',
        asks(),
    ),
    "a link to the Hub, shown cut": (f'model: <a href="{HUB}/{REPO}">huggingface.co/Hugging…</a>', asks()),
    "a link to the Hub behind Google's redirection": (
        f'model: <a href="https://www.google.com/url?q={HUB}/{REPO}&amp;sa=D&amp;ust=1">the model</a>',
        asks(),
    ),
    "a link to the Hub, shown whole": (f'model: <a href="{HUB}/{REPO}">{HUB}/{REPO}</a>', asks()),
    "a Hub address with a question mark": (f"model: {HUB}/{REPO}?library=transformers", asks()),
    "a Hub address with a fragment": (f"model: {HUB}/{REPO}#how-to-use", asks()),
}


@pytest.mark.parametrize(("description", "request_"), MEANT.values(), ids=MEANT)
def test_read_as_meant(description: str, request_: ModelRequest) -> None:
    assert parse_event("a title in words", description) == request_


PLAIN = [
    "write to <bob@example.org>",
    "if a <b and c> d",
    "x <p and y> z",
    "a < b > c & d",
    "<model>",
    "<a@b.org>, <p@q.org>",
    "<3 you",
    "1 <2> 3",
    "R&D; Q&A",
    "https://x.org/?a=1&copy=2",
    "<!-- never closed",
    "an <unknown attribute='x'> tag",
]


@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_with_angle_brackets_stays_what_it_is(text: str) -> None:
    assert plain_text(text) == text
    assert not is_html(text)
    assert parse_event("gpt2", f"{text}\ngpus: 1") == asks("gpt2", gpus=1)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("<style>x</style>a<style>y</style>b", "ab"),
        ("<style>never closed", "<style>never closed"),
        ("<STYLE media='x'>y</STYLE >a", "a"),
        ("<scripted>a", "<scripted>a"),
        ("a<!-- b -->c<!-- d", "ac<!-- d"),
        ("<a>no href</a>", "no href"),
        ("<a href='x'><b>bold</b></a>", "bold"),
        ('<a class="c" href="https://x.org">words</a>', "words"),
        ('<a href="https://huggingface.co/a/b"></a>', "https://huggingface.co/a/b"),
        ('<a href="https://[x">words</a>', "words"),
        ('<a href="https://www.google.com/url?q=https://evil.org">words</a>', "words"),
    ],
)
def test_plain_text(written: str, words: str) -> None:
    assert plain_text(written) == words


# --- any text, any request, any editor ----------------------------------------------------------------


def editors(text: str) -> list[str]:
    """A description as editors hand it on."""
    lines = html.escape(text, quote=True).split("\n")
    bare = text.split("\n")
    linked = [re.sub(r"^(model: )(\S+)$", r'\1<a href="http://\2">\2</a>', line) for line in lines]
    return [
        "<br>".join(lines),
        "<br/>\n".join(bare),
        "<html-blob>" + "<br>".join(lines) + "</html-blob>",
        "".join(f"<p>{line}</p>" for line in lines),
        "".join(f'<div dir="ltr"><span style="font-size: 9pt">{line}</span></div>' for line in lines),
        "<ul>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>",
        "<ol>\n" + "\n".join(f"<li><b>{line}</b></li>" for line in lines) + "\n</ol>",
        "<br>".join(line.replace(" ", "&nbsp;") for line in lines),
        "\r\n".join(line.replace(" ", "\u00a0") for line in bare),
        "\n".join(f"• {line}" for line in bare),
        STYLE + "<br>".join(f"<span>{line}</span>" for line in lines),
        "<br>".join(linked),
        with_block("<br>".join(lines), ["refused", "gpus: too many", "model: x y z"]),
        with_block(text, ["serving", "replicas: 99"]),
        "<br>".join(with_block(text, ["loading", "gpus = none"]).split("\n")),
    ]


@given(REQUESTS, st.integers(0, len(editors("")) - 1))
def test_what_is_rendered_is_understood_behind_any_editor(request_: ModelRequest, editor: int) -> None:
    written = editors(render_request(request_))[editor]
    assert parse_event("a title in words", written) == request_


TAGS = st.sampled_from(
    [
        *("<br>", "<p>", "</p>", "<span style='x'>", "</span>", "<style>", "</style>", "<!--", "-->", "<a "),
        *('href="https://huggingface.co/a/b">', "</a>", "<li>", "<html-blob>", "&quot;", "&#0;", "&#xd800;"),
        *("[booking status, kept up to date by ndif-ray]", "[end of booking status]", "| ", "model: a/b"),
    ]
)


@given(TEXTS, st.lists(TAGS | TEXTS, max_size=20).map("".join))
def test_any_text_with_any_tags_gives_a_request_or_a_problem_that_helps(title: str, description: str) -> None:
    outcome = parse_event(title, description)
    if isinstance(outcome, Problem):
        assert isinstance(parse_event("gpt2", outcome.example), ModelRequest)
        assert outcome.reason.isprintable()
    else:
        assert parse_event(title, render_request(outcome)) == outcome


SLOW_FOR_CARELESS_PATTERNS = {
    "styles": "<style>" * 3_000,
    "styles with spaces": "<style " * 3_000,
    "comments": "<!--" * 5_000,
    "comments, closed once": "-->" + "<!--" * 5_000,
    "links": '<a href="x">' * 1_700,
    "links, closed once": "</a>" + '<a href="x">' * 1_700,
    "a link of spaces": "</a><a" + " " * 19_990,
    "hrefs": "</a><a " + 'href="x" ' * 2_200,
    "attributes": "<p " + "a=b " * 5_000,
    "attributes without values": "<p " + "a " * 10_000,
    "quotes": "<p a='" * 3_300,
    "equals": "<p " + "=" * 19_990,
    "a long word": "<p " + "a" * 19_990,
    "less-thans": "<" * 20_000,
    "Hub addresses": "https://hf.co/a " * 1_250,
}


@pytest.mark.parametrize("description", SLOW_FOR_CARELESS_PATTERNS.values(), ids=SLOW_FOR_CARELESS_PATTERNS)
def test_the_longest_description_is_read_at_once(description: str) -> None:
    begun = time.monotonic()
    parse_event("gpt2", description[:MAX_DESCRIPTION_CHARACTERS])
    assert time.monotonic() - begun < 2
