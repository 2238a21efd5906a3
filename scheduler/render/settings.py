"""The table of settings: what ``docs/settings.md`` holds and ``ndif-ray settings`` prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from scheduler.settings import ENVIRONMENT_NAMES, Settings

INTRODUCTION = """\
# Settings

Every setting, as `ndif-ray settings --markdown` writes it. Precedence: command line, environment,
what a running `./start.sh` wrote into its state directory, `config/ray_config.yml` (another file
with `NDIF_CONFIG`), default. Relative paths are relative to the project's folder. `HF_HOME`, if
set, is where models are kept, whatever `models.huggingface_home` says.

| setting | environment | default | meaning |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """One setting: its path in the tree, its names in the environment, its default and meaning."""

    path: str
    environment: tuple[str, ...]
    default: str
    meaning: str


def rows() -> Iterator[Row]:
    """Every setting, in the order of the tree."""
    for name, field in Settings.model_fields.items():
        group = field.annotation
        if isinstance(group, type) and issubclass(group, BaseModel):
            for inner, inner_field in group.model_fields.items():
                yield _row((name, inner), inner_field.default_factory and {}, inner_field)
        else:
            yield _row((name,), None, field)


def _row(path: tuple[str, ...], made: object, field: object) -> Row:
    default = made if made is not None else getattr(field, "default", None)
    old = [name for name, target in ENVIRONMENT_NAMES.items() if target == path]
    names = ("NDIF_" + "__".join(path).upper(), *old)
    shown = "" if default is None else f"`{default}`"
    return Row(".".join(path), names, shown, str(getattr(field, "description", "") or ""))


def settings_markdown() -> str:
    """The whole page."""
    lines = []
    for row in rows():
        names = ", ".join(f"`{name}`" for name in row.environment)
        lines.append(f"| `{row.path}` | {names} | {row.default} | {row.meaning} |")
    return INTRODUCTION + "\n".join(lines) + "\n"
