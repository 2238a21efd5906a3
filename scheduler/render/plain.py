"""Words of others, fit to be printed: they move no cursor, change no colour and turn no direction around."""

from __future__ import annotations

import unicodedata

from rich import markup

JOINERS = "\u200c\u200d"
"""They join letters and pictures, and are left."""
INSTEAD = {"Cc": "?", "Cs": "?", "Cf": "", "Zl": " ", "Zp": " "}
"""What stands for a letter of a kind that is not seen but does something."""


def visible(text: str) -> str:
    """The same text on one line, without what is not seen but does something."""
    return text if text.isprintable() else "".join(map(_shown, text))


def escape(text: str) -> str:
    """The same, and so that nothing in it is markup."""
    return markup.escape(visible(text))


def escape_lines(text: str) -> str:
    """The same for each of several lines."""
    return "\n".join(map(escape, text.split("\n")))


def _shown(letter: str) -> str:
    if letter in "\n\t":
        return " "
    return letter if letter in JOINERS else INSTEAD.get(unicodedata.category(letter), letter)
