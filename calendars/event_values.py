"""What may stand behind each key of an event's text. Pure; `event_text` says where keys may stand."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from calendars.reservation import (
    ACCELERATOR,
    MAX_ACCELERATOR_CHARACTERS,
    MAX_GPUS,
    MAX_PRIORITY,
    MAX_REPLICAS,
    Dtype,
)

EXAMPLE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"

FIELDS = (
    "model",
    "revision",
    "task",
    "replicas",
    "dtype",
    "gpus",
    "accelerator",
    "priority",
    "trust_remote_code",
    "private",
)
"""Keys understood at the start of a description line, in the order they are rendered."""

_DTYPES: dict[str, Dtype] = {
    "float32": "float32",
    "fp32": "float32",
    "f32": "float32",
    "float": "float32",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "float16": "float16",
    "fp16": "float16",
    "f16": "float16",
    "half": "float16",
    "int8": "int8",
}

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}", re.ASCII)
_TASK = re.compile(r"[a-z][a-z0-9-]{0,63}", re.ASCII)
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,9}", re.ASCII)
_HUB = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/", re.IGNORECASE)
_ACCELERATOR = re.compile(ACCELERATOR, re.ASCII)
_COUNTED = re.compile(rf"([0-9]{{1,9}}) ?[x×*] ?({ACCELERATOR})", re.ASCII | re.IGNORECASE)
_KIND_OF_GPU = re.compile(
    r"(?:RTX |GTX |[A-Z]{1,12}-?)[0-9]{1,5}[A-Z0-9-]{0,20}(?: [0-9]{1,3} ?GB?)?", re.ASCII | re.IGNORECASE
)


class Field(NamedTuple):
    """One key: ``read`` gives its value, or None for what it must not be; the rest says what it must be."""

    read: Callable[[str], str | int | bool | None]
    must_be: str
    example: str


def read_model(value: str) -> str | None:
    """An alias, or a repo id by the Hub's rules: no path, no "..", no "--", names of 1 to 96 characters."""
    hub = _HUB.match(value)
    name = re.split(r"[?#]", value[hub.end() :], maxsplit=1)[0].rstrip("/") if hub else value
    parts = name.split("/")
    if len(parts) > 2 or ".." in name or "--" in name or name.endswith(".git"):
        return None
    if any(len(part) > 96 or not _NAME.fullmatch(part) for part in parts):
        return None
    return name


def counted_gpus(value: str) -> tuple[str, str] | None:
    """The number and the kind in ``8xH100`` or ``8 x H100``, each as written; None for anything else."""
    match = _COUNTED.fullmatch(" ".join(value[:100].split()))
    return (match[1], match[2]) if match and len(value) <= 100 else None


def is_kind_of_gpu(value: str) -> bool:
    """Whether it can hardly be anything but a GPU: ``H100``, ``RTX 4090``, ``A100 80GB``."""
    return bool(_KIND_OF_GPU.fullmatch(value))


def _revision(value: str) -> str | None:
    return value if _REVISION.fullmatch(value) and ".." not in value else None


def _task(value: str) -> str | None:
    return value.lower() if _TASK.fullmatch(value.lower()) else None


def _dtype(value: str) -> str | None:
    return _DTYPES.get(value.lower().removeprefix("torch."))


def _accelerator(value: str) -> str | None:
    if len(value) > MAX_ACCELERATOR_CHARACTERS or not _ACCELERATOR.fullmatch(value):
        return None
    return " ".join(value.split())


def _whole_number(lowest: int, highest: int) -> Callable[[str], int | None]:
    def read(value: str) -> int | None:
        if not _WHOLE_NUMBER.fullmatch(value):
            return None
        return int(value) if lowest <= int(value) <= highest else None

    return read


def _yes_or_no(value: str) -> bool | None:
    return {"true": True, "yes": True, "false": False, "no": False}.get(value.lower())


READERS = {
    "model": Field(read_model, f"an alias or a repo id such as {EXAMPLE_MODEL}", EXAMPLE_MODEL),
    "revision": Field(_revision, "a branch, tag or commit without spaces", "main"),
    "task": Field(_task, "a task of the Hub such as text-generation", "text-generation"),
    "replicas": Field(_whole_number(1, MAX_REPLICAS), f"a whole number from 1 to {MAX_REPLICAS}", "2"),
    "dtype": Field(_dtype, "one of float32, bfloat16, float16 and int8", "bfloat16"),
    "gpus": Field(_whole_number(1, MAX_GPUS), f"a whole number from 1 to {MAX_GPUS}, or such as 8xH100", "1"),
    "accelerator": Field(
        _accelerator,
        f"a kind of GPU such as H100: letters, digits, spaces and dashes, at most "
        f"{MAX_ACCELERATOR_CHARACTERS}",
        "H100",
    ),
    "priority": Field(
        _whole_number(-MAX_PRIORITY, MAX_PRIORITY),
        f"a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}",
        "10",
    ),
    "trust_remote_code": Field(_yes_or_no, "true or false", "true"),
    "private": Field(_yes_or_no, "yes or no", "yes"),
}
