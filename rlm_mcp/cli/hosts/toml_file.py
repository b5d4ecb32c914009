"""Edits one table of a TOML text, and keeps comments and order."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, cast

import tomlkit
from tomlkit.exceptions import TOMLKitError

from rlm_mcp.errors import InvalidInputError

Fields = Mapping[str, Any]


def toml_with(text: str, path: tuple[str, str], change: Callable[[Fields], Fields]) -> str:
    """Change the table at `path`, or make it; `change` receives what it holds.

    Raises:
        InvalidInputError: the text is not TOML, or `path` is something else in it.
    """
    wanted = toml_value(text)
    outer, inner = path
    tables = wanted.get(outer, {})
    if not isinstance(tables, dict):
        raise InvalidInputError(f"{outer!r} is not a table.")
    existing = cast("dict[str, Any]", tables).get(inner, {})
    if not isinstance(existing, dict):
        raise InvalidInputError(f"{outer}.{inner} is not a table.")
    fields = dict(change(cast("Fields", existing)))
    wanted[outer] = {**cast("dict[str, Any]", tables), inner: fields}
    document = _parsed(text)
    _place(document, path, fields)
    return _checked(document, wanted)


def toml_without(text: str, path: tuple[str, str]) -> str:
    """Remove the table at `path`.

    Raises:
        InvalidInputError: the text is not TOML.
    """
    wanted = toml_value(text)
    outer, inner = path
    if inner not in wanted.get(outer, {}):
        return text
    del wanted[outer][inner]
    document = _parsed(text)
    del document[outer][inner]
    if not wanted[outer]:
        del wanted[outer], document[outer]
    return _checked(document, wanted)


def _place(document: MutableMapping[str, Any], path: tuple[str, str], fields: Fields) -> None:
    outer, inner = path
    table = document.get(outer, {}).get(inner)
    if table is None:
        table = tomlkit.table()
        for name, value in fields.items():
            table[name] = _item(value)
        table.add(tomlkit.nl())  # an empty line before what follows
        if outer not in document:
            document[outer] = tomlkit.table(is_super_table=True)
        document[outer][inner] = table
        return
    for name, value in fields.items():
        if table.get(name) != value:
            table[name] = _item(value)


def _item(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    inline = cast("MutableMapping[str, Any]", tomlkit.inline_table())
    for name, item in cast("dict[str, Any]", value).items():
        inline[name] = item
    return inline


def toml_value(text: str) -> dict[str, Any]:
    """What a text says.

    Raises:
        InvalidInputError: it is not TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(f"It is not TOML: {error}.") from error


def _parsed(text: str) -> MutableMapping[str, Any]:
    try:
        return cast("MutableMapping[str, Any]", tomlkit.parse(text))
    except TOMLKitError as error:
        raise InvalidInputError(f"It cannot be edited: {error}.") from error


def _checked(document: MutableMapping[str, Any], wanted: Fields) -> str:
    """Write it, and check that it says what it should, so that no edit destroys a file."""
    text = tomlkit.dumps(document).rstrip("\n") + "\n" if document else ""
    if toml_value(text) != wanted:
        raise InvalidInputError("Its layout cannot be edited without losing something.")
    return text
