"""The JSON schema of plans: what ``docs/plan.schema.json`` holds and ``ndif-ray plan --schema`` prints."""

from __future__ import annotations

import json
from typing import Any

from scheduler.types import PLAN_VERSION, Plan


def plan_schema() -> dict[str, Any]:
    """The schema of what ``plan --json`` and ``plan --out`` write, from the types themselves.

    It allows fields that it does not know: new ones come without a new version.
    """
    made: dict[str, Any] = _open(Plan.model_json_schema(mode="serialization"))
    made["properties"]["version"] |= {"const": PLAN_VERSION}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Plan", **made}


def _open(part: Any) -> Any:
    """The same without saying that there is nothing else."""
    if isinstance(part, dict):
        return {key: _open(value) for key, value in part.items() if key != "additionalProperties" or value}
    return [_open(value) for value in part] if isinstance(part, list) else part


def plan_schema_text() -> str:
    """The whole file."""
    return json.dumps(plan_schema(), indent=1, ensure_ascii=False) + "\n"
