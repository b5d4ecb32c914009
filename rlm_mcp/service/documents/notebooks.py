"""Reads notebooks of any format into one that the parser of notebooks knows. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, cast

from rlm_mcp.service.documents.decoding import decoded

_HEADINGS = 6
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# What is shown of a result that came in several forms, the plainest first.
_FORMS = ("text/plain", "text/markdown", "text/latex", "text/html", "application/json")
_PAGE = "text/html"
# The forms as they were named before format 4.
_OLD_FORMS = {
    "text": "text/plain",
    "latex": "text/latex",
    "html": _PAGE,
    "json": "application/json",
}


PageText = Callable[[str], str]


class NotANotebookError(Exception):
    """The bytes are no notebook; its message says why, in a few words."""


def notebook(data: bytes, page_text: PageText) -> bytes:
    """Return a notebook of format 4, whatever its format is; cells that are malformed become text.

    Args:
        data: the file.
        page_text: makes text of HTML, for results that have no plainer form.

    Raises:
        NotANotebookError: it is none.
    """
    try:
        whole: Any = json.loads(decoded(data))
    except (ValueError, RecursionError) as error:
        raise NotANotebookError("it is not JSON") from error
    cells = list(_cells(whole))
    if not cells:
        raise NotANotebookError("it has no cells")
    metadata: Any = whole.get("metadata")
    upgraded: dict[str, Any] = {
        "cells": [_cell(cell, page_text) for cell in cells],
        "metadata": metadata if isinstance(metadata, dict) else {},
        "nbformat": 4,
        "nbformat_minor": 4,
    }
    return json.dumps(upgraded).encode()


def _cells(whole: Any) -> Iterator[Any]:
    """Yield the cells; before format 4 they were in worksheets."""
    if not isinstance(whole, dict):
        return
    fields = cast("dict[str, Any]", whole)
    for sheet in (fields, *_list(fields.get("worksheets"))):
        if isinstance(sheet, dict):
            yield from _list(cast("dict[str, Any]", sheet).get("cells"))


def _cell(cell: Any, page_text: PageText) -> dict[str, Any]:
    fields = cast("dict[str, Any]", cell) if isinstance(cell, dict) else {"source": cell}
    kind = fields.get("cell_type")
    source = _text(fields.get("source", fields.get("input", "")))
    new: dict[str, Any] = {"metadata": {}, "source": source}
    if kind == "heading":
        level = fields.get("level")
        level = min(level, _HEADINGS) if isinstance(level, int) and level > 0 else 1
        return new | {"cell_type": "markdown", "source": f"{'#' * level} {source}"}
    if kind == "code":
        outputs = [_output(output, page_text) for output in _list(fields.get("outputs"))]
        if not source.strip():  # the parser passes over it
            return new | {"cell_type": "raw", "source": "\n\n".join(outputs)}
        printed = [{"output_type": "stream", "name": "stdout", "text": text} for text in outputs]
        return new | {"cell_type": kind, "execution_count": None, "outputs": printed}
    return new | {"cell_type": "raw" if kind == "raw" else "markdown"}


def _output(output: Any, page_text: PageText) -> str:
    """Return as text what a cell put out."""
    fields = cast("dict[str, Any]", output) if isinstance(output, dict) else {"text": output}
    kind = fields.get("output_type")
    if kind in ("pyerr", "error"):
        words = _COLOURS.sub("", "\n".join(map(_text, _list(fields.get("traceback")))))
        raised = f"{_text(fields.get('ename'))}: {_text(fields.get('evalue'))}"
        return words if raised in words else f"{words}\n{raised}"
    forms = {new: fields[old] for old, new in _OLD_FORMS.items() if old in fields}
    if isinstance(fields.get("data"), dict):
        forms |= fields["data"]
    form = next((one for one in _FORMS if _text(forms.get(one)).strip()), "")
    text = _text(forms.get(form))
    return page_text(text) if form == _PAGE else text


def _list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def _text(value: Any) -> str:
    """Join the lines of a text; anything else is written as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(_text, cast("list[Any]", value)))
    return "" if value is None else json.dumps(value, ensure_ascii=False)
