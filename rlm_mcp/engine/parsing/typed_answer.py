"""Answers as JSON that fits the caller's schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import Any, cast

from rlm_mcp.engine.parsing.finals import BESIDE
from rlm_mcp.engine.parsing.fitting import fitted
from rlm_mcp.engine.parsing.literals import find_pieces, read_lines, read_values
from rlm_mcp.errors import InvalidInputError
from rlm_mcp.sandbox.types import Final

_WRAPPERS = frozenset({"answer", "final_answer", "final", "result", "output", "response", "value"})
_MAX_PROBLEMS = 3
_MOST_AROUND = 2
_FENCED = re.compile(r"\A\s*(?:```|~~~)\w*[ \t]*\r?\n(.*)\n\s*(?:```|~~~)\s*\Z", re.DOTALL)


def check_schema(schema: Mapping[str, Any]) -> None:
    """Refuse what is not a JSON Schema.

    Raises:
        InvalidInputError: it is not one; the message is the validator's.
    """
    # Loaded at first use: most runs have no schema, and loading it slows every start.
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415

    try:
        _validator_for(schema).check_schema(schema)
        _problem(None, schema)
    except SchemaError as error:
        raise InvalidInputError(
            f"answer_schema is not a JSON Schema: {error.message}",
            fix='Correct it, or ask without one. An older draft is to be named in "$schema".',
        ) from error
    except (OverflowError, RecursionError) as error:
        raise InvalidInputError(
            f"answer_schema is nested too deeply, or a pattern in it cannot be compiled: {error}.",
            fix="Make it simpler, or ask without one.",
        ) from error


def read_typed_answer(final: Final, schema: Mapping[str, Any]) -> Any:  # any JSON
    """Read an answer as JSON and check it.

    Raises:
        InvalidInputError: it is not JSON, or does not fit; the message has the first three of
            the validator's, with their paths.
    """
    problems: list[str] = []
    read: list[Any] = []
    for data in _readings(final):
        problem = _problem(data, schema)
        if problem is None:
            return data
        problems.append(problem)
        read.append(data)
    inner = list(chain.from_iterable(map(_inner_values, read)))
    for data in (*inner, *(fitted(data, schema) for data in (*read, *inner))):
        if _problem(data, schema) is None:
            return data
    said = problems[0] if problems else "The answer is not JSON."
    if len(read) == 1 and read[0] == final.text and final.text.lstrip()[:1] in {"{", "["}:
        said = f"The answer is not JSON that can be read: {_why_unreadable(final.text)}"
    raise InvalidInputError(said)


def _problem(data: object, schema: Mapping[str, Any]) -> str | None:
    from jsonschema.exceptions import best_match  # noqa: PLC0415  # pyright: ignore[reportUnknownVariableType]  # its own types are not known
    from referencing import Registry  # noqa: PLC0415  # jsonschema brings it
    from referencing.exceptions import Unresolvable  # noqa: PLC0415  # likewise

    # An empty registry: a reference must not make this process fetch an address.
    validator = _validator_for(schema)(schema, registry=cast("Any", Registry)())
    try:
        found = list[Any](islice(validator.iter_errors(data), _MAX_PROBLEMS))
        errors = [cast("Any", best_match)([error]) for error in found]
    except Unresolvable as unresolved:
        raise InvalidInputError(
            f"answer_schema refers to {unresolved.ref!r}, which is not in it.",
            fix="Put all definitions under $defs.",
        ) from unresolved
    except RecursionError as endless:
        raise InvalidInputError(
            "answer_schema refers to itself without end.", fix="Let every $ref lead to a type."
        ) from endless
    except OverflowError as error:  # such as 10**400 where `multipleOf` is a fraction
        raise InvalidInputError(f"A number is too large: {error}.") from error
    return "; ".join(map(_in_words, errors)) or _endless(data)


def _why_unreadable(text: str) -> str:
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        return str(error)
    return "it is too deep"


def _validator_for(schema: Mapping[str, Any]) -> Any:
    """Return the validator of the draft that a schema names; the newest where it names none."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415  # as above
    from jsonschema.validators import (  # noqa: PLC0415  # as above
        validator_for,  # pyright: ignore[reportUnknownVariableType]  # its own types are not known
    )

    return cast("Any", validator_for)(schema, default=Draft202012Validator)


def _endless(data: object) -> str | None:
    """Say that a number is none that JSON has."""
    try:
        json.dumps(data, allow_nan=False)
    except ValueError:
        return "JSON has no NaN and no infinite number: use null, or a number"
    return None


def _in_words(error: Any) -> str:
    where = f" at {error.json_path}" if error.absolute_path else ""
    return f"{error.message}{where}"


def _readings(final: Final) -> Iterator[Any]:
    """Yield what the answer may mean, the likeliest first."""
    if final.json is not None and final.type != "str":
        yield json.loads(final.json)
    fenced = _FENCED.match(final.text)
    text = (fenced.group(1) if fenced else final.text).strip().lstrip("\ufeff")
    yield from read_values(text)
    for piece in find_pieces(text):
        yield from read_values(piece)
    lines = read_lines(text)
    if lines is not None:
        yield lines
    if final.type == "str":
        yield final.text  # a schema may ask for a string


def _inner_values(value: Any, depth: int = 1) -> Iterator[Any]:
    """Yield what is alone in an object or a list, which models put around their answer."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        inner = [key for key in fields if not BESIDE.fullmatch(key)] or list(fields)
        found = fields[inner[0]] if len(inner) == 1 else None
        if len(inner) == 1 and (isinstance(found, dict | list) or inner[0].lower() in _WRAPPERS):
            yield found
            if depth < _MOST_AROUND:
                yield from _inner_values(found, depth + 1)
    elif isinstance(value, list) and len(cast("list[Any]", value)) == 1:
        inner = cast("list[Any]", value)[0]
        if isinstance(inner, dict):
            yield inner
