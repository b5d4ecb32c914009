"""Schemas shortened to save room in a model's window: all the names, little else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

Schema = dict[str, Any]
_BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}


def input_outline(schema: Schema) -> Schema:
    """Shorten a schema of arguments; it still accepts everything that it did.

    Left out: generated titles, the docstrings of groups, nulls that mean "not given", and defaults
    and bounds, which the descriptions name (hosts drop these keywords, but no description).
    """
    definitions: Mapping[str, Schema] = schema.get("$defs", {})
    fields = cast("Schema", _lean(schema["properties"], is_names=True))
    rest = {"required": schema["required"]} if "required" in schema else {}
    properties = {name: _argument(field, definitions) for name, field in fields.items()}
    for field in properties.values():
        if "description" in field:
            field.pop("default", None)
    return {"type": "object", "properties": properties, **rest}


def output_outline(schema: Schema) -> Schema:
    """Shorten a schema of results; it still accepts everything that is sent.

    Fields keep their types, entries of lists the names of their fields; anything deeper becomes an
    object. A schema that is open to more fields keeps only the names of its counts, flags and
    groups.
    """
    fields = cast("Schema", _lean(schema["properties"], is_names=True))
    properties = {name: _outlined(field, schema.get("$defs", {})) for name, field in fields.items()}
    for name, field in schema["properties"].items():
        if "default" in field:  # left out where it does not apply, never null
            properties[name] = _without_null(properties[name])
    if not schema.get("additionalProperties"):
        return {"type": "object", "properties": properties}
    plain = [name for name, field in properties.items() if _is_plain(field)]
    rest = {name: field for name, field in properties.items() if name not in plain}
    always = [name for name in plain if "default" not in schema["properties"][name]]
    required = {"required": always} if always else {}
    return {"type": "object", "properties": rest, **required, "additionalProperties": True}


def _argument(field: Schema, definitions: Mapping[str, Schema]) -> Schema:
    match field:
        case {"anyOf": [{"$ref": str(path)}, {"type": "null"}], **rest}:
            group = input_outline(definitions[path.rpartition("/")[2]])
            return {**group, **rest}
        case {"anyOf": [{"enum": values}, {"type": "null"}], **rest}:
            return {"enum": values, **rest}
        case _:
            return _without_null(field)


def _outlined(field: Schema, definitions: Mapping[str, Schema]) -> Schema:
    match field:
        case {"$ref": str()}:
            return {"type": "object"}
        case {"anyOf": [{"$ref": str()}, {"type": "null"}]}:
            return {"type": ["object", "null"]}
        case {"items": {"$ref": str(path)}, **rest}:
            names = list(definitions[path.rpartition("/")[2]]["properties"])
            return {**rest, "items": {"type": "object", "required": names}}
        case {"enum": _, "type": kind}:
            return {"type": kind}
        case _:
            return field


def _lean(schema: Any, *, is_names: bool = False) -> Any:
    if isinstance(schema, list):
        return [_lean(item) for item in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    fields = cast("Schema", schema)
    lean = {
        key: _lean(value, is_names=key in {"properties", "$defs"})
        for key, value in fields.items()
        if is_names or not _says_nothing(key, value, fields)
    }
    return _folded(lean)


def _says_nothing(key: str, value: Any, beside: Schema) -> bool:
    is_of_a_group = key == "description" and "properties" in beside
    is_not_given = key == "default" and value in (None, "", [], False)
    is_usual = key == "additionalProperties" and value is True
    return key == "title" or key in _BOUNDS or is_of_a_group or is_not_given or is_usual


def _folded(schema: Schema) -> Schema:
    """Fold a choice between one type and null into a list of types."""
    match schema:
        case {"anyOf": [{"type": str(kind), **rest}, {"type": "null"}], **beside}:
            return {"type": [kind, "null"], **rest, **beside}
        case _:
            return schema


def _without_null(field: Schema) -> Schema:
    match field:
        case {"type": [str(kind), "null"], **rest}:
            return {"type": kind, **rest}
        case _:
            return field


def _is_plain(field: Schema) -> bool:
    return _without_null(field).get("type", "object") in {"integer", "number", "boolean", "object"}
