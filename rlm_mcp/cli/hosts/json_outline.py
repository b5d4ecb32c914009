"""Reads JSON, with comments and trailing commas, and remembers where each value is."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, cast

from rlm_mcp.errors import InvalidInputError

_BLANK = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ATOM = re.compile(r"[-+.\w]+")
_CLOSING = {"{": "}", "[": "]"}


@dataclass(frozen=True)
class Item:
    """A member of an object or an element of a list.

    Args:
        name: the member's name, or the element's index.
        start: where its name, or the element, begins.
        value: what it holds.
    """

    name: str | int
    start: int
    value: Value


@dataclass(frozen=True)
class Value:
    """A value and the place of its text, from `start` to `end`.

    Args:
        plain: the value as `json` gives it.
        items: what an object or a list holds.
        last_comma: where the comma after the last item is, if there is one.
    """

    start: int
    end: int
    plain: Any
    items: tuple[Item, ...] = field(default=())
    last_comma: int | None = None

    def item(self, name: str | int) -> Item | None:
        """The item with this name or index."""
        return next((item for item in self.items if item.name == name), None)


def outline(text: str) -> Value:
    """Read a text.

    Raises:
        InvalidInputError: it is not JSON, or holds a name twice.
    """
    reader = _Reader(text)
    value = reader.value(reader.after_blank(0))
    if reader.after_blank(value.end) != len(text):
        raise reader.refusal("nothing more was expected", value.end)
    return value


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text

    def refusal(self, why: str, at: int) -> InvalidInputError:
        line = self._text.count("\n", 0, at) + 1
        return InvalidInputError(f"It is not JSON: {why}, at line {line}.")

    def after_blank(self, at: int) -> int:
        found = _BLANK.match(self._text, at)
        return found.end() if found else at

    def value(self, at: int) -> Value:
        sign = self._text[at : at + 1]
        if sign in _CLOSING:
            return self._group(at, _CLOSING[sign])
        return self._atom(at, _STRING if sign == '"' else _ATOM)

    def _atom(self, at: int, form: re.Pattern[str]) -> Value:
        found = form.match(self._text, at)
        try:
            return Value(at, found.end() if found else at, json.loads(found[0] if found else ""))
        except ValueError as error:
            raise self.refusal("a value was expected", at) from error

    def _group(self, at: int, closing: str) -> Value:
        items: list[Item] = []
        last_comma: int | None = None
        next_at = self.after_blank(at + 1)
        while self._text[next_at : next_at + 1] != closing:
            if items and last_comma is None:
                raise self.refusal(f"a comma or {closing} was expected", next_at)
            item = self._item(next_at, len(items), is_named=closing == "}")
            items.append(item)
            next_at = self.after_blank(item.value.end)
            last_comma = next_at if self._text[next_at : next_at + 1] == "," else None
            if last_comma is not None:
                next_at = self.after_blank(next_at + 1)
        plain = self._plain(items, closing, at)
        return Value(at, next_at + 1, plain, tuple(items), last_comma)

    def _item(self, at: int, index: int, *, is_named: bool) -> Item:
        if not is_named:
            return Item(index, at, self.value(at))
        name = self.value(at)
        colon = self.after_blank(name.end)
        if not isinstance(name.plain, str) or self._text[colon : colon + 1] != ":":
            raise self.refusal("a name and a colon were expected", at)
        return Item(name.plain, at, self.value(self.after_blank(colon + 1)))

    def _plain(self, items: list[Item], closing: str, at: int) -> Any:
        if closing == "]":
            return [item.value.plain for item in items]
        named = {cast("str", item.name): item.value.plain for item in items}
        if len(named) < len(items):
            raise self.refusal("a name occurs twice, and one of the two would be lost", at)
        return named
