"""Plans in files: written by ``plan --out``, read by ``apply FILE``."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from pydantic import ValidationError

from calendars.called import command
from scheduler.errors import OperatorError
from scheduler.render.secrets import plan_without_secrets
from scheduler.types import PLAN_VERSION, Plan

MAX_BYTES = 256 * 1024**2


def write_plan(plan: Plan, path: Path) -> None:
    """Write a plan without secrets, all of it or nothing.

    Raises:
        OperatorError: the file cannot be written.
    """
    content = plan_without_secrets(plan).model_dump_json(indent=1) + "\n"
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(content)
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OperatorError(
            f"The plan cannot be written to {path}: {error.strerror}.",
            "Name a file in a folder that takes it.",
        ) from error


def read_plan(path: Path) -> Plan:
    """Read a plan that was written before.

    Raises:
        OperatorError: the file cannot be read, is no plan, or is one of another version.
    """
    again = f"Make a new one with: {command('plan --out FILE')}"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise OperatorError(f"{path} is larger than any plan.", again)
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}.", again) from error
    except (ValueError, RecursionError) as error:
        raise OperatorError(f"{path} is no plan: it is not JSON.", again) from error
    version = content.get("version") if isinstance(content, dict) else None
    if version != PLAN_VERSION:
        said = f"has version {version!r}" if version is not None else "is no plan: it has no version"
        raise OperatorError(f"{path} {said}; plans of version {PLAN_VERSION} can be applied.", again)
    try:
        return Plan.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise OperatorError(f"{path} is no plan: {where} is {first['msg'].lower()}.", again) from error
