"""Answers in wrappers that models were trained on: a box, a tag, a JSON object."""

from __future__ import annotations

import json
import re
from typing import cast

from rlm_mcp.engine.parsing.finals import BESIDE, is_placeholder

Fields = dict[str, object]

_BOXED = re.compile(r"\\f?box(?:ed)?[ ]?\{")
_TAGGED = re.compile(
    r"[<\[](?P<tag>final|answer|final_answer|result)(?: [^<>\n]{0,200})?[>\]]", re.IGNORECASE
)
_TAGGED_NAME = re.compile(
    r"[<\[]FINAL_?VAR[>\]]\s{0,20}[\"'`]?(?P<name>[A-Za-z_]\w*)[\"'`]?\s{0,20}[<\[]/FINAL_?VAR[>\]]",
    re.IGNORECASE,
)
_JSON_NAME = re.compile(
    r"\{\s*\"(?:FINAL_VAR|final_variable)\"\s*:\s*\"(?P<name>[A-Za-z_]\w*)\"\s*\}", re.IGNORECASE
)
_ANSWER_KEYS = ("final_answer", "final", "answer")
_JSON_BLOCK = re.compile(r"```(?:json)?[ \t]*\n(\{.*?\})\s*```", re.DOTALL)
_MAX_BOX_CHARS = 20_000
# A reply may repeat itself without end, and each of them is looked at to its own end.
_MOST_WRAPPERS = 20
_JSON_FENCE = re.compile(r"\A```(?:json)?\s*\n|(?<=\n)[ \t]*```\Z")


def read_wrapped_final(text: str) -> str | None:
    """Read an answer in a wrapper that models were trained on: a box, a tag, a JSON object.

    None where there is none; the last box or tag counts.
    """
    boxes = [_braced(text, match.end()) for match in _last(_BOXED, text)]
    tagged = [_tagged(text, match) for match in _last(_TAGGED, text)]
    found = next((one for one in (*boxes, *tagged) if one), None)
    found = found or _only_json_answer(text)
    return None if found is None or is_placeholder(found) else found


def read_wrapped_name(text: str) -> str | None:
    """Read the variable named by a tag or by a JSON object; None where there is none."""
    match = _TAGGED_NAME.search(text) or _JSON_NAME.fullmatch(_JSON_FENCE.sub("", text.strip()))
    return match["name"] if match else None


def _last(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    """Return the last places of a pattern, the last one first."""
    return list(pattern.finditer(text))[: -_MOST_WRAPPERS - 1 : -1]


def _tagged(text: str, opening: re.Match[str]) -> str | None:
    """Return the text between a tag and the next that closes it."""
    end = re.compile(rf"[<\[]/{opening['tag']}[>\]]", re.IGNORECASE).search(text, opening.end())
    return text[opening.end() : end.start()].strip() if end else None


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
    """Read the answer in an object that is the whole reply, or its only block."""
    body = _JSON_FENCE.sub("", text.strip())
    if not body.startswith("{"):
        blocks = _JSON_BLOCK.findall(text)
        body = blocks[0] if len(blocks) == 1 else ""
    try:
        data = json.loads(body, strict=False)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    value = _answer_in({str(key).lower(): one for key, one in cast("Fields", data).items()})
    if value is None:
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _answer_in(fields: Fields) -> object:
    """Return the answer among what models write beside it; None where it may be data."""
    if fields.get("ready") is True and set(fields) == {"ready", "content"}:
        return fields["content"]
    keys = [key for key in _ANSWER_KEYS if key in fields]
    others = [key for key in fields if key not in keys]
    if len(keys) != 1 or not all(map(BESIDE.fullmatch, others)):
        return None
    return fields[keys[0]]
