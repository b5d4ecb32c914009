"""Answers as JSON that fits the caller's schema."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match  # pyright: ignore[reportUnknownVariableType]  # likewise below

from rlm_mcp.errors import InvalidInputError
from rlm_mcp.sandbox.types import Final

_FENCED = re.compile(r"\A\s*(?:```|~~~)\w*\n(.*)\n\s*(?:```|~~~)\s*\Z", re.DOTALL)


def check_schema(schema: Mapping[str, Any]) -> None:
    """Refuse what is no JSON Schema.

    Raises:
        InvalidInputError: it is none; the message is the validator's.
    """
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise InvalidInputError(f"answer_schema is no JSON Schema: {error.message}") from error


def read_typed_answer(final: Final, schema: Mapping[str, Any]) -> Any:  # any JSON
    """Read an answer as JSON and check it.

    Raises:
        InvalidInputError: it is no JSON, or does not fit; the message is the validator's.
    """
    problems: list[str] = []
    for data in _readings(final):
        problem = _problem(data, schema)
        if problem is None:
            return data
        problems.append(problem)
    raise InvalidInputError(problems[0] if problems else "The answer is not JSON.")


def _problem(data: object, schema: Mapping[str, Any]) -> str | None:
    validator = cast("Any", Draft202012Validator(schema))  # its own types are not known
    error = cast("Any", best_match)(validator.iter_errors(data))
    if error is None:
        return None
    where = f" at {error.json_path}" if error.absolute_path else ""
    return f"{error.message}{where}"


def _readings(final: Final) -> list[Any]:
    """Give what the answer may mean: the JSON in its text, and its value as it is."""
    fenced = _FENCED.match(final.text)
    readings: list[Any] = []
    for text in (fenced.group(1) if fenced else final.text, final.json):
        try:
            readings += [] if text is None else [json.loads(text)]
        except ValueError:
            continue
    if final.type == "str" and not readings:
        readings.append(final.text)  # a schema may ask for a string
    return readings
