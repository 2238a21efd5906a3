"""The schemas of the discovery document that google-api-python-client ships, as JSON Schema.

The discovery format (https://developers.google.com/discovery/v1/type-format) is JSON Schema draft 3 with
``$ref`` by name. Answers may hold no field the document does not know; requests may, and may hold ``null``
anywhere, which is how PATCH deletes.
"""

from __future__ import annotations

import json
from datetime import date, datetime
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import best_match

Json = dict[str, Any]
FORMATS = FormatChecker(formats=())


@FORMATS.checks("date-time", raises=ValueError)
def _is_timestamp(value: object) -> bool:
    return not isinstance(value, str) or ("T" in value and datetime.fromisoformat(value).tzinfo is not None)


@FORMATS.checks("date", raises=ValueError)
def _is_date(value: object) -> bool:
    return not isinstance(value, str) or bool(date.fromisoformat(value))


@cache
def discovery() -> Json:
    """The discovery document itself."""
    place = files("googleapiclient") / "discovery_cache" / "documents" / "calendar.v3.json"
    return dict(json.loads(place.read_text(encoding="utf-8")))


def converted(schema: Json, *, request: bool) -> Json:
    """One discovery schema as JSON Schema 2020-12, references kept as ``#/$defs/NAME``."""
    if "$ref" in schema:
        target: Json = {"$ref": f"#/$defs/{schema['$ref']}"}
        return {"anyOf": [target, {"type": "null"}]} if request else target
    kind = schema.get("type", "any")
    result: Json = {} if kind == "any" else {"type": [kind, "null"] if request else kind}
    if "enum" in schema:
        result["enum"] = [*schema["enum"], *([None] if request else [])]
    # a request may name its zone beside a time without offset (EventDateTime.dateTime)
    if schema.get("format") in ("date", "date-time") and not request:
        result["format"] = schema["format"]
    if kind == "array":
        result["items"] = converted(schema["items"], request=request)
    if "properties" in schema:
        result["properties"] = {
            name: converted(value, request=request) for name, value in schema["properties"].items()
        }
    if kind == "object":
        extra = schema.get("additionalProperties")
        result["additionalProperties"] = converted(extra, request=request) if extra else request
    return result


@cache
def definitions(*, request: bool) -> Json:
    """All schemas of the document, by name."""
    return {name: converted(value, request=request) for name, value in discovery()["schemas"].items()}


@cache
def validator(name: str, *, request: bool = False) -> Draft202012Validator:
    """A validator for the schema of that name (``Event``, ``Events``, ``Calendar``, …)."""
    schema = {"$ref": f"#/$defs/{name}", "$defs": definitions(request=request)}
    return Draft202012Validator(schema, format_checker=FORMATS)


@cache
def fields(name: str) -> frozenset[str]:
    """The fields a resource has."""
    return frozenset(discovery()["schemas"][name]["properties"])


@cache
def method(resource: str, name: str) -> Json:
    """A method's description: path, parameters, scopes."""
    return dict(discovery()["resources"][resource]["methods"][name])


def request_problem(name: str, body: Json) -> str | None:
    """What is wrong with a request body, or None."""
    error = best_match(validator(name, request=True).iter_errors(body))
    return f"Invalid value for: {'.'.join(map(str, error.absolute_path))}" if error else None


def answer_problems(name: str, body: Json) -> list[str]:
    """Everything in an answer that the discovery document does not allow."""
    return [f"{error.json_path}: {error.message}" for error in validator(name).iter_errors(body)]
