"""What is wrong with a setting, in words that show no secret."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from rlm_mcp.engine.models.tables import ModelTable
from rlm_mcp.text import nearest, without_credentials

PREFIX = "RLM_MCP_"
# What a setting with a pattern must be, in words.
_FORMS = {
    "docker_image": "the name of an image, such as python:3.13-slim",
    "ray_address": "HOST:PORT, such as 127.0.0.1:6379",
}


def unknown_names(names: Collection[str], known: Collection[str]) -> Iterator[str]:
    """Describe variables that name none of the known settings, with the nearest that does."""
    variables = [PREFIX + name.upper() for name in known]
    for name in names:
        if name not in variables:
            yield f"{name} is not a setting" + _did_you_mean(name, variables)


def problem_of(
    found: Mapping[str, Any],
    shown: Collection[str],
    known: Collection[str],
    also: Mapping[str, str],
) -> str:
    """Describe what pydantic found wrong, by the name of the variable.

    Args:
        found: one of the errors of a `ValidationError`.
        shown: the settings whose values may be quoted.
        known: all settings.
        also: variables of other programs that set one of them.
    """
    field, *inner = map(str, found["loc"])
    variable = also.get(field, PREFIX + field.upper())
    name = variable + "".join(f"[{part}]" for part in inner)
    if found["type"] == "extra_forbidden" and inner:
        near = _did_you_mean(inner[-1], ModelTable.model_fields)
        return f"{name} is not a field of a model's table{near}"
    if found["type"] == "extra_forbidden":
        lower_case = f"{field} is not a setting; write it in lower case, as {field.lower()}"
        return next(unknown_names([name], known), lower_case)
    # An unknown name may be a misspelt secret, so its value is not shown either.
    value = f"={_shown(found['input'])!r}" if field in shown else ""
    said: str = found["msg"].removeprefix("Value error, ")
    if found["type"] == "string_pattern_mismatch":
        said = f"it must be {_FORMS[field]}"
    return f"{name}{value}: {said[:1].lower()}{said[1:]}"


def _did_you_mean(name: str, known: Collection[str]) -> str:
    return "".join(f"; did you mean {near}?" for near in nearest(name, known))


def _shown(value: object) -> object:
    """Return a value as it may be quoted: an address without its name and password."""
    if isinstance(value, str) and ("@" in value or "://" in value):
        return without_credentials(value)
    return value
