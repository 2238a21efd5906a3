"""The fenced lines that the service appends to a description, and taking them out again.

The fence is made of words and square brackets only, because those come back unchanged from a calendar's
HTML editor, which writes ``<br>`` for line breaks, ``&nbsp;`` for spaces and ``<span>`` anywhere. What
a person wrote around the block is never changed: `strip_block` undoes `with_block` byte for byte.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from calendars.html_text import is_html

OPENING = "[booking status, kept up to date by ndif-ray]"
CLOSING = "[end of booking status]"

BAR = "| "
"""Begins each line inside: should a fence be damaged by hand, no such line can be taken for a setting."""

_TAGS = r"(?:<[^<>]*+>)*+"
_GAP = r"(?:\s|\u00a0|&nbsp;|&#160;|&#xa0;|<[^<>]*+>)++"


def _fence(words: str) -> str:
    """Matches the words with tags anywhere but inside of a word."""
    return _GAP.join(
        _TAGS.join(re.escape(part) for part in re.findall(r"[\w-]+|[^\w-]", word)) for word in words.split()
    )


_FENCE = re.compile(f"(?P<opening>{_fence(OPENING)})|(?P<closing>{_fence(CLOSING)})")
_BREAK = r"(?:\r\n|\n|\r|<br\s*/?>)"
_BARRED_LINES = re.compile(rf"(?:{_BREAK}\|[^\r\n<]*+)*+")
_SEPARATORS = ("\n\n", "<br><br>")
_EDITED_SEPARATOR = re.compile(rf"{_BREAK}{{1,2}}\Z")

# "<" and ">" would be taken for tags, "[" and "]" could forge a fence.
_HARMLESS = str.maketrans("<>[]", "‹›()")


def fenced(lines: Iterable[str], *, as_html: bool = False) -> str:
    """The block itself: the lines between fences, each behind a bar and without what could be markup."""
    inner = [BAR + " ".join(line.translate(_HARMLESS).split()) for line in lines]
    if as_html:
        return "<br>".join([OPENING, *(html.escape(line, quote=False) for line in inner), CLOSING])
    return "\n".join([OPENING, *inner, CLOSING])


def with_block(description: str, lines: Iterable[str]) -> str:
    """The description with this block at its end, in place of any that is in it.

    HTML is continued as HTML, plain text as plain text.
    """
    words = strip_block(description)
    as_html = is_html(words)
    block = fenced(lines, as_html=as_html)
    if not words:
        return block
    return words + _SEPARATORS[as_html] + block


def strip_block(description: str) -> str:
    """The person's own words: the description without any block, whole or damaged.

    With each block go the up to two line breaks before it, which `with_block` put there. Of a block that
    has lost its closing line, the opening line and the barred lines after it are taken out; of one that has
    lost its opening line, the closing line is.
    """
    while True:
        stripped = _strip_once(description)
        if stripped == description:
            return description
        # Taking a block out can bring the halves of another fence together.
        description = stripped


def _strip_once(text: str) -> str:
    spans: list[tuple[int, int]] = []
    opening: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if fence["opening"] is not None:
            if opening is not None:
                spans.append((opening.start(), _damaged_end(text, opening)))
            opening = fence
        else:
            spans.append((fence.start() if opening is None else opening.start(), fence.end()))
            opening = None
    if opening is not None:
        spans.append((opening.start(), _damaged_end(text, opening)))
    kept = []
    position = 0
    for start, end in spans:
        before = text[position:start]
        kept.append(_without_separator(before))
        position = end
    return "".join([*kept, text[position:]])


def _without_separator(before: str) -> str:
    # Exactly what `with_block` wrote comes first: a break before it is the person's own.
    for written in _SEPARATORS:
        if before.endswith(written):
            return before.removesuffix(written)
    separator = _EDITED_SEPARATOR.search(before[-32:])
    return before[: len(before) - len(separator[0])] if separator else before


def _damaged_end(text: str, opening: re.Match[str]) -> int:
    barred = _BARRED_LINES.match(text, opening.end())
    return barred.end() if barred else opening.end()
