"""TOML with one table changed, its comments and its order kept."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, cast

import tomlkit
from tomlkit.exceptions import TOMLKitError

from rlm_mcp.errors import InvalidInputError

Fields = Mapping[str, Any]


def toml_with(text: str, path: tuple[str, str], change: Callable[[Fields], Fields]) -> str:
    """Change the table at `path`, made where there is none; `change` gets what it holds.

    Raises:
        InvalidInputError: the text is not TOML, or `path` is something else in it.
    """
    wanted = _plain(text)
    outer, inner = path
    tables = wanted.get(outer, {})
    if not isinstance(tables, dict):
        raise InvalidInputError(f"{outer!r} is no table there.")
    existing = cast("dict[str, Any]", tables).get(inner, {})
    if not isinstance(existing, dict):
        raise InvalidInputError(f"{outer}.{inner} is no table there.")
    fields = dict(change(cast("Fields", existing)))
    wanted[outer] = {**cast("dict[str, Any]", tables), inner: fields}
    document = _parsed(text)
    _place(document, path, fields)
    return _checked(document, wanted)


def toml_without(text: str, path: tuple[str, str]) -> str:
    """Take the table at `path` out.

    Raises:
        InvalidInputError: the text is not TOML.
    """
    wanted = _plain(text)
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
        table.add(tomlkit.nl())  # a line between it and what follows
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


def _plain(text: str) -> dict[str, Any]:
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
    """Write it, and see that it says what it should: an editor's slip must cost nobody a file."""
    text = tomlkit.dumps(document).rstrip("\n") + "\n" if document else ""
    if _plain(text) != wanted:
        raise InvalidInputError("It is laid out so that it cannot be edited without a loss.")
    return text
