"""Edits one entry of a YAML text, and keeps all that is not changed as it is.

The parser only says where values are: writing the whole text again would change its layout.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from rlm_mcp.cli.hosts.yaml_outline import Item, Node, outline, yaml_value
from rlm_mcp.errors import InvalidInputError

Fields = Mapping[str, Any]


def yaml_with(text: str, path: tuple[str, str], change: Callable[[Fields], Fields]) -> str:
    """Change the entry at `path`, or make it; `change` receives what it holds.

    The outer value is a mapping of entries, or a list of entries with a `name`; where there is none
    yet, it becomes a list if the new entry begins with a `name`.

    Raises:
        InvalidInputError: the text is not YAML, or `path` is something else in it.
    """
    document = yaml_value(text)
    outer, inner = path
    entries = _entries(document, outer)
    existing = entries.get(inner, {})
    fields = dict(change(existing))
    is_list = isinstance(document.get(outer) or ([] if next(iter(fields)) == "name" else {}), list)
    if inner not in entries:
        lines = _element_lines(fields) if is_list else [f"{inner}:", *_lines(fields, "  ")]
        text = _with_entry(text, outer, lines)
    changed = [name for name, value in fields.items() if existing.get(name, ...) != value]
    for name in changed if inner in entries else ():
        text = _with_field(text, path, name, fields[name])
    after = {**entries, inner: fields}
    return _checked(text, {**document, outer: list(after.values()) if is_list else after})


def yaml_without(text: str, path: tuple[str, str]) -> str:
    """Remove the entry at `path`, and the outer value with the last one.

    Raises:
        InvalidInputError: the text is not YAML.
    """
    document = yaml_value(text)
    outer, inner = path
    entries = _entries(document, outer)
    if inner not in entries:
        return text
    holder = _found(outline(text), outer)
    entry = _found(holder.value, inner)
    begin = text.rfind("\n", 0, (holder if len(entries) == 1 else entry).start) + 1
    left = text[:begin] + text[_line_end(text, entry.value.end) + 1 :]
    kept: Any = {name: one for name, one in entries.items() if name != inner}
    if isinstance(document[outer], list):
        kept = list(kept.values())
    others = {name: value for name, value in document.items() if name != outer}
    return _checked(left, {**document, outer: kept} if kept else others)


def _entries(document: Fields, outer: str) -> dict[str, Fields]:
    """The entries by name."""
    entries: Any = document.get(outer) or {}
    if isinstance(entries, list):
        listed = cast("list[Any]", entries)
        if not all(isinstance(one, dict) and "name" in one for one in listed):
            raise InvalidInputError(f"{outer!r} is not a list of tables with names.")
        entries = {one["name"]: one for one in listed}
    if not isinstance(entries, dict):
        raise InvalidInputError(f"{outer!r} is not a table.")
    named = cast("dict[str, Any]", entries)
    if any(not isinstance(one, dict) for one in named.values()):
        raise InvalidInputError(f"{outer!r} is not a table of tables.")
    return named


def _found(holder: Node, name: str) -> Item:
    item = holder.item(name)
    if item is None:
        raise InvalidInputError(
            f"{name!r} is not written in the file itself, so it cannot be edited."
        )
    return item


def _with_entry(text: str, outer: str, lines: Sequence[str]) -> str:
    holder = outline(text).item(outer)
    if holder is None:
        begin = text if not text or text.endswith("\n") else f"{text}\n"
        return "\n".join([f"{begin}{outer}:", *(f"  {line}" for line in lines)]) + "\n"
    value = holder.value
    if value.is_block:
        return _after_line(text, value.end, lines, value.column)
    if value.items:
        raise InvalidInputError(f"{outer!r} is written on one line, which cannot be edited.")
    if value.end > value.start:  # {}, [] or null
        kept = text[: value.start].rstrip()
        return _after_line(kept + text[value.end :], len(kept), lines, 2)
    return _after_line(text, value.start, lines, 2)


def _with_field(text: str, path: tuple[str, str], name: str, value: Any) -> str:
    entry = _found(_found(outline(text), path[0]).value, path[1]).value
    if not entry.is_block:
        raise InvalidInputError(f"{path[1]!r} is written on one line, which cannot be edited.")
    lines = _lines({name: value}, "")
    item = entry.item(name)
    if item is None:
        return _after_line(text, entry.end, lines, entry.column)
    written = f"\n{' ' * entry.column}".join(lines)
    return text[: item.start] + written + text[item.value.end :]


def _after_line(text: str, at: int, lines: Sequence[str], column: int) -> str:
    end = _line_end(text, at)
    return text[:end] + "".join(f"\n{' ' * column}{line}" for line in lines) + (text[end:] or "\n")


def _line_end(text: str, at: int) -> int:
    found = text.find("\n", at)
    return found if found >= 0 else len(text)


def _element_lines(fields: Fields) -> list[str]:
    first, *rest = _lines(fields, "  ")
    return [f"- {first.lstrip()}", *rest]


def _lines(fields: Fields, indent: str) -> list[str]:
    """A mapping as lines; every string is quoted, as in JSON."""
    lines: list[str] = []
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}:", *_lines(cast("Fields", value), indent + "  ")]
        elif isinstance(value, list) and value:
            elements = (json.dumps(one, ensure_ascii=False) for one in cast("list[Any]", value))
            lines += [f"{indent}{name}:", *(f"{indent}  - {one}" for one in elements)]
        else:
            lines.append(f"{indent}{name}: {json.dumps(value, ensure_ascii=False)}")
    return lines


def _checked(text: str, wanted: Fields) -> str:
    """Check that a text says what it should, so that no edit destroys a file."""
    try:
        is_right = yaml_value(text) == wanted
    except InvalidInputError:
        is_right = False
    if not is_right:
        raise InvalidInputError("Its layout cannot be edited without losing something.")
    return text
