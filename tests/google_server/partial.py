"""Partial responses: the ``fields`` parameter (Google's guide "Performance tips").

``items(id,start/date),nextPageToken``: commas list fields, a slash goes one level down, brackets select below
a field, ``*`` is everything; arrays are looked through.
"""

from __future__ import annotations

from typing import Any

from tests.google_server.errors import bad_request

Selection = dict[str, "Selection"]


def partial(answer: Any, selector: str) -> Any:
    """The selected part of an answer; 400 when the selector is malformed."""
    selection, rest = _parse(selector)
    if rest:
        raise _invalid(selector)
    return _select(answer, selection)


def _invalid(selector: str) -> Exception:
    return bad_request(f"Invalid field selection {selector}", "fields", "invalidParameter")


def _parse(text: str) -> tuple[Selection, str]:
    """A comma-separated list up to the end or a closing bracket: (selection, what is left)."""
    selection: Selection = {}
    while True:
        end = min((at for at in map(text.find, ",/()") if at >= 0), default=len(text))
        name, text = text[:end].strip(), text[end:]
        if not name:
            raise _invalid(text)
        below = selection.setdefault(name, {})
        while text.startswith("/"):
            end = min((at for at in (text.find(mark, 1) for mark in ",/()") if at >= 0), default=len(text))
            below, text = below.setdefault(text[1:end], {}), text[end:]
        if text.startswith("("):
            inner, text = _parse(text[1:])
            if not text.startswith(")"):
                raise _invalid(text)
            below.update(inner)
            text = text[1:]
        if not text.startswith(","):
            return selection, text
        text = text[1:]


def _select(value: Any, selection: Selection) -> Any:
    if not selection:
        return value
    if isinstance(value, list):
        return [_select(item, selection) for item in value]
    if not isinstance(value, dict):
        return value
    wanted = dict.fromkeys(value, selection["*"]) if "*" in selection else selection
    return {key: _select(value[key], below) for key, below in wanted.items() if key in value}
