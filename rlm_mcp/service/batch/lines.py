"""The questions of a batch: one JSON object a line, and what is wrong with a bad line. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from rlm_mcp.errors import InvalidInputError
from rlm_mcp.service.batch.patterns import why_invalid
from rlm_mcp.service.batch.scores import REGEX, SCORE_NAMES
from rlm_mcp.text import preview

_QUOTED_CHARS = 100


@dataclass(frozen=True)
class BatchLine:
    """One question.

    Args:
        id: names it in the results; unique in the batch.
        question: what is asked.
        contexts: names of texts or handles; empty for all texts of the batch.
        expected: the right answer, for its score.
        score: how the answer is compared with it.
        answer_schema: JSON Schema of the answer.
        budget: of this question.
    """

    id: str
    question: str
    contexts: tuple[str, ...] = ()
    expected: str | None = None
    score: str = ""
    answer_schema: Mapping[str, Any] | None = None
    budget: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class BadLine:
    """A line that cannot be asked: its number, from 1, and the reason."""

    number: int
    reason: str


class _BadLineError(Exception):
    """Why a line cannot be asked."""


def read_lines(
    text: Iterable[str | bytes], score: str = ""
) -> tuple[list[BatchLine], list[BadLine]]:
    """Read the lines of a batch; empty ones are skipped.

    Args:
        text: its lines; those that are not decoded yet are in UTF-8.
        score: how answers are compared where a line does not say.
    """
    good: dict[str, BatchLine] = {}
    bad: list[BadLine] = []
    for number, raw in enumerate(text, start=1):
        if not raw.strip():
            continue
        try:
            line = _line(raw)
            _check_id(line, good)
            _check_pattern(line, score)
        except _BadLineError as error:
            bad.append(BadLine(number, str(error)))
            continue
        good[line.id] = line
    return list(good.values()), bad


def _line(raw: str | bytes) -> BatchLine:
    try:
        found = json.loads(raw if isinstance(raw, str) else raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _BadLineError(
            f"not UTF-8: byte {error.object[error.start]:#04x} at position {error.start}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise _BadLineError(f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise _BadLineError(f"not a JSON object: {_quoted(found)}")
    return _of_fields(cast("dict[str, Any]", found))


def line_of(fields: Mapping[str, Any], score: str = "") -> BatchLine:
    """Return the question that has these fields.

    Args:
        fields: as in a line of a file.
        score: how answers are compared where these do not say.

    Raises:
        InvalidInputError: one of them is missing, unknown or of another kind.
    """
    try:
        line = _of_fields(fields)
        _check_pattern(line, score)
    except _BadLineError as error:
        raise InvalidInputError(
            f"A question of the batch cannot be asked: {error}.",
            fix="Give id and question, and if wanted contexts, expected, score, answer_schema "
            "and budget.",
        ) from error
    return line


def _of_fields(fields: Mapping[str, Any]) -> BatchLine:
    known = BatchLine.__dataclass_fields__
    unknown = sorted(fields.keys() - known.keys())
    if unknown:
        raise _BadLineError(f"unknown key {_quoted(unknown[0])}; there are {', '.join(known)}")
    id_, question = fields.get("id"), fields.get("question")
    if not isinstance(id_, str | int) or isinstance(id_, bool) or not str(id_).strip():
        raise _BadLineError(f"id is {_given(id_)}; give text or a whole number")
    if not isinstance(question, str) or not question.strip():
        raise _BadLineError(f"question is {_given(question)}; give text")
    return BatchLine(
        id=str(id_),
        question=question,
        contexts=_contexts(fields.get("contexts")),
        expected=_expected(fields.get("expected")),
        score=_score(fields.get("score")),
        answer_schema=_object("answer_schema", fields.get("answer_schema")),
        budget=_object("budget", fields.get("budget")) or {},
    )


def _expected(value: object) -> str | None:
    """Return the expected answer as text: what is none, as the JSON that a typed answer is."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _contexts(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    is_list = isinstance(value, list | tuple)
    names = cast("Sequence[object]", value) if is_list else [None]
    if not all(isinstance(name, str) and name for name in names):
        raise _BadLineError(f"contexts is {_given(value)}; give a list of names")
    return tuple(map(str, names))


def _score(value: object) -> str:
    if value is not None and value != "" and value not in SCORE_NAMES:
        raise _BadLineError(f"unknown score {_quoted(value)}; there are {', '.join(SCORE_NAMES)}")
    return str(value or "")


def _object(name: str, value: object) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, Mapping):
        raise _BadLineError(f"{name} is {_given(value)}; give an object")
    return cast("Mapping[str, Any] | None", value)


def _check_id(line: BatchLine, good: Mapping[str, BatchLine]) -> None:
    if line.id in good:
        raise _BadLineError(f"id {_quoted(line.id)} was used before")


def _check_pattern(line: BatchLine, score: str) -> None:
    """Refuse a question whose answer no pattern can be looked for in."""
    if line.expected is not None and (line.score or score) == REGEX:
        reason = why_invalid(line.expected)
        if reason:
            raise _BadLineError(f"expected {_quoted(line.expected)} is not a pattern: {reason}")


def _given(value: object) -> str:
    return "missing" if value is None else _quoted(value)


def _quoted(value: object) -> str:
    return preview(repr(value), _QUOTED_CHARS)
