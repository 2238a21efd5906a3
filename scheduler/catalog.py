"""Reads the operator's catalog of models."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from scheduler.errors import OperatorError
from scheduler.types import Catalog, CatalogEntry

EXAMPLE = "models:\n  - alias: my-model\n    repo_id: organisation/my-model"


def _one_or_many(entry: Any) -> Any:
    """``alias: a`` is short for ``aliases: [a]``."""
    if isinstance(entry, dict) and "alias" in entry:
        rest = {key: value for key, value in entry.items() if key != "alias"}
        return rest | {"aliases": [entry["alias"], *rest.get("aliases", ())]}
    return entry


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    models: tuple[Annotated[CatalogEntry, BeforeValidator(_one_or_many)], ...] = ()


def load_catalog(path: Path) -> Catalog:
    """Read ``models.yml``; a missing file is an empty catalog.

    Raises:
        OperatorError: the file cannot be read, an entry is not acceptable, or two entries share a
            name; names the entry, the field and the value.
    """
    if not path.exists():
        return Catalog()
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    return _understood(text, path)


def _unreadable(path: Path, error: Exception) -> OperatorError:
    return OperatorError(f"The catalog {path} cannot be read: {error}.", f"Write it as:\n{EXAMPLE}")


@lru_cache(maxsize=8)  # every pass of the loop asks, and the file seldom changes
def _understood(text: str, path: Path) -> Catalog:
    try:
        entries = _File.model_validate(yaml.safe_load(text) or {}).models
    except yaml.YAMLError as error:
        raise _unreadable(path, error) from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']} (it is {one['input']!r})"
            for one in error.errors()
        )
        raise OperatorError(
            f"The catalog {path} cannot be used: {problems}.", f"Write it as:\n{EXAMPLE}"
        ) from error
    seen: dict[str, str] = {}
    for entry in entries:
        for name in {entry.repo_id.lower(), *(alias.lower() for alias in entry.aliases)}:
            if name in seen:
                raise OperatorError(
                    f"The catalog {path} uses the name {name} twice, for {seen[name]} and {entry.repo_id}.",
                    "Give one of them another alias.",
                )
            seen[name] = entry.repo_id
    return Catalog(entries=entries)
