"""Reads YAML, and remembers where each value is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from ruamel.yaml import YAML, YAMLError

from rlm_mcp.errors import InvalidInputError


@dataclass(frozen=True)
class Node:
    """A value and the place of its text.

    Args:
        start: where it begins.
        end: behind its last character, without comments and empty lines that follow.
        column: how far its first line is indented, or its dashes.
        is_block: whether its items stand on lines of their own.
        scalar: its text where it is a scalar; empty otherwise.
        items: what it holds: labels with values, or elements.
    """

    start: int
    end: int
    column: int
    is_block: bool = False
    scalar: str = ""
    items: tuple[Item, ...] = ()

    def item(self, name: str) -> Item | None:
        """The member of this name, or the element that has this `name`."""
        for item in self.items:
            named = item.value.item("name") if item.label is None else None
            if (item.label or (named.value if named else item.value)).scalar == name:
                return item
        return None


@dataclass(frozen=True)
class Item:
    """A member of a mapping, with its label, or an element of a list, which has none."""

    label: Node | None
    value: Node

    @property
    def start(self) -> int:
        """Where its label begins, or the element behind its dash."""
        return (self.label or self.value).start


def yaml_value(text: str) -> dict[str, Any]:
    """What a text says; an empty one is an empty mapping.

    Raises:
        InvalidInputError: it is not a YAML mapping.
    """
    try:
        value = _parser().load(text)
    except YAMLError as error:
        raise InvalidInputError(f"It is not YAML: {error}.") from error
    if value is not None and not isinstance(value, dict):
        raise InvalidInputError("It is not a YAML mapping.")
    return cast("dict[str, Any]", value or {})


def outline(text: str) -> Node:
    """Read a text that `yaml_value` can read."""
    root = _parser().compose(text)
    return Node(0, 0, 0) if root is None else _node(text, root)


def _parser() -> Any:
    return cast("Any", YAML)(typ="safe", pure=True)


def _node(text: str, found: Any, label: Node | None = None) -> Node:
    start, end = cast("int", found.start_mark.index), cast("int", found.end_mark.index)
    column = cast("int", found.start_mark.column)
    if start == end:  # nothing, which the parser sees where the next thing begins
        end = start = label.end + 1 if label else start
    if isinstance(found.value, str):
        return Node(start, len(text[:end].rstrip()), column, scalar=found.value)
    items = tuple(_item(text, one) for one in cast("list[Any]", found.value))
    is_block = bool(items) and not found.flow_style
    return Node(start, items[-1].value.end if is_block else end, column, is_block, "", items)


def _item(text: str, found: Any) -> Item:
    if not isinstance(found, tuple):
        return Item(None, _node(text, found))
    key, value = cast("tuple[Any, Any]", found)
    label = _node(text, key)
    return Item(label, _node(text, value, label))
