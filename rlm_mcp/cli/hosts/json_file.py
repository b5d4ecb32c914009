"""Edits JSON texts, with or without comments, and keeps all that is not changed as it is."""

from __future__ import annotations

import json
import re
from typing import Any, cast

from rlm_mcp.cli.hosts.json_outline import Value, outline
from rlm_mcp.errors import InvalidInputError

Path = tuple[str | int, ...]


def json_with(text: str, path: Path, value: Any, *, is_first: bool = False) -> str:
    """Set the value at `path`; objects on the way are made, and a list's end is its length.

    Members of an object there that the value does not have are kept.

    Args:
        is_first: a new member comes before the others, not after them.

    Raises:
        InvalidInputError: the text is not JSON, or something on the way is not an object.
    """
    text = text if text.strip() else "{}\n"
    changed = _with(text, path, value, is_first=is_first)
    if outline(changed).plain != _put(outline(text).plain, path, value):
        raise InvalidInputError("Its layout cannot be edited without losing something.")
    return changed


def _with(text: str, path: Path, value: Any, *, is_first: bool = False) -> str:
    there = outline(text)
    for depth, name in enumerate(path):
        if not isinstance(there.plain, dict if isinstance(name, str) else list):
            raise InvalidInputError(f"{'.'.join(map(str, path[:depth]))!r} is not a table.")
        item = there.item(name)
        if item is None:
            for missing in reversed(path[depth + 1 :]):
                value = {missing: value}
            return _inserted(text, there, name, value, is_first=is_first)
        there = item.value
    if there.plain == value:
        return text
    if isinstance(there.plain, dict) and isinstance(value, dict):
        for name, one in cast("dict[str, Any]", value).items():
            text = _with(text, (*path, name), one)
        return text
    written = _written(value, _indent(text), _indent_at(text, there.start))
    return text[: there.start] + written + text[there.end :]


def json_without(text: str, path: Path) -> str:
    """Remove the member or element at `path`, which is there.

    Raises:
        InvalidInputError: the text is not JSON.
    """
    holder = outline(text)
    for name in path[:-1]:
        if item := holder.item(name):
            holder = item.value
    at = next(index for index, item in enumerate(holder.items) if item.name == path[-1])
    item = holder.items[at]
    start, end = _line_start(text, item.start), item.value.end
    if at + 1 < len(holder.items) or holder.last_comma is not None:
        end = _comma_after(text, end) + 1
    elif at:
        comma = _comma_after(text, holder.items[at - 1].value.end)
        return text[:comma] + text[comma + 1 : start] + text[end:]
    left = text[:start] + text[end:]
    is_empty = not (text[holder.start + 1 : start] + text[end : holder.end - 1]).strip()
    if len(holder.items) == 1 and is_empty:
        return text[: holder.start + 1] + text[holder.end - 1 :]
    return left


def _put(plain: Any, path: Path, value: Any) -> Any:
    """What should stand in a text whose value at `path` is set."""
    if path and isinstance(plain, list):
        return [*cast("list[Any]", plain), value]
    if path:
        [name, *rest] = path
        named = cast("dict[str | int, Any]", plain)
        return {**named, name: _put(named.get(name, {} if rest else None), tuple(rest), value)}
    if isinstance(plain, dict) and isinstance(value, dict):
        return {**cast("dict[str, Any]", plain), **cast("dict[str, Any]", value)}
    return value


def json_value(text: str) -> dict[str, Any]:
    """What a text says; an empty one is an empty object.

    Raises:
        InvalidInputError: it is not a JSON object.
    """
    if not text.strip():
        return {}
    plain = outline(text).plain
    if not isinstance(plain, dict):
        raise InvalidInputError("It is not a JSON object.")
    return cast("dict[str, Any]", plain)


def _inserted(text: str, holder: Value, name: str | int, value: Any, *, is_first: bool) -> str:
    unit = _indent(text)
    outer = _indent_at(text, holder.start)
    inner = _indent_at(text, holder.items[0].start) if holder.items else outer
    if inner == outer:
        inner = outer + unit
    label = f"{json.dumps(name, ensure_ascii=False)}: " if isinstance(name, str) else ""
    written = f"\n{inner}{label}{_written(value, unit, inner)}"
    if is_first and holder.items:
        start = holder.start + 1
        return text[:start] + written + "," + text[start:]
    start, close = holder.start + 1, holder.end - 1
    if holder.items and holder.last_comma is None:
        end = holder.items[-1].value.end
        text = f"{text[:end]},{text[end:]}"
        close += 1
    elif holder.items:
        written += ","
    end = start + len(text[start:close].rstrip())
    closing = text[end:close] if "\n" in text[end:close] else f"\n{outer}"
    return text[:end] + written + closing + text[close:]


def _written(value: Any, unit: str, indent: str) -> str:
    lines = json.dumps(value, indent=unit, ensure_ascii=False, allow_nan=False).splitlines()
    return f"\n{indent}".join(lines)


def _indent(text: str) -> str:
    found = re.search(r"^([ \t]+)[\"{\[]", text, re.MULTILINE)
    return found[1] if found else "  "


def _indent_at(text: str, at: int) -> str:
    """The indentation of the line on which a place is."""
    begin = text.rfind("\n", 0, at) + 1
    found = re.match(r"[ \t]*", text[begin:])
    return found[0] if found else ""


def _line_start(text: str, at: int) -> int:
    """Where to cut before an item: at the end of the line above, if it begins its line."""
    before = text[:at].rstrip(" \t")
    return len(before) - 1 if before.endswith("\n") else at


def _comma_after(text: str, at: int) -> int:
    found = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*,", re.DOTALL).match(text, at)
    return found.end() - 1 if found else at
