"""What a person may write into an event, and what it asks for.

Pure text in, a request or a problem out. Nothing here knows which models exist: an alias is
checked for its form only, the catalog says later whether there is such a model.

A model is named by, in this order:

1. a ``model: NAME`` line or a model key ``nnsight.…TransformersModel:{"repo_id": …}`` in the
   description; the title is then free,
2. the same in the title,
3. the title alone, where it is a single word that can be a name; GPUs may follow it, as in
   ``Llama-70B 8xH100``.

NAME is an alias of the catalog or a repo id of the Hugging Face Hub. Further ``key: value`` lines
(`FIELDS`) may stand anywhere in the description, and so may a line that is ``8xH100`` and nothing else,
short for ``gpus: 8`` and ``accelerator: H100``; every other line is free text.

Where free text ends: a line whose word before ``:`` or ``=`` *is* one of the keys is always meant
as a setting, and a bad value is a problem. A line whose word only *resembles* a key (``replica``,
``modle``) is taken for a misspelling when its value would be valid for the key it resembles, and for
free text otherwise: ``tasks: reading group at noon`` is a sentence, ``replica: 2`` is not.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from calendars.event_values import (
    EXAMPLE_MODEL,
    FIELDS,
    READERS,
    counted_gpus,
    is_kind_of_gpu,
    read_model,
)
from calendars.html_text import plain_text
from calendars.reservation import MODEL_CLASS, Frozen, ModelRequest
from calendars.status_block import strip_block

MAX_TITLE_CHARACTERS = 1_000
MAX_DESCRIPTION_CHARACTERS = 20_000
"""Longer texts are refused unread: cutting them could drop a setting without a word."""

_LANGUAGE_MODEL_CLASS = "nnsight.modeling.language.LanguageModel"
"""Mints the same keys as `MODEL_CLASS`, whose name nnsight then writes into them."""

_ALSO_WRITTEN = {
    "prio": ("priority",),
    "precision": ("dtype",),
    "repo": ("model",),
    "repo_id": ("model",),
    "branch": ("revision",),
    "gpu": ("gpus", "accelerator"),
    "gpu_type": ("accelerator",),
    "gpu_kind": ("accelerator",),
    "privacy": ("private",),
}
"""Words people use for a key that do not look like it; treated like misspellings of it."""

_RESEMBLANCE = 0.75
"""difflib ratio from which a word resembles a key: ``gpu``/``modle`` do, ``note``/``date`` do not."""


class Problem(Frozen):
    """Why a text could not be understood.

    ``reason`` is a sentence naming the field and the value; ``example`` is text for the event's
    description that would work.
    """

    reason: str
    example: str


class _NotUnderstood(Exception):
    """Carries a `Problem` from the place that finds it to `parse_event`."""

    def __init__(self, reason: str, example: str) -> None:
        super().__init__(reason)
        self.problem = Problem(reason=reason, example=example)


class _Setting(NamedTuple):
    field: str
    value: str | int | bool
    written: str


def parse_event(title: str, description: str) -> ModelRequest | Problem:
    """Understand an event's title and description; never raises for any two strings.

    The description may be plain text or the HTML that calendar applications export; the service's own
    block in it is not read. Where several things are wrong, the problem names the first.
    """
    try:
        return _parse(title, strip_block(description))
    except _NotUnderstood as caught:
        return caught.problem


def is_free_text(line: str) -> bool:
    """Whether a line of a description sets nothing, nor tries to."""
    try:
        return not _settings(plain_text(line))
    except _NotUnderstood:
        return False


def render_request(request: ModelRequest) -> str:
    """Description text that `parse_event` understands as exactly this request, under any title.

    Only what differs from the defaults is written, one ``key: value`` line each.

    Raises:
        ValueError: the model, revision or task is not one a person could write in an event.
    """
    defaults = ModelRequest(model=request.model)
    lines = []
    for field in FIELDS:
        value = getattr(request, field)
        if field == "model" or value != getattr(defaults, field):
            lines.append(f"{field}: {str(value).lower() if isinstance(value, bool) else value}")
    text = "\n".join(lines)
    if parse_event("", text) != request:
        raise ValueError(f"this request cannot be written in an event: {request!r}")
    return text


_STRAIGHT_QUOTES = str.maketrans("“”„‟«»″＂‘’‚‛‹›′＇", '"' * 8 + "'" * 8)

# --- reading -------------------------------------------------------------------------------------


def _parse(title: str, description: str) -> ModelRequest:
    for name, text, limit in (
        ("title", title, MAX_TITLE_CHARACTERS),
        ("description", description, MAX_DESCRIPTION_CHARACTERS),
    ):
        if len(text) > limit:
            raise _NotUnderstood(
                f"the {name} is {len(text)} characters long; at most {limit} are read.",
                f"model: {EXAMPLE_MODEL}",
            )
    settings = _agreed(_settings(plain_text(description)))
    if "model" not in settings:
        settings = _agreed([*_title_settings(title, description), *settings.values()])
    return ModelRequest.model_validate({field: setting.value for field, setting in settings.items()})


def _title_settings(title: str, description: str) -> list[_Setting]:
    """The settings a title makes, a model among them."""
    settings = _settings(title)
    if any(setting.field == "model" for setting in settings):
        return settings
    written = _unquoted(title.translate(_STRAIGHT_QUOTES))
    name, rest = [*written.split(None, 1), "", ""][:2]
    wanted = _counted(rest.strip("() "))
    model = read_model(name.rstrip(",;") if wanted else written)
    if model is not None and not _counted(written):
        return [_Setting("model", model, written), *wanted]
    words = f"{title}\n{plain_text(description)}".split()
    meant = next((word for word in words if "/" in word and read_model(word)), EXAMPLE_MODEL)
    if not title.strip():
        found = "the title is empty and the description has no `model:` line"
    elif len(title.split()) == 1:
        found = f"the title {_shown(title)} is no alias or repo id, and the description has no `model:` line"
    else:
        found = (
            f"the title {_shown(title)} is not the name of a model, and the description has no `model:` line"
        )
    raise _NotUnderstood(f"No model is named: {found}.", f"model: {meant}")


def _agreed(settings: list[_Setting]) -> dict[str, _Setting]:
    """The settings by field, refusing a field that is set to two different values."""
    by_field: dict[str, _Setting] = {}
    for setting in settings:
        first = by_field.setdefault(setting.field, setting)
        if first.value != setting.value:
            raise _NotUnderstood(
                f"{setting.field} is given twice, as {_shown(first.written)} and as "
                f"{_shown(setting.written)}; one event books one model.",
                f"{setting.field}: {_written(first.value)}",
            )
    return by_field


def _settings(text: str) -> list[_Setting]:
    """Every setting in a text, in the order written, model keys first."""
    text = text.translate(_STRAIGHT_QUOTES)
    settings: list[_Setting] = []
    rest: list[str] = []
    position = 0
    for start, end, key_settings in _model_keys(text):
        settings.extend(key_settings)
        rest.append(text[position:start])
        position = end
    rest.append(text[position:])
    # A space in the key's place keeps the words around it apart.
    for line in " ".join(rest).splitlines():
        settings.extend(_line_settings(line))
    return settings


_BULLET = re.compile(r"^[\s>*•·◦‣▪●○■□–—+-]+", re.ASCII)
_LINE = re.compile(r"[\s>*•·◦‣▪●○■□–—+-]*([A-Za-z][A-Za-z_-]{0,39})\s*[:=：](?!//)(.*)", re.ASCII)


def _line_settings(line: str) -> list[_Setting]:
    """The settings a line makes; none for free text (the module docstring draws the border)."""
    match = _LINE.fullmatch(line.strip())
    if match is None:
        return _counted(_BULLET.sub("", line).strip())
    word = match[1].lower().replace("-", "_")
    value = _unquoted(match[2])
    if word in FIELDS:
        if not value and word != "model":
            return []  # a line left blank in a form, or a heading
        return _meant(word, value)
    near = difflib.get_close_matches(word, FIELDS, n=1, cutoff=_RESEMBLANCE)
    for field in _ALSO_WRITTEN.get(word, near):
        if field == "accelerator" and not is_kind_of_gpu(value):
            continue  # any word could be one
        read = value if field == "gpus" and _counted(value) else READERS[field].read(value)
        if read is not None:
            raise _NotUnderstood(
                f"{_shown(match[1])} is not a setting; did you mean `{field}`?", f"{field}: {_written(read)}"
            )
    return []


def _counted(written: str) -> list[_Setting]:
    """The settings in ``8xH100``, where it can hardly be anything else."""
    counted = counted_gpus(written)
    return _meant("gpus", written) if counted and is_kind_of_gpu(counted[1]) else []


def _meant(field: str, written: str) -> list[_Setting]:
    """What a key was set to; GPUs may be counted and named at once."""
    counted = counted_gpus(written) if field in ("gpus", "accelerator") else None
    if counted is None:
        return [_setting(field, written)]
    return [
        _setting(name, value, written) for name, value in zip(("gpus", "accelerator"), counted, strict=True)
    ]


def _setting(field: str, value_written: str, written: str | None = None) -> _Setting:
    """``written`` is the whole of which the value is a part."""
    reader = READERS[field]
    value = reader.read(value_written)
    written = value_written if written is None else written
    if value is None:
        found = f"is {_shown(written)}" if written else "is empty"
        raise _NotUnderstood(f"{field} {found}, but must be {reader.must_be}.", f"{field}: {reader.example}")
    return _Setting(field, value, written)


# --- model keys ------------------------------------------------------------------------------------

# Possessive quantifiers: each character is looked at once, however the text was made.
_KEY_START = re.compile(
    r"(?<![\w.])(?:model\s*+[:=][ \t\"'`]*+)?(nnsight(?:\.\w++)++)\s*+:\s*+(?=\{)", re.IGNORECASE | re.ASCII
)
_KEY_EXAMPLE = f'{MODEL_CLASS}:{{"repo_id": "{EXAMPLE_MODEL}", "revision": null, "task": "text-generation"}}'


def _model_keys(text: str) -> Iterator[tuple[int, int, list[_Setting]]]:
    """(start, end, settings) of every model key in the text."""
    position = 0
    while match := _KEY_START.search(text, position):
        class_name = match[1]
        if class_name not in (MODEL_CLASS, _LANGUAGE_MODEL_CLASS):
            raise _NotUnderstood(
                f"the model key names the class {_shown(class_name)}, but models are served with "
                f"{MODEL_CLASS} only.",
                _KEY_EXAMPLE,
            )
        try:
            arguments, position = json.JSONDecoder().raw_decode(text, match.end())
        except (ValueError, RecursionError) as error:
            raise _NotUnderstood(
                f"what follows {class_name}: in the model key is not JSON ({_shown(str(error))}).",
                _KEY_EXAMPLE,
            ) from None
        yield match.start(), position, _key_settings(arguments)
        # The closing quote or backtick of a key that was written in quotes belongs to it.
        while position < len(text) and text[position] in "\"'`":
            position += 1


def _key_settings(arguments: dict[str, object]) -> list[_Setting]:
    """The settings in a model key's JSON object."""
    settings = []
    if "repo_id" not in arguments:
        raise _NotUnderstood('the model key has no "repo_id".', _KEY_EXAMPLE)
    fields = {
        "repo_id": "model",
        "revision": "revision",
        "task": "task",
        "trust_remote_code": "trust_remote_code",
    }
    for name, value in arguments.items():
        field = fields.get(name)
        if field is None:
            raise _NotUnderstood(
                f"the model key has {_shown(name)}, which is not one of {', '.join(fields)}.", _KEY_EXAMPLE
            )
        if value is None and name != "repo_id":
            continue
        if not isinstance(value, bool if name == "trust_remote_code" else str):
            raise _NotUnderstood(
                f"{name} in the model key is {_json_shown(value)}, but must be "
                f"{'true or false' if name == 'trust_remote_code' else 'a string'}.",
                _KEY_EXAMPLE,
            )
        settings.append(_setting(field, _written(value)))
    return settings


# --- words ------------------------------------------------------------------------------------------


def _unquoted(value: str) -> str:
    """The value without surrounding spaces and one pair of quotes or backticks."""
    value = value.strip()
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'`":
        value = value[1:-1].strip()
    return value


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _json_shown(value: object) -> str:
    """Nested values by their kind only: they may be nested too deeply to be written again."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return _shown(json.dumps(value))


def _shown(value: str) -> str:
    """The value in quotes, fit to be printed on one line: cut at 80 characters, unprintables as "?"."""
    words = " ".join(value[:400].split())
    cut = words if len(words) <= 80 else f"{words[:79]}…"
    return "'" + "".join(letter if letter.isprintable() else "?" for letter in cut) + "'"
