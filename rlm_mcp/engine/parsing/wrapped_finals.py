"""Answers in wrappers that models were trained on: a box, a tag, a JSON object."""

from __future__ import annotations

import json
import re
from typing import cast

from rlm_mcp.engine.parsing.finals import is_placeholder

_BOXED = re.compile(r"\\boxed[ ]?\{")
_TAGGED = re.compile(
    r"<(?P<tag>final|answer|final_answer|result)>(?P<body>.*?)</(?P=tag)>",
    re.DOTALL | re.IGNORECASE,
)
_ANSWER_KEYS = ("final_answer", "final", "answer")
_MAX_BOX_CHARS = 20_000
_JSON_FENCE = re.compile(r"\A```(?:json)?\s*\n|\n\s*```\Z")


def read_wrapped_final(text: str) -> str | None:
    """Read an answer in a wrapper that models were trained on: a box, a tag, a JSON object.

    None where there is none; the last box or tag counts.
    """
    boxes = [_braced(text, match.end()) for match in _BOXED.finditer(text)]
    tagged = [match["body"].strip() for match in _TAGGED.finditer(text)]
    found = next((one for one in (*reversed(boxes), *reversed(tagged)) if one), None)
    found = found or _only_json_answer(text)
    return None if found is None or is_placeholder(found) else found


def _braced(text: str, start: int) -> str | None:
    """Return the text between a brace that was opened before `start` and its end."""
    depth = 1
    for match in re.finditer(r"(?<!\\)[{}]", text[start : start + _MAX_BOX_CHARS]):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            inner = text[start : start + match.start()].strip()
            word = re.fullmatch(r"\\(?:text|mathrm|textbf|mathbf)\{([^{}]*)\}", inner)
            return word[1] if word else inner
    return None


def _only_json_answer(text: str) -> str | None:
    body = _JSON_FENCE.sub("", text.strip())
    if not body.startswith("{"):
        return None
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or len(cast("dict[str, object]", data)) != 1:
        return None
    [(key, value)] = cast("dict[str, object]", data).items()
    if key.lower() not in _ANSWER_KEYS or value is None:
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
