"""Messages of the protocol as clients write them, and the answers to what is none."""

from __future__ import annotations

import json
import re
from typing import Any, cast

from mcp_types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    jsonrpc_message_adapter,
)

from rlm_mcp.server.sendable import sendable
from rlm_mcp.text import preview

# In `_meta` of a call whose arguments held half a surrogate pair: says so to whoever answers it.
HALVES_META_KEY = "rlm-mcp/half-characters"
_SHOWN_CHARS = 80
_ONE = 'Send one object at a time: {"jsonrpc": "2.0", "id": 1, "method": ...}.'
# The id of a message of which only the two ends are known. A quote in a text has a backslash, so
# neither pattern fits what a text says.
_PLAIN = r'(?:"(?:[^"\\]|\\.){0,200}"|-?\d{1,20})'
_OTHERS = rf'(?:\s*"(?:jsonrpc|method)"\s*:\s*{_PLAIN}\s*,)*'
_ID_FIELD = rf'\s*"id"\s*:\s*({_PLAIN})\s*'
_FIRST_FIELDS = re.compile(rf"\s*\{{{_OTHERS}{_ID_FIELD},")
_LAST_FIELDS = re.compile(
    rf"\}}\s*,{_OTHERS}{_ID_FIELD}(?:,\s*\"(?:jsonrpc|method)\"\s*:\s*{_PLAIN}\s*)*\}}\s*\Z"
)


def parse_message(line: str) -> JSONRPCMessage:
    """Read one message; half a surrogate pair in it becomes a `?`, which its `_meta` says.

    Raises:
        ValueError: it is not JSON, or not a message.
        RecursionError: it is nested too deeply.
    """
    value = json.loads(line)
    if has_escaped_halves(line):
        value = _without_halves(value)
    message = jsonrpc_message_adapter.validate_python(value, by_name=False)
    if isinstance(message, JSONRPCNotification) and "id" in value:
        raise ValueError("a request's id is a text or a whole number")  # else it gets no answer
    return message


def has_escaped_halves(line: str) -> bool:
    """Whether JSON may hold halves of surrogate pairs, which can only be written as escapes."""
    return "\\ud" in line or "\\uD" in line


def _without_halves(value: Any) -> Any:
    fit: Any = sendable(value)
    if fit != value and isinstance(fit, dict):
        params: Any = cast("dict[str, Any]", fit).get("params")
        if isinstance(params, dict):
            meta = cast("dict[str, Any]", params).get("_meta")
            params["_meta"] = (meta if isinstance(meta, dict) else {}) | {HALVES_META_KEY: True}
    return cast("Any", fit)


def refusal(line: str) -> JSONRPCError:
    """Return the answer to what is not a message, with its id if it has one."""
    shown = f"The message {preview(line, _SHOWN_CHARS)!r}"
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return _error(PARSE_ERROR, f"{shown} is not JSON: {error}. {_ONE}", None)
    if isinstance(value, list):
        told = f"{shown} is a batch of messages, which is not supported. {_ONE}"
        return _error(INVALID_REQUEST, told, None)
    fields = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    number = fields.get("id")
    if "id" in fields and (isinstance(number, bool) or not isinstance(number, int | str)):
        told = f"{shown} has an id that is neither a text nor a whole number. {_ONE}"
        return _error(INVALID_REQUEST, told, None)
    return _error(INVALID_REQUEST, f"{shown} is none of JSON-RPC 2.0. {_ONE}", number)


def refusal_of_long(begin: str, end: str, most: str, instead: str) -> JSONRPCError:
    """Return the answer to a message that was not read, with its id where it is at either end.

    Args:
        begin: what the message begins with.
        end: what it ends with, if that is known.
        most: how long it may be.
        instead: what to do in its place.
    """
    found = _FIRST_FIELDS.match(begin) or _LAST_FIELDS.search(end)
    told = f"The message has more than {most}; it was not read. {instead}"
    return _error(INVALID_REQUEST, told, json.loads(found[1]) if found else None)


def _error(code: int, message: str, number: int | str | None) -> JSONRPCError:
    error = ErrorData(code=code, message=message)
    return JSONRPCError(jsonrpc="2.0", id=sendable(number), error=error)
