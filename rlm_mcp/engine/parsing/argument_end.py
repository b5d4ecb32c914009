"""Where the argument of a final outside code ends: by what makes sense of the whole reply."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rlm_mcp.engine.parsing.python_source import parse_arguments

_WIDE = str.maketrans("（）", "()")
# [0, 10) and ]0, 1) close no parenthesis, nor do \left( and \right).
_HALF_OPEN = re.compile(r"[\[\]][^\[\]()\n]{1,60}[,;][^\[\]()\n]{1,60}$")
_OPEN_LEFT = re.compile(r"[^\[\]()\n]{1,60}[,;][^\[\]()\n]{1,60}\]")
_LATEX_SIZE = re.compile(r"\\(?:left|right|[bB]igg?[lr]?)[ ]?$")
_LINE_REST = re.compile(r"[^\n]*")
_ONLY_MARKS = re.compile(r"^[\s*_`~.]*$")
_LIST_MARK = re.compile(r"(?:^|[\s:;,.])(\d{1,2}|[a-zA-Z])$")
# A default, as in `args=()`, is not a smiley.
_FACE = re.compile(r"(?:[:;]|(?<![\w\])])=)['\-]?$")
_LITERAL_START = re.compile(r"\s*(?:\w+\s*=\s*)?[rRfFbBuU]{0,2}[\"']")
_GOES_ON = re.compile(r"[ \t]+\S|[()]")
_QUOTED = re.compile(r"\"[^\"\n]*\"|(?<!\w)'[^'\n]*'(?!\w)")
_LAST_PARENTHESIS = re.compile(r"(?P<last>[)）])[*_.]*`?[*_.]*$")
_ALONE = re.compile(r"^[ \t]*[)）][\s*_`~.]*$", re.MULTILINE)
_MAX_TRIES = 100


def has_another_end(body: str, length: int) -> bool:
    """Whether there is an unmatched `)` behind, which may be the end instead.

    It stands in the rest of the line, or alone on a line of the same paragraph.
    """
    if _LITERAL_START.match(body):
        return False
    if _ALONE.search(body[length + 1 :].split("\n\n", 1)[0]):
        return True
    rest = _LINE_REST.match(body.translate(_WIDE), length + 1)
    depth = 0
    for character in re.sub(r"[:;=8][-^']?[()]", "", rest[0] if rest else ""):
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return True
    return False


def argument_length(body: str) -> int | None:
    """Find the parenthesis that closes the argument; None when there is none.

    Strictness falls step by step: a Python literal, then plain balance that ends where the text
    does, then text whose faces and list marks, as in "1) first 2) then", are text and not
    parentheses, then plain balance wherever it ends, at last without quotes. Wide parentheses
    count as plain ones.
    """
    body = body.translate(_WIDE)
    if ")" not in body:
        return None
    if _LITERAL_START.match(body):
        length = _literal_length(body)
        if length is not None:
            return length
    for quotes in (True, False):
        length = _balanced_length(body, quotes=quotes, marks=False)
        if length is not None and _ends_with(body, length):
            return length
    for quotes in (True, False):
        length = _balanced_length(body, quotes=quotes, marks=True)
        if length is not None and _is_plausible(body, length):
            return length
    for quotes in (True, False):
        length = _balanced_length(body, quotes=quotes, marks=False)
        if length is not None:
            return length
    return _unbalanced_length(body)


def _unbalanced_length(body: str) -> int | None:
    """End where the paragraph ends with a parenthesis.

    It may close the argument, or one in it when the last was forgotten; kept, it harms least.
    """
    paragraph = body.split("\n\n", 1)[0].rstrip()
    end = _LAST_PARENTHESIS.search(paragraph, max(0, len(paragraph) - 10))
    return end.end("last") if end else None


def _literal_length(body: str) -> int | None:
    for count, match in enumerate(re.finditer(r"\)", body)):
        if count >= _MAX_TRIES:
            return None
        call = parse_arguments(body[: match.start()])
        if call is not None:
            return match.start()
    return None


def _ends_with(body: str, length: int) -> bool:
    """Whether the paragraph ends with the argument, so that no other parenthesis can close it."""
    return bool(_ONLY_MARKS.match(body[length + 1 :].split("\n\n", 1)[0]))


def _is_plausible(body: str, length: int) -> bool:
    """Text over several lines ends where a line ends."""
    rest = _LINE_REST.match(body, length + 1)
    return "\n" not in body[:length] or bool(rest and _ONLY_MARKS.match(rest[0]))


def _balanced_length(body: str, *, quotes: bool, marks: bool) -> int | None:
    depth = listed = 0
    for index, parenthesis in _parentheses(body, quotes=quotes):
        before = body[max(0, index - 4) : index]
        if marks and _FACE.search(before) and _goes_on(body, index):
            continue
        if marks and _is_notation(body, index, parenthesis):
            continue
        if parenthesis == "(":
            depth += 1
        elif depth:
            depth -= 1
        elif marks and _is_list_mark(before, listed + 1) and _goes_on(body, index):
            listed += 1
        else:
            return index
    return None


def _is_notation(body: str, index: int, parenthesis: str) -> bool:
    """Whether a parenthesis belongs to mathematical notation that does not balance."""
    before = body[max(0, index - 130) : index]
    if before.endswith("\\") or _LATEX_SIZE.search(before):
        return True
    if parenthesis == "(":
        return _OPEN_LEFT.match(body, index + 1) is not None
    is_last = ")" not in body[index + 1 :]
    return not is_last and _HALF_OPEN.search(before) is not None


def _parentheses(body: str, *, quotes: bool) -> Iterator[tuple[int, str]]:
    pattern = rf"{_QUOTED.pattern}|[()]" if quotes else r"[()]"
    for match in re.finditer(pattern, body):
        if match[0] in "()":
            yield match.start(), match[0]


def _goes_on(body: str, index: int) -> bool:
    """Whether more text follows the parenthesis on its line."""
    return _GOES_ON.match(body, index + 1) is not None


def _is_list_mark(before: str, number: int) -> bool:
    match = _LIST_MARK.search(before)
    if match is None:
        return False
    mark = match[1]
    return int(mark) == number if mark.isdecimal() else ord(mark.lower()) - 96 == number
