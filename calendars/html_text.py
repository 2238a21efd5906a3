"""The words in a description that may be HTML: calendar editors write it, and people paste it.

Pure text in, text out; linear in the length of the text, whatever it is made of.
"""

from __future__ import annotations

import html
import re
from urllib.parse import parse_qs, urlsplit

_BLOCK_NAMES = "br|p|div|li|ul|ol|dl|dt|dd|table|thead|tbody|tr|pre|blockquote|section|article|hr|h[1-6]"
_INLINE_NAMES = (
    "a|b|i|u|s|em|strong|span|font|code|kbd|samp|tt|small|big|sub|sup|mark|del|ins|strike|td|th|img|wbr"
    "|body|html|meta|link|html-blob|google-sheets-html-origin|o:p"
)
_ATTRIBUTES = r"""(?:\s++[\w:-]++\s*+=\s*+(?:"[^"<>]*+"|'[^'<>]*+'|[^\s"'<>=]++))*+\s*+/?"""
# A tag has a name known here and attributes with values: "<b@example.org>" is an address, and
# "if x <p and y> z" is a sentence.
_BLOCK_TAG = re.compile(rf"<(?:/(?:{_BLOCK_NAMES})\s*+|(?:{_BLOCK_NAMES}){_ATTRIBUTES})>", re.IGNORECASE)
_INLINE_TAG = re.compile(rf"<(?:/(?:{_INLINE_NAMES})\s*+|(?:{_INLINE_NAMES}){_ATTRIBUTES})>", re.IGNORECASE)
_LINK = re.compile(
    r"""<a(?=\s)[^<>]*?\shref\s*=\s*(?:"([^"<>]*)"|'([^'<>]*)')[^<>]*>((?:[^<]|<(?!/?a[\s>]))*+)</a\s*>""",
    re.IGNORECASE,
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,30});", re.IGNORECASE)
_SILENT = (
    (re.compile(r"<style(?:\s[^<>]*)?>", re.IGNORECASE), re.compile(r"</style\s*>", re.IGNORECASE)),
    (re.compile(r"<script(?:\s[^<>]*)?>", re.IGNORECASE), re.compile(r"</script\s*>", re.IGNORECASE)),
    (re.compile(r"<head>", re.IGNORECASE), re.compile(r"</head\s*>", re.IGNORECASE)),
    (re.compile(r"<!--"), re.compile(r"-->")),
)
"""What stands between these is never shown by a browser."""

_CHARACTERS: dict[int, str | None] = {
    **dict.fromkeys(map(ord, "\u00a0\u2007\u2009\u202f\u3000"), " "),
    **dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"), None),
}
"""Spaces that do not look like another kind of space, and characters that do not look like anything."""

_HUB = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/[^\s<>\"']+", re.IGNORECASE)
_NAME_IN_A_LINK = re.compile(r"\s*[\w.-]{1,96}(?:/[\w.-]{1,96})?\s*", re.ASCII)


def is_html(text: str) -> bool:
    """Whether a text holds markup, so that a browser would show it otherwise than it is written."""
    return any(pattern.search(text) for pattern in (_BLOCK_TAG, _INLINE_TAG, _ENTITY))


def plain_text(description: str) -> str:
    """The words of a description without the HTML of calendar editors and exports.

    Styles, scripts and comments disappear with what is in them. Tags that begin a line become line
    breaks, other known tags disappear, entities become what they stand for, no-break and other
    typographic spaces become spaces. A link is the words it shows; where those are no name but the
    link leads to the Hugging Face Hub ("SmolLM2 · Hugging Face", "org/very-long-na…"), it is its
    address. Everything else stays as it is, ``<user@host>`` and ``a < b`` included.
    """
    text = description
    if "<" in text:
        for opening, closing in _SILENT:
            text = _without(text, opening, closing)
        if "</a" in text.lower():
            text = _LINK.sub(_link_words, text)
        text = _BLOCK_TAG.sub("\n", text)
        text = _INLINE_TAG.sub("", text)
    # After the tags: "&lt;br&gt;" was written to be read, not to break a line.
    text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    return text.translate(_CHARACTERS)


def _without(text: str, opening: re.Pattern[str], closing: re.Pattern[str]) -> str:
    """The text without what stands between the two; an opening that is never closed stays."""
    kept = []
    position = 0
    while begin := opening.search(text, position):
        end = closing.search(text, begin.end())
        if end is None:
            break
        kept.append(text[position : begin.start()])
        position = end.end()
    return "".join([*kept, text[position:]])


def _link_words(link: re.Match[str]) -> str:
    words: str = link[3]
    shown = html.unescape(_INLINE_TAG.sub("", words)).translate(_CHARACTERS)
    if _NAME_IN_A_LINK.fullmatch(shown) or _HUB.fullmatch(shown.strip()):
        return words
    return _hub_address(html.unescape(link[1] or link[2] or "")) or words


def _hub_address(address: str) -> str | None:
    """The Hub's address in a link, or behind the redirection that Google puts before links."""
    if _HUB.fullmatch(address):
        return address
    try:
        url = urlsplit(address)
        if url.hostname is None or not re.fullmatch(r"(?:www\.)?google\.[a-z.]{2,6}", url.hostname):
            return None
        query = parse_qs(url.query, max_num_fields=20)
    except ValueError:
        return None
    return next((target for target in query.get("q", []) if _HUB.fullmatch(target)), None)
