"""Values of model code as text: answers, previews, slices. Runs in the REPL's process.

Values may be huge or may misbehave: nothing here walks more of a value than it shows, but where
the whole of it was asked for.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterable, Iterator, Sized
from typing import Any

from rlm_mcp.sandbox.child.documents import Documents

PREVIEW_CHARS = 200
_JSON_TYPES = (dict, list, tuple, int, float, bool, type(None))
_BRACKETS = {list: ("[", "]"), tuple: ("(", ")"), set: ("{", "}"), dict: ("{", "}")}


def json_text(value: object) -> str | None:
    """Return a container or number as JSON, or None where JSON cannot hold it."""
    if not isinstance(value, _JSON_TYPES):
        return None
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None


def whole_text(value: object) -> tuple[str, bool]:
    """Return a value as text, and whether that text is JSON.

    A `str` is itself, what JSON can hold is JSON, anything else is its `repr`.
    """
    if isinstance(value, str):
        return value, False
    as_json = json_text(value)
    return (as_json, True) if as_json is not None else (safe_repr(value), False)


def safe_repr(value: object) -> str:
    """Return `repr(value)`, or a note of its type where that raises."""
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001  # a `__repr__` of model code raises what it likes
        return f"<{type_name(value)} whose repr raises {type(error).__name__}>"


def type_name(value: object) -> str:
    """Return the name of a value's type, short whatever model code named it."""
    return type(value).__name__[:100]


def short_repr(value: object, limit: int) -> str:
    """Return the `repr` of a value, walking no further than `limit` characters of it.

    Equal to `repr` where that is no longer than `limit`; cut with `…` where it is.
    """
    pieces: list[str] = []
    size = 0
    for piece in _pieces(value, limit, 20):
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            return "".join(pieces)[:limit] + "…"
    return "".join(pieces)


def _pieces(value: object, limit: int, depth: int) -> Iterator[str]:
    kind: type[Any] = list if isinstance(value, Documents) else type(value)
    if kind is str or kind is bytes or kind is bytearray:
        yield _sliced(value, limit)
    elif kind in _BRACKETS and value and depth:
        yield from _items(value, kind, (limit, depth - 1))
    elif kind in _BRACKETS and not value:
        yield "[]" if kind is list else repr(value)
    elif kind in _BRACKETS:
        yield "…"
    else:
        yield safe_repr(value)


def _sliced(value: Any, limit: int) -> str:  # str, bytes or bytearray
    return repr(value) if len(value) <= limit else repr(value[:limit]) + "…"


def _items(value: Any, kind: type[Any], bounds: tuple[int, int]) -> Iterator[str]:  # of that kind
    opening, closing = _BRACKETS[kind]
    yield opening
    separator = ""
    for item in value:
        yield separator
        separator = ", "
        yield from _pieces(item, *bounds)
        if kind is dict:
            yield ": "
            yield from _pieces(value[item], *bounds)
    yield ",)" if kind is tuple and len(value) == 1 else closing


def size_of(value: object) -> int:
    """Return characters, items or bytes, as `len` says; 1 for what has no length."""
    try:
        return len(value) if isinstance(value, Sized) else 1
    except Exception:  # noqa: BLE001  # a `__len__` of model code raises what it likes
        return 1


def preview(value: object) -> str:
    """Return a short `repr`; of what is not a plain value only the type, so that no code runs."""
    if type(value) in {*_BRACKETS, str, bytes, bytearray, int, float, bool, complex, type(None)}:
        try:
            return short_repr(value, PREVIEW_CHARS)
        except Exception as error:  # noqa: BLE001  # items may be of model code
            return f"<{type_name(value)} whose repr raises {type(error).__name__}>"
    return f"<{type_name(value)}>"


def is_machinery(value: object) -> bool:
    """Tell whether a value is code or a module rather than something computed."""
    return isinstance(
        value,
        (
            types.ModuleType,
            types.FunctionType,
            types.BuiltinFunctionType,
            types.MethodType,
            type,
        ),
    )


def names_in_words(names: Iterable[str], most: int = 30) -> str:
    """List names for an error text."""
    listed = list(names)
    shown = ", ".join(listed[:most])
    return (
        f"{shown} and {len(listed) - most} more" if len(listed) > most else shown or "none so far"
    )
