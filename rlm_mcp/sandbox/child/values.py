"""Values of model code as text: answers, previews, slices. Runs in the REPL's process.

Values may be huge and may misbehave. Their size is checked first, and no more of them is walked
than is shown. Types come from `type`, sizes and items from the methods of the built-in types: what
model code overrides is not called. Only `safe_repr` calls a `__repr__` of model code; the host can
interrupt it.
"""

from __future__ import annotations

import json
import types
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from rlm_mcp.sandbox.child.documents import Documents

PREVIEW_CHARS = 200
NAME_CHARS = 100
# Longer values are not turned into text as a whole: a part of their `repr` is shown.
WHOLE_CHARS = 1_000_000
_LEAST_ITEM_CHARS = 3  # of an item of a list as JSON or `repr`, such as "1, "
_BITS_PER_DIGIT = 4  # fewer, in fact: the estimate stays below the real size
_SCALARS = frozenset({str, int, float, bool, type(None)})
_PLAIN = frozenset({list, tuple, set, frozenset, dict, *_SCALARS, bytes, bytearray, complex})
_BRACKETS = {list: ("[", "]"), tuple: ("(", ")"), set: ("{", "}"), dict: ("{", "}")}
# A metaclass of model code may redefine these.
_NAME_OF = type.__dict__["__name__"].__get__
_MODULE_OF = type.__dict__["__module__"].__get__
_ORDER_OF = type.__dict__["__mro__"].__get__
# The built-in types' own methods, whatever a subclass makes of them.
_ITEMS_OF: Callable[[Any], Iterable[tuple[Any, Any]]] = dict.items  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]  # of any items
_LIST_OF: Callable[[Any], list[Any]] = list.copy  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]  # likewise
_PART_OF: Callable[[Any, slice], tuple[Any, ...]] = tuple.__getitem__  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]  # likewise
_SIZED: Sequence[type[Any]] = (str, list, tuple, dict, set, frozenset, bytes, bytearray)
_MACHINERY = (
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    type,
)


class TooLongError(Exception):
    """A value has more text than was asked for."""


class TextSlice(NamedTuple):
    """A part of a value as text, from `start` on; `total` is more than its end if more follows.

    `total` is exact for a `str` and for values of at most `WHOLE_CHARS`.
    """

    text: str
    start: int
    total: int
    is_json: bool


def exact_text(text: str) -> str:
    """Return a `str` whose methods are those of `str`, whatever subclass model code made."""
    return text if type(text) is str else str.__str__(text)


def type_name(value: object) -> str:
    """Return the name of a value's type, cut to `NAME_CHARS`."""
    return exact_text(_NAME_OF(type(value)))[:NAME_CHARS]


def is_foreign(kind: type) -> bool:
    """Return whether a type, or a base of it, was defined in a cell.

    A type can hide that; the host's interrupt bounds what its methods then take.
    """
    return any(_MODULE_OF(base) == "__main__" for base in _ORDER_OF(kind) if base is not object)


def is_machinery(value: object) -> bool:
    """Return whether a value is code or a module rather than data."""
    kind = type(value)
    return kind is types.ModuleType or issubclass(kind, _MACHINERY)  # most are modules


def size_of(value: object) -> int:
    """Return characters, items or bytes, as `len` does; 1 if the value has no length."""
    kind = type(value)
    if kind is Documents:
        return len(value)  # pyright: ignore[reportArgumentType]  # which is a list
    for sized in _SIZED:
        if issubclass(kind, sized):
            return sized.__len__(value)
    if is_foreign(kind) or not hasattr(kind, "__len__"):
        return 1
    try:
        return len(value)  # pyright: ignore[reportArgumentType]  # it has a length
    except Exception:  # noqa: BLE001  # a type that hides where it comes from raises what it likes
        return 1


Simplify = Callable[[Any], Any]


