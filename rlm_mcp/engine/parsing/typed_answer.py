"""Answers as JSON that fits the caller's schema."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, cast

from rlm_mcp.errors import InvalidInputError
from rlm_mcp.sandbox.types import Final

_BLOCK = re.compile(r"```\w*\n(.*?)\n\s*```", re.DOTALL)
_EXTRA_COMMA = re.compile(r",(?=\s*[}\]])")
_MAX_LITERAL_CHARS = 1_000_000
_MAX_PROBLEMS = 3
_FENCED = re.compile(r"\A\s*(?:```|~~~)\w*\n(.*)\n\s*(?:```|~~~)\s*\Z", re.DOTALL)


def check_schema(schema: Mapping[str, Any]) -> None:
    """Refuse what is not a JSON Schema.

    Raises:
        InvalidInputError: it is not one; the message is the validator's.
    """
    # Loaded at first use: most runs have no schema, and loading it slows every start.
    from jsonschema import Draft202012Validator  # noqa: PLC0415
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415

    try:
        Draft202012Validator.check_schema(schema)
        _problem(None, schema)
    except SchemaError as error:
        raise InvalidInputError(
            f"answer_schema is not a JSON Schema: {error.message}",
            fix="Correct it, or ask without one.",
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
    return "; ".join(map(_in_words, errors)) or None


def _in_words(error: Any) -> str:
    where = f" at {error.json_path}" if error.absolute_path else ""
    return f"{error.message}{where}"


def _readings(final: Final) -> Iterator[Any]:
    """Yield what the answer may mean, the likeliest first."""
    if final.json is not None and final.type != "str":
        yield json.loads(final.json)
    fenced = _FENCED.match(final.text)
    text = (fenced.group(1) if fenced else final.text).strip()
    for piece in (text, *_pieces(text)):
        yield from _values(piece)
    if final.type == "str":
        yield final.text  # a schema may ask for a string


def _values(text: str) -> Iterator[Any]:
    """Read a text as JSON, else as Python writes it, else as JSON with a comma too many."""
    with suppress(ValueError, RecursionError):
        yield json.loads(text)
        return
    if len(text) > _MAX_LITERAL_CHARS:
        return
    with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        yield _as_json(ast.literal_eval(text))
        return
    with suppress(ValueError, RecursionError):
        yield json.loads(_EXTRA_COMMA.sub("", text))


def _as_json(value: object) -> Any:
    """Turn a Python literal into what JSON has: lists for tuples and sets, str for other keys."""
    if isinstance(value, dict):
        items = cast("dict[object, object]", value).items()
        return {key if isinstance(key, str) else str(key): _as_json(one) for key, one in items}
    if isinstance(value, list | tuple | set | frozenset):
        return [_as_json(one) for one in cast("Iterable[object]", value)]
    if isinstance(value, bytes | complex) or value is ...:
        raise ValueError("JSON has no such value")
    return value


def _pieces(text: str) -> Iterator[str]:
    """Yield fenced blocks and the outermost braces or brackets, with words around them left out."""
    yield from (match[1] for match in _BLOCK.finditer(text))
    starts = [at for at in (text.find("{"), text.find("[")) if at >= 0]
    for start in sorted(starts):
        end = text.rfind("}" if text[start] == "{" else "]")
        if end > start and (start, end + 1) != (0, len(text)):
            yield text[start : end + 1]
