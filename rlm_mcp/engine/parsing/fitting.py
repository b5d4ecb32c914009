"""Values that only their spelling keeps from a schema: numbers in quotes, `yes`, another case.

What may mean two things stays as it is, so that the model is asked: `"1,234"` is a number only
where an integer is wanted, and a percentage is none. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

Fields = Mapping[str, Any]

_MOST_LEVELS = 40
_PLAIN = re.compile(r"[-+]?(?:\d{1,300}(?:\.\d{1,300})?|\.\d{1,300})(?:[eE][-+]?\d{1,3})?")
_GROUPED = re.compile(r"[-+]?\d{1,3}(?:,\d{3}){1,100}(?P<rest>\.\d{1,300})?")
_BOOLEANS: Mapping[str, bool] = {"true": True, "yes": True, "false": False, "no": False}
_MARKS = " \t\n*_`\"'.!"


def fitted(value: Any, schema: Fields) -> Any:
    """Return what a value means by a schema; what is not understood stays as it is.

    It may not fit even then, and is to be checked.
    """
    return _fit(value, schema, schema, _MOST_LEVELS)


def _fit(value: Any, schema: Any, root: Fields, levels: int) -> Any:
    fields = _resolved(schema, root)
    if not fields or levels == 0:
        return value
    for branch in (*_list_of(fields, "allOf"), *_only_branch(fields)):
        value = _fit(value, branch, root, levels - 1)
    types = _types(fields)
    if isinstance(value, str):
        return _of_text(value, fields, types)
    if isinstance(value, dict) and "array" in types and "object" not in types:
        value = [cast("dict[str, Any]", value)]
    if isinstance(value, dict):
        return _of_object(cast("dict[str, Any]", value), fields, root, levels)
    if isinstance(value, list):
        return _of_list(cast("list[Any]", value), fields, types, root, levels)
    is_code = types == {"string"} and isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_code else value


def _resolved(schema: Any, root: Fields) -> Fields:
    """Return a schema, or the one that it refers to in its root; else an empty one."""
    for _ in range(_MOST_LEVELS):
        if not isinstance(schema, dict):
            return {}
        fields = cast("Fields", schema)
        reference = fields.get("$ref")
        if not isinstance(reference, str):
            return fields
        found: Any = root
        for part in reference.removeprefix("#").strip("/").split("/") if reference != "#" else ():
            key = part.replace("~1", "/").replace("~0", "~")
            found = cast("Fields", found).get(key) if isinstance(found, dict) else None
        schema = found if reference.startswith("#") else None
    return {}


def _list_of(fields: Fields, key: str) -> Sequence[Any]:
    found = fields.get(key)
    return cast("Sequence[Any]", found) if isinstance(found, list) else ()


def _only_branch(fields: Fields) -> Sequence[Any]:
    """Return the only alternative that is not null, of those that `anyOf` or `oneOf` give."""
    branches = [*_list_of(fields, "anyOf"), *_list_of(fields, "oneOf")]
    others = [each for each in branches if each != {"type": "null"}]
    return others if len(others) == 1 else ()


def _types(fields: Fields) -> set[str]:
    given = fields.get("type")
    named = [given] if isinstance(given, str) else _list_of(fields, "type")
    return {each for each in named if isinstance(each, str)}


def _of_text(value: str, fields: Fields, types: set[str]) -> Any:
    plain = value.strip(_MARKS).casefold()
    members = _list_of(fields, "enum")
    if members and value not in members:
        alike = [each for each in members if str(each).casefold() == plain]
        return alike[0] if len(alike) == 1 else value
    if "string" in types:
        return value
    if "boolean" in types and plain in _BOOLEANS:
        return _BOOLEANS[plain]
    if "null" in types and plain in {"null", "none"}:
        return None
    number = _number(value, is_integer="number" not in types)
    return number if types & {"integer", "number"} and number is not None else value


def _number(text: str, *, is_integer: bool) -> int | float | None:
    plain = text.strip().replace("\u2212", "-").rstrip(".").removeprefix("$").removeprefix("€")
    grouped = _GROUPED.fullmatch(plain)
    if grouped and (is_integer or grouped["rest"] or plain.count(",") > 1):
        plain = plain.replace(",", "")
    if not _PLAIN.fullmatch(plain):
        return None
    if re.fullmatch(r"[-+]?\d+", plain):
        return int(plain)
    number = float(plain)
    return int(number) if is_integer and number.is_integer() and abs(number) < 2**53 else number


def _of_object(value: dict[str, Any], fields: Fields, root: Fields, levels: int) -> Any:
    known = fields.get("properties")
    properties = cast("Fields", known) if isinstance(known, dict) else cast("Fields", {})
    rest = fields.get("additionalProperties")
    made: dict[str, Any] = {}
    for key, item in value.items():
        name = key if key in properties else _other_spelling(key, properties, value)
        made[name] = _fit(item, properties.get(name, rest), root, levels - 1)
    return made


def _other_spelling(key: str, properties: Fields, value: Fields) -> str:
    """Return the property that is meant by `First Name` where it is called `first_name`."""
    meant = [each for each in properties if _letters(each) == _letters(key)]
    alike = [each for each in value if _letters(each) == _letters(key)]
    return meant[0] if len(meant) == len(alike) == 1 else key


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


def _of_list(value: list[Any], fields: Fields, types: set[str], root: Fields, levels: int) -> Any:
    known = fields.get("properties")
    if types == {"object"} and isinstance(known, dict) and len(cast("Fields", known)) == 1:
        [(name, inner)] = cast("Fields", known).items()
        return {name: _fit(value, inner, root, levels - 1)}
    return [_fit(each, fields.get("items"), root, levels - 1) for each in value]