def json_text(
    value: object, most: int = WHOLE_CHARS, simplify: Simplify | None = None
) -> str | None:
    """Return a container or number as JSON; None if JSON cannot represent it.

    Args:
        value: anything.
        most: how long the JSON may be.
        simplify: turns what JSON does not have into something simpler, or raises `TypeError`.

    Raises:
        TooLongError: the JSON is longer than `most` characters.
    """
    if issubclass(type(value), str):
        return None
    try:
        plain = _PlainCopy(most, simplify).of(value)
        text = json.dumps(plain, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None
    if len(text) > most:
        raise TooLongError
    return text


class _PlainCopy:
    """Copies JSON-like values into plain containers, and stops when they are too long as JSON."""

    def __init__(self, most: int, simplify: Simplify | None) -> None:
        self._left = most
        self._simplify = simplify

    def of(self, value: Any) -> Any:  # any value of model code
        """Copy a value.

        Raises:
            TypeError: JSON cannot represent it.
            TooLongError: its JSON is too long.
        """
        kind: type[Any] = type(value)  # pyright: ignore[reportUnknownVariableType]  # of any value
        if issubclass(kind, str):
            self._spend(str.__len__(value))
            return exact_text(value)
        if issubclass(kind, int):
            self._spend(int.bit_length(value) // _BITS_PER_DIGIT)
            return value if kind in (int, bool) else int.__int__(value)
        if issubclass(kind, float):
            return float.__float__(value)
        if value is None:
            return None
        return self._container(value, kind)

    def _container(self, value: Any, kind: type[Any]) -> Any:  # likewise
        if issubclass(kind, dict):
            self._spend(2 * _LEAST_ITEM_CHARS * size_of(value))
            # Whose own order is not that of its base.
            items = value.items() if kind is OrderedDict else _ITEMS_OF(value)
            return {self._key(key): self.of(item) for key, item in items}
        if kind is Documents:
            self._spend(value.size_bytes // 4)  # at most four bytes a character
            return self._items(list(value))
        if issubclass(kind, (list, tuple)):
            self._spend(_LEAST_ITEM_CHARS * size_of(value))
            return self._items(
                _LIST_OF(value) if issubclass(kind, list) else _PART_OF(value, slice(None))
            )
        if self._simplify is None:
            raise TypeError("not JSON-like")
        return self.of(self._simplify(value))

    def _key(self, key: object) -> Any:  # a key of model code
        if not issubclass(type(key), (str, int, float, type(None))):
            raise TypeError("not a key of JSON")
        return self.of(key)

    def _items(self, items: Sequence[Any]) -> Sequence[Any]:
        kinds = set(map(type, items))
        if kinds == {str}:
            self._spend(sum(map(len, items)))
        elif kinds <= {int, bool}:
            self._spend(sum(map(int.bit_length, items)) // _BITS_PER_DIGIT - len(items))
        elif not kinds <= {float, bool, type(None)}:
            return [self.of(item) for item in items]
        return items

    def _spend(self, chars: int) -> None:
        self._left -= max(chars, 0)
        if self._left < 0:
            raise TooLongError


def whole_text(value: object, most: int = WHOLE_CHARS) -> tuple[str, bool]:
    """Return a value as text, and whether that text is JSON.

    A `str` is itself, what JSON can represent is JSON, anything else is its `repr`.

    Raises:
        TooLongError: the text is longer than `most` characters.
    """
    kind = type(value)
    if issubclass(kind, str):
        text = exact_text(value)  # pyright: ignore[reportArgumentType]  # it is one
    else:
        as_json = json_text(value, most)
        if as_json is not None:
            return as_json, True
        if size_of(value) > most:
            raise TooLongError
        text = short_repr(value, most)
    if len(text) > most:
        raise TooLongError
    return text, False


def slice_of(value: object, start: int, limit: int) -> TextSlice:
    """Return `limit` characters of a value as text, from character `start` on."""
    if issubclass(type(value), str):
        text, is_json = exact_text(value), False  # pyright: ignore[reportArgumentType]  # it is one
    else:
        try:
            text, is_json = whole_text(value)
        except TooLongError:
            return _start_of_repr(value, start, limit)
    start = min(start, len(text))
    return TextSlice(text[start : start + limit], start, len(text), is_json)


def _start_of_repr(value: object, start: int, limit: int) -> TextSlice:
    end = start + limit
    text = "".join(_pieces_until(_pieces(value, end, 20), end))
    if len(text) <= end:
        start = min(start, len(text))
        return TextSlice(text[start:], start, len(text), is_json=False)
    total = max(end + 1, size_of(value) * _LEAST_ITEM_CHARS)
    return TextSlice(text[start:end], start, total, is_json=False)


def safe_repr(value: object) -> str:
    """Return `repr(value)`, or a note of its type where that raises."""
    try:
        return exact_text(repr(value))
    except Exception as error:  # noqa: BLE001  # a `__repr__` of model code raises what it likes
        return f"<{type_name(value)} whose repr raises {type_name(error)}>"


def short_repr(value: object, limit: int, *, foreign: bool = True) -> str:
    """Return the `repr` of a value, walking no further than `limit` characters of it.

    Equal to `repr` if that is not longer than `limit`; else cut with `…`. With `foreign=False`
    values of classes of model code, and those that may be large, are shown as their type.
    """
    text = "".join(_pieces_until(_pieces(value, limit, 20, foreign=foreign), limit))
    return text if len(text) <= limit else text[:limit] + "…"


def _pieces_until(pieces: Iterator[str], limit: int) -> Iterator[str]:
    size = 0
    for piece in pieces:
        yield piece
        size += len(piece)
        if size > limit:
            return


def _pieces(value: object, limit: int, depth: int, *, foreign: bool = True) -> Iterator[str]:
    kind: type[Any] = list if type(value) is Documents else type(value)
    if kind in (str, bytes, bytearray):
        yield _sliced(value, limit)
    elif kind in _BRACKETS and value and depth:
        yield from _items(value, kind, (limit, depth - 1), foreign=foreign)
    elif kind in _BRACKETS and not value:
        yield "[]" if kind is list else repr(value)
    elif kind in _BRACKETS:
        yield "…"
    elif foreign or kind in _PLAIN or not (is_foreign(kind) or hasattr(kind, "__len__")):
        yield safe_repr(value)
    else:
        yield f"<{type_name(value)}>"


def _sliced(value: Any, limit: int) -> str:  # str, bytes or bytearray
    return repr(value) if len(value) <= limit else repr(value[:limit]) + "…"


def _items(
    value: Any,  # of that kind
    kind: type[Any],
    bounds: tuple[int, int],
    *,
    foreign: bool,
) -> Iterator[str]:
    opening, closing = _BRACKETS[kind]
    yield opening
    separator = ""
    for item in value.items() if kind is dict else value:
        yield separator
        separator = ", "
        if kind is dict:
            yield from _pieces(item[0], *bounds, foreign=foreign)
            yield ": "
            yield from _pieces(item[1], *bounds, foreign=foreign)
        else:
            yield from _pieces(item, *bounds, foreign=foreign)
    yield ",)" if kind is tuple and len(value) == 1 else closing


def preview(value: object) -> str:
    """Return a short `repr`; only the type of what is not a plain value, so that no code runs."""
    if type(value) in _PLAIN - {frozenset}:
        try:
            return short_repr(value, PREVIEW_CHARS, foreign=False)
        except Exception as error:  # noqa: BLE001  # such as a dict that a thread changes meanwhile
            return f"<{type_name(value)} whose repr raises {type_name(error)}>"
    return f"<{type_name(value)}>"


def names_in_words(names: Iterable[str], most: int = 30) -> str:
    """List names for an error message; those with control characters are left out."""
    listed = [name for name in names if name.isprintable()]
    shown = ", ".join(name[:NAME_CHARS] for name in listed[:most])
    return (
        f"{shown} and {len(listed) - most} more" if len(listed) > most else shown or "none so far"
    )
