"""Arguments as callers send them, made into those that tools take.

Frameworks that must fill every field send null, an empty value or 0 for what they leave out, and
models ask for more than a page holds. None of that is a mistake that a caller could correct.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

from annotated_types import Ge, Gt, Le
from mcp.server.mcpserver.tools import Tool

from rlm_mcp.errors import InvalidInputError
from rlm_mcp.text import nearest

Arguments = dict[str, Any]
# In these, 0 stands for "the default", and too much is cut to the maximum.
_PAGES = ("limit", "timeout_seconds")
# In these, 0 stands for "not given".
_GROUPS = ("budget",)

# Seconds to wait for a run where the caller does not say, by the name in `clientInfo`.
CALLER_SECONDS: Mapping[str, float] = {
    # Its limit is hours, and progress resets its clock for silence: 5 min over HTTP, 30 over stdio.
    "claude-code": 3600,
    # A call may take 60 s, unless the configuration says otherwise (`install codex` does).
    "codex-mcp-client": 50,
    # It sends no progress token, but waits a minute.
    "Cline": 45,
}
# Hosts with a limit of their own at about a minute, whether or not they show progress.
USUAL_SECONDS = 45.0
# Agent frameworks end a call after 5 to 10 s, and none that asks for no progress waits longer. The
# run's id must reach the model before that.
SILENT_SECONDS = 4.0


class ArgumentRules:
    """What one tool takes: the names, which are required, and the bounds of numbers."""

    def __init__(self, tool: Tool) -> None:
        self._tool = tool.name
        self._names = list(tool.parameters["properties"])
        self._required = frozenset(tool.parameters.get("required", ()))
        fields = tool.fn_metadata.arg_model.model_fields
        self._pages = {
            name: (_bounds(fields[name].metadata), fields[name].default)
            for name in _PAGES
            if name in fields
        }

    def usable(self, given: Mapping[str, Any]) -> tuple[Arguments, list[str]]:
        """Return the arguments to call the tool with, and what was changed in them.

        Raises:
            InvalidInputError: the tool has no argument of some name.
        """
        self._refuse_unknown(given)
        notes: list[str] = []
        arguments = {
            name: value
            for name, value in given.items()
            if name in self._required or value not in (None, "", [], {})
        }
        for name in self._pages.keys() & arguments.keys():
            self._fit(name, arguments, notes)
        for name in arguments.keys() & set(_GROUPS):
            arguments[name] = _group_given(name, arguments[name], notes)
        if isinstance(options := arguments.get("options"), dict):
            fields = cast("Arguments", options)
            arguments["options"] = {
                key: value for key, value in fields.items() if value is not None
            }
        return arguments, notes

    def _fit(self, name: str, arguments: Arguments, notes: list[str]) -> None:
        (_, most), usual = self._pages[name]
        number = _number(arguments[name])
        if number == 0:
            del arguments[name]
            notes.append(f"{name}=0 was taken as the default, {usual}.")
        elif number is not None and most is not None and number > most:
            arguments[name] = most
            notes.append(f"{name}={arguments[name]} is the maximum; {number:g} was asked for.")

    def _refuse_unknown(self, given: Iterable[str]) -> None:
        unknown = sorted(set(given) - set(self._names))
        if unknown:
            near = nearest(unknown[0], self._names)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise InvalidInputError(
                f"{self._tool} has no argument {unknown[0]!r}.",
                fix=f"{hint}It takes: {', '.join(self._names)}. Nothing was changed.",
            )


def usual_wait(client: str, *, has_progress: bool) -> float:
    """Seconds to wait for a caller that gave no `wait_seconds`.

    Args:
        client: its name; empty where it gave none.
        has_progress: whether it asked for progress.
    """
    default = USUAL_SECONDS if has_progress else SILENT_SECONDS
    return CALLER_SECONDS.get(client, default)


def _group_given(group: str, value: Any, notes: list[str]) -> Any:
    """Drop the fields of a group that are null or 0; what is not a group is left to validation."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    if not isinstance(value, dict):
        return value
    fields = cast("Arguments", value)
    zeros = [name for name, one in fields.items() if _number(one) == 0]
    if zeros:
        named = ", ".join(f"{group}.{name}" for name in zeros)
        notes.append(f"{named}: 0 was taken as not given, so the default holds.")
    return {
        name: one for name, one in fields.items() if one not in (None, "") and name not in zeros
    }


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _bounds(metadata: Iterable[object]) -> tuple[Any, Any]:
    least = most = None
    for rule in metadata:
        match rule:
            case Ge(ge=least) | Gt(gt=least):
                pass
            case Le(le=most):
                pass
            case _:
                pass
    return least, most
