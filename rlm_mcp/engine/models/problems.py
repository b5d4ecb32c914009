"""Errors as providers write them down: in fields of every shape, in each other, in plain text."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from rlm_mcp.engine.models.waits import seconds_of, told_in_headers, told_in_words
from rlm_mcp.errors import ModelReplyError

QUOTED_CHARS = 500
_MAX_DEPTH = 6
_INNER = (
    *("error", "errors", "message", "detail", "details", "metadata", "raw", "innererror"),
    *("cause", "base_resp", "fault", "fieldViolations", "parameters"),
)
_TEXTS = (
    *("message", "msg", "status_msg", "error_msg", "error_message", "error_description"),
    *("faultstring", "description", "title", "reason"),
)
_CODES = ("code", "type", "status", "reason", "error_type", "error_code", "errorcode")
_PARAMETERS = ("param", "parameter")
_NAME = re.compile(r"[A-Za-z_]\w*")
_NO_LETTERS = re.compile(r"[^a-z]")
_TAGS = re.compile(r"<[^<>]*>|\s+")

# Fields that tell a wait, by their letters alone, with the seconds that their unit has.
_WAITS = {
    "retryafter": 1.0,
    "retryafterseconds": 1.0,
    "retryaftersecs": 1.0,
    "retryafterms": 0.001,
    "retryinseconds": 1.0,
    "resetafter": 1.0,
    "resetinseconds": 1.0,
    "resetsinseconds": 1.0,
    "waitseconds": 1.0,
    "waittime": 1.0,
    "estimatedtime": 1.0,
}

# What kinds of error call themselves where there is no HTTP status.
_STATUS_OF_CODE = {
    "invalid_request_error": 400,
    "invalid_argument": 400,
    "bad_request": 400,
    "authentication_error": 401,
    "unauthenticated": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "resource_exhausted": 429,
    "api_error": 500,
    "unavailable": 503,
    "overloaded_error": 529,
}


class NoChoicesError(ModelReplyError):
    """An answer holds neither a reply nor an error, as where a filter stopped the prompt."""


@dataclass(frozen=True)
class Problem:
    """What an error body says.

    Args:
        message: all that it says in words, shortened.
        codes: what it calls itself, in lower case.
        parameter: of the request, that it is about; its place, where it is inside another.
        status: an HTTP status in the body; None where there is none.
        wait_seconds: what it asks to wait.
    """

    message: str
    codes: frozenset[str] = frozenset()
    parameter: str = ""
    status: int | None = None
    wait_seconds: float | None = None

    @classmethod
    def of(cls, body: object) -> Problem:
        """Read a decoded body, or a text."""
        parts = list(_parts(body, 0))
        texts = list(dict.fromkeys(text for part in parts for text in _texts(part)))
        message = ": ".join(texts) or _shown(body)
        codes = frozenset(code for part in parts for code in _codes(part))
        return cls(
            shortened(message),
            codes,
            next((name for part in parts for name in _parameters(part)), ""),
            _status(parts, codes),
            _wait(parts, message),
        )

    @property
    def bare_codes(self) -> frozenset[str]:
        """The letters of the codes."""
        return frozenset(_NO_LETTERS.sub("", code) for code in self.codes)

    def is_about(self, name: str) -> bool:
        """Whether the parameter that is named is this one, or inside it."""
        return name in _NAME.findall(self.parameter)


def shortened(text: str) -> str:
    """Quote a text up to a limit."""
    return text if len(text) <= QUOTED_CHARS else f"{text[:QUOTED_CHARS]}…"


def _parts(body: object, depth: int) -> Iterator[Mapping[str, Any] | str]:
    """Walk through an error and those inside it, from the outermost on."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(body, str):
        inner = _as_json(body)
        if inner is not None:  # the error of whoever is behind a proxy
            yield from _parts(inner, depth + 1)
        elif body.strip():
            yield _without_tags(body)
    elif isinstance(body, list):
        for one in cast("list[object]", body)[:10]:
            yield from _parts(one, depth + 1)
    elif isinstance(body, Mapping):
        fields = cast("Mapping[str, Any]", body)
        yield fields
        for name in _INNER:
            inner = fields.get(name)
            if inner and not (name == "message" and isinstance(inner, str)):
                yield from _parts(inner, depth + 1)


def _texts(part: Mapping[str, Any] | str) -> Iterator[str]:
    if isinstance(part, str):
        yield part
        return
    for name in _TEXTS:
        text = part.get(name)
        if isinstance(text, str) and text.strip():
            inner = _as_json(text)
            yield Problem.of(inner).message if inner is not None else text.strip()


def _codes(part: Mapping[str, Any] | str) -> Iterator[str]:
    if isinstance(part, str):
        return
    for name in _CODES:
        code = part.get(name)
        if isinstance(code, str) and code and not code.isdigit():
            yield code.lower()


def _parameters(part: Mapping[str, Any] | str) -> Iterator[str]:
    if isinstance(part, str):
        return
    for name in _PARAMETERS:
        if isinstance(part.get(name), str) and part[name]:
            yield part[name]
    place = part.get("loc")  # of FastAPI: ["body", "temperature"]
    if isinstance(place, list) and place:
        yield ".".join(map(str, cast("list[object]", place)))


def _status(parts: list[Mapping[str, Any] | str], codes: frozenset[str]) -> int | None:
    for part in parts:
        for name in ("code", "status", "status_code", "statusCode"):
            value = "" if isinstance(part, str) else str(part.get(name, ""))
            if value.isdigit() and 400 <= int(value) < 600:
                return int(value)
    return next((_STATUS_OF_CODE[code] for code in sorted(codes) if code in _STATUS_OF_CODE), None)


def _wait(parts: list[Mapping[str, Any] | str], message: str) -> float | None:
    for part in parts:
        if isinstance(part, str):
            continue
        delay = part.get("retryDelay")  # of google.rpc.RetryInfo
        if isinstance(delay, str) and (seconds := seconds_of(delay)) is not None:
            return seconds
        for name, value in part.items():
            unit = _WAITS.get(_NO_LETTERS.sub("", name.lower()))
            if unit is not None and (seconds := _number(value)) is not None:
                return seconds * unit
        headers = part.get("headers")  # of whoever is behind OpenRouter
        if isinstance(headers, Mapping):
            named = cast("Mapping[str, object]", headers).items()
            told = told_in_headers({name.lower(): str(value) for name, value in named})
            if told is not None:
                return told
    return told_in_words(message)


def _number(value: object) -> float | None:
    """Read a number that is not below 0, also one in a text."""
    number = math.nan
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        with suppress(ValueError):
            number = float(value)
    return number if 0 <= number < math.inf else None


def _as_json(text: str) -> object:
    if text.lstrip()[:1] not in {"{", "["}:
        return None
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    return None


def _shown(body: object) -> str:
    return body if isinstance(body, str) else json.dumps(body)


def _without_tags(text: str) -> str:
    return _TAGS.sub(" ", text).strip() if "<" in text else text.strip()
