"""Answers as JSON that fits the caller's schema."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from rlm_mcp.errors import InvalidInputError
from rlm_mcp.sandbox.types import Final

_FENCED = re.compile(r"\A\s*(?:```|~~~)\w*\n(.*)\n\s*(?:```|~~~)\s*\Z", re.DOTALL)


def check_schema(schema: Mapping[str, Any]) -> None:
    """Refuse what is no JSON Schema.

    Raises:
        InvalidInputError: it is none; the message is the validator's.
    """
    # Loaded where schemas are in use: most runs have none, and it slows every start.
    from jsonschema import Draft202012Validator  # noqa: PLC0415
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415

    try:
        Draft202012Validator.check_schema(schema)
        _problem(None, schema)
    except SchemaError as error:
        raise InvalidInputError(
            f"answer_schema is no JSON Schema: {error.message}",
            fix="Correct it, or ask without one.",
        ) from error


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
    from jsonschema import Draft202012Validator  # noqa: PLC0415  # as above
    from jsonschema.exceptions import best_match  # noqa: PLC0415  # pyright: ignore[reportUnknownVariableType]  # its own types are not known
    from referencing import Registry  # noqa: PLC0415
    from referencing.exceptions import Unresolvable  # noqa: PLC0415

    # An empty registry: a reference must not make this process fetch an address.
    validator = cast("Any", Draft202012Validator(schema, registry=Registry()))
    try:
        error = cast("Any", best_match)(validator.iter_errors(data))
    except Unresolvable as unresolved:
        raise InvalidInputError(
            f"answer_schema refers to {unresolved.ref!r}, which is not in it.",
            fix="Put all definitions under $defs.",
        ) from unresolved
    except RecursionError as endless:
        raise InvalidInputError(
            "answer_schema refers to itself without end.", fix="Let every $ref lead to a type."
        ) from endless
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
