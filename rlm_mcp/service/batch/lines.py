"""The questions of a batch: one JSON object a line, and what is wrong with a bad line. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from rlm_mcp.errors import InvalidInputError
from rlm_mcp.service.batch.scores import SCORE_NAMES


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


def read_lines(text: Iterable[str]) -> tuple[list[BatchLine], list[BadLine]]:
    """Read the lines of a batch; empty ones are skipped."""
    good: dict[str, BatchLine] = {}
    bad: list[BadLine] = []
    for number, raw in enumerate(text, start=1):
        if not raw.strip():
            continue
        try:
            line = _line(raw)
        except _BadLineError as error:
            bad.append(BadLine(number, str(error)))
            continue
        if line.id in good:
            bad.append(BadLine(number, f"id {line.id!r} was used before"))
        else:
            good[line.id] = line
    return list(good.values()), bad


def _line(raw: str) -> BatchLine:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _BadLineError(f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise _BadLineError("not a JSON object")
    return _of_fields(cast("dict[str, Any]", found))


def line_of(fields: Mapping[str, Any]) -> BatchLine:
    """Return the question that has these fields.

    Raises:
        InvalidInputError: one of them is missing, unknown or of another kind.
    """
    try:
        return _of_fields(fields)
    except _BadLineError as error:
        raise InvalidInputError(
            f"A question of the batch cannot be asked: {error}.",
            fix="Give id and question, and if wanted contexts, expected, score, answer_schema "
            "and budget.",
        ) from error


def _of_fields(fields: Mapping[str, Any]) -> BatchLine:
    unknown = sorted(fields.keys() - BatchLine.__dataclass_fields__.keys())
    if unknown:
        raise _BadLineError(f"unknown key {unknown[0]!r}")
    id_, question = fields.get("id"), fields.get("question")
    if not isinstance(id_, str | int) or not str(id_):
        raise _BadLineError("id is missing, or neither text nor a whole number")
    if not isinstance(question, str) or not question.strip():
        raise _BadLineError("question is missing or empty")
    _check_kinds(fields)
    return BatchLine(
        id=str(id_),
        question=question,
        contexts=tuple(fields.get("contexts") or ()),
        expected=_expected(fields.get("expected")),
        score=fields.get("score") or "",
        answer_schema=fields.get("answer_schema"),
        budget=fields.get("budget") or {},
    )


def _expected(value: object) -> str | None:
    """Return the expected answer as text: what is none, as the JSON that a typed answer is."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _check_kinds(fields: Mapping[str, Any]) -> None:
    contexts = cast("object", fields.get("contexts") or [])
    is_list = isinstance(contexts, list)
    if not is_list or not all(isinstance(one, str) for one in cast("list[Any]", contexts)):
        raise _BadLineError("contexts is not a list of names")
    for name in ("answer_schema", "budget"):
        if not isinstance(fields.get(name) or {}, dict):
            raise _BadLineError(f"{name} is not an object")
    score = fields.get("score")
    if score and score not in SCORE_NAMES:
        raise _BadLineError(f"unknown score {score!r}; there are {', '.join(SCORE_NAMES)}")
