"""What a cell gives as the answer; what is none is refused. Runs in the REPL's process."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, cast

from rlm_mcp.sandbox.child.calls import FailedCall
from rlm_mcp.sandbox.child.documents import Documents
from rlm_mcp.sandbox.child.values import (
    TooLongError,
    exact_text,
    is_machinery,
    json_text,
    type_name,
)
from rlm_mcp.sandbox.wire import MAX_ANSWER_CHARS

MAX_ITEMS = 1_000_000
# A text that is shorter than this may be the answer as a whole.
MIN_CONTEXT_CHARS = 200
_MAX_BLANKS = 4_096
_VIEWS: tuple[type[Any], ...] = (*map(type, ({}.keys(), {}.values(), {}.items())), range)  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]  # of anything
_CONTAINERS = (dict, list, tuple)
_UNAWAITED = (types.CoroutineType, types.AsyncGeneratorType)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{6,}[^<>]*>")


def answer_of(value: object, context: str | Documents) -> tuple[str, str, bool]:
    """Return a value as the text of an answer, its type, and whether the text is JSON.

    Raises:
        ValueError: it cannot be an answer; the message says why, and what to give.
    """
    if value is context or _is_context(value, context):
        raise ValueError(
            "the whole context cannot be the answer; give the part that answers the question"
        )
    if isinstance(value, FailedCall):
        raise ValueError(f"a failed call cannot be the answer: {str(value)[:500]}")  # noqa: TRY004  # as the others
    if value is None:
        raise ValueError("None cannot be the answer; give a value")
    if isinstance(value, _UNAWAITED):
        kind = type_name(cast("object", value))
        raise ValueError(f"a {kind} cannot be the answer; await it first")  # noqa: TRY004  # as the others
    if is_machinery(value):
        raise ValueError(f"a {type_name(value)} cannot be the answer; give a value")
    if issubclass(type(value), str) and not exact_text(cast("str", value)).strip():
        raise ValueError("the answer is empty; where nothing was found, say so in words")
    value = _listed(value)
    try:
        is_container = isinstance(value, _CONTAINERS)
        as_json = json_text(value, MAX_ANSWER_CHARS, _simplified if is_container else None)
    except TooLongError:
        raise _too_long() from None
    text = _text_of(value) if as_json is None else as_json
    if len(text) > MAX_ANSWER_CHARS:
        raise _too_long()
    return text, type_name(value), as_json is not None


def _too_long() -> ValueError:
    return ValueError(f"the answer is too long: at most {MAX_ANSWER_CHARS:,} characters")


def _is_context(value: object, context: str | Documents) -> bool:
    """Whether a value is a copy of the text, blanks at its ends apart."""
    if type(value) is str and isinstance(context, str):
        size = len(context)
        is_alike = size >= MIN_CONTEXT_CHARS and abs(len(value) - size) <= _MAX_BLANKS
        return is_alike and len(value) <= MAX_ANSWER_CHARS and value.strip() == context.strip()
    if type(value) is not list or type(context) is not Documents:
        return False
    documents = cast("list[Any]", value)
    if len(documents) != len(context) or sum(map(len, context)) < MIN_CONTEXT_CHARS:
        return False
    pairs = zip(documents, context, strict=True)
    return all(type(one) is str and one == other for one, other in pairs)


def _listed(value: object) -> object:
    """Turn what yields its items one by one, or only views them, into a list; a match into text."""
    if isinstance(value, re.Match):
        return cast("re.Match[str]", value).group()
    if not isinstance(value, (Iterator, *_VIEWS)):
        return value
    items: list[Any] = list(islice(cast("Iterator[Any]", value), MAX_ITEMS + 1))
    if len(items) > MAX_ITEMS:
        kind = type_name(value)
        raise ValueError(f"a {kind} with so many items cannot be the answer")
    return items


def _text_of(value: object) -> str:
    text = exact_text(str(value))
    if not issubclass(type(value), str) and (callable(value) or _ADDRESS.search(text)):
        raise ValueError(
            f"this {type_name(value)} cannot be the answer: it has no text but where it is in "
            "memory; give a str, a number, a list or a dict"
        )
    return text


def _simplified(value: Any) -> Any:  # in an answer of model code
    """Return what JSON has in place of a set, a date, a decimal and the like.

    Raises:
        TypeError: nothing there stands for it.
    """
    if isinstance(value, set | frozenset):
        items = cast("set[Any]", value)
        try:
            return sorted(items)
        except TypeError:
            return list(items)
    if isinstance(value, (re.Match, *_VIEWS)):
        return _listed(cast("object", value))
    kinds = {base.__module__.partition(".")[0] for base in type(value).__mro__[:-1]}
    for home, simpler in _SIMPLER.items():
        if home in kinds:
            return simpler(value)
    raise TypeError("not JSON-like")


# What stands for a value, by the module that its type comes from.
_SIMPLER: Mapping[str, Callable[[Any], Any]] = {
    "enum": lambda value: value.value,
    "datetime": lambda value: value.isoformat() if hasattr(value, "isoformat") else str(value),
    "decimal": lambda value: int(value) if value == int(value) else float(value),
    "numpy": lambda value: value.tolist(),
    "pathlib": str,
    "uuid": str,
    "fractions": str,
}
