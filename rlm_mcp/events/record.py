"""Frozen values that are kept as JSON objects: a field is named for its key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache, partial
from types import NoneType
from typing import Annotated, Any, Self, TypeVar, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")

_IS_LEFT_OUT = object()
LeftOut = Annotated[T | None, _IS_LEFT_OUT]
"""The type of a field whose key is left out where the value is None."""


@dataclass(frozen=True)
class Record:
    """A value that is kept as a JSON object."""

    def to_detail(self) -> dict[str, Any]:
        """Return the object, by its keys."""
        detail: dict[str, Any] = {}
        for key, is_left_out, _ in _layout(type(self)):
            value = getattr(self, key)
            if value is not None or not is_left_out:
                detail[key] = _written(value)
        return detail

    @classmethod
    def from_detail(cls, detail: Mapping[str, Any]) -> Self:
        """Read the object; a missing key leaves its field's default, an unknown one is skipped."""
        return cls(
            **{key: read(detail[key]) for key, _, read in _layout(cls) if key in detail},
        )


@cache
def _layout(record: type[Record]) -> tuple[tuple[str, bool, Callable[[Any], Any]], ...]:
    """Return the key of each field, whether it may be left out, and what reads its value."""
    hints = get_type_hints(record, include_extras=True)
    return tuple(
        (one.name, _IS_LEFT_OUT in get_args(hints[one.name]), _reader(hints[one.name]))
        for one in fields(record)
    )


def _reader(hint: Any) -> Callable[[Any], Any]:
    if get_origin(hint) is Annotated:
        return _reader(get_args(hint)[0])
    if NoneType in get_args(hint):
        [some] = [one for one in get_args(hint) if one is not NoneType]
        return partial(_read_unless_null, _reader(some))
    if get_origin(hint) is tuple:
        return partial(_read_each, _reader(get_args(hint)[0]))
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint.from_detail
    return _as_it_is


def _as_it_is(found: Any) -> Any:
    return found


def _read_unless_null(read: Callable[[Any], Any], found: Any) -> Any:
    return None if found is None else read(found)


def _read_each(read: Callable[[Any], Any], found: list[Any]) -> tuple[Any, ...]:
    return tuple(map(read, found))


def _written(value: object) -> object:
    if isinstance(value, Record):
        return value.to_detail()
    if isinstance(value, tuple):
        return [_written(one) for one in cast("tuple[object, ...]", value)]
    return value
