"""Finals without parentheses: `FINAL[42]`, `FINAL 42`, and an answer below a heading. Pure.

They are heard only at the end of a reply that has nothing else in it: no code, no other final.
"""

from __future__ import annotations

import re
from dataclasses import replace

from rlm_mcp.engine.parsing.finals import (
    LABELS,
    FoundFinal,
    is_placeholder,
    opens_final,
    read_final,
)

_MARKS = r"^(?:[#>*+•~`_ \t-]|Action(?: \d+)?:)*"
_WORD = r"(?:(?P<var>FINAL[_ .-]?VAR)|FINAL(?:[_ ]ANSWER)?|F(?:inish|INISH)(?=\[))"
_BRACKET = re.compile(rf"{_MARKS}{_WORD}[*_`]*(?P<gap>[ \t]*)(?=[\[{{<])", re.MULTILINE)
_BEHIND = re.compile(
    rf"(?P<marks>{_MARKS}){_WORD}[*_`]*(?P<dash>[ \t]+[-—–])?[ \t]+(?P<given>\S.*)"
)
_APART = re.compile(r"(?P<mark>\*\*|__|\"|'|`)(?P<inner>[^\n]+)(?P=mark)[.!]?")
_NUMBER = re.compile(r"[-+]?[$€£]?[-+]?\d[\d.,:/_ -]*(?:[eE][-+]?\d+)?[ ]?%?")
_NAME = re.compile(r"[*_`\"' ]*(?P<name>[A-Za-z_]\w*)[*_`\"' .]*")
# A line that names the answer, with the answer on the lines below.
_HEADING = re.compile(
    r"^[ \t]*(?:(?:#{1,6}[ \t]*[*_]*|[*_]{2})(?i:(?:the |my )?final answer"
    rf"|{LABELS})|FINAL(?:(?P<var>_VAR)|[ _]ANSWER)?|[*_]{{2}}FINAL|#{{1,6}} FINAL)"
    r"[*_:： \t]*\n(?P<body>.+)\Z",
    re.DOTALL | re.MULTILINE,
)
_LABEL_ABOVE = re.compile(
    r"^[ \t#>*_]*(?:FINAL(?:[_ ]ANSWER)?|(?i:(?:the |my )?final answer(?: is)?"
    rf"|{LABELS}))[*_:： \t]*\n(?P<body>\s*(?:```|~~~).*)\Z",
    re.DOTALL | re.MULTILINE,
)
_FENCE = re.compile(r"(?:```|~~~)[ \t]*\w*[ \t]*")
_NAMED_FENCE = re.compile(
    r"^(?:```|~~~)[ \t]*(?:final(?P<var>[_-]?var)?(?:[_-]?answer)?|answer)[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_ODD_NAME = re.compile(r"FINAL[.-]VAR\([^()\n]*\)\s*\Z")
_MOST_WORDS = 12
_PAIRS = {"[": "]", "{": "}", "<": ">"}


def is_bare_final(text: str) -> bool:
    """Whether a text is nothing but a final that parses as other Python too: `FINAL[42]`."""
    return _in_brackets(text.strip()) is not None or _ODD_NAME.match(text) is not None


def read_bare_final(text: str) -> FoundFinal | None:
    """Read a final without parentheses that ends a reply.

    Its extent is certain where it can be read in one way alone.
    """
    return _in_brackets(text) or _behind_word(text) or _below_heading(text)


def read_fenced_answer(text: str) -> FoundFinal | None:
    """Read the answer in a block that ends a reply: named so itself, or by the line above it."""
    named = _NAMED_FENCE.search(text)
    label = None if named else _LABEL_ABOVE.search(text)
    block = text[named.start() :] if named else label["body"] if label else ""
    lines = block.strip().split("\n")
    if not _FENCE.fullmatch(lines[0]) or lines[-1].strip() not in {"```", "~~~"}:
        return None
    body = "\n".join(lines[1:-1]).strip()
    if not body or "```" in body or "~~~" in body or is_placeholder(body):
        return None
    if named and named["var"]:
        return _as_called("var", body)
    return read_final(body) if opens_final(body) else FoundFinal("text", body, len(text))


def _in_brackets(text: str) -> FoundFinal | None:
    for opening in list(_BRACKET.finditer(text))[-1:-4:-1]:
        given = text[opening.end() :].rstrip(" \t\n*_`~.")
        if not _is_one_pair(given) or is_placeholder(given):
            continue
        inner = given[1:-1].strip()
        may_be_its_own = bool(opening["gap"]) or (given[0] != "<" and re.search(r"[,:]", inner))
        found = _as_called(opening["var"], inner)
        return replace(found, is_certain=False) if found and may_be_its_own else found
    return None


def _is_one_pair(given: str) -> bool:
    """Whether the first bracket is closed by the last."""
    depth = 0
    for place, character in enumerate(given, start=1):
        depth += (character == given[0]) - (character == _PAIRS[given[0]])
        if depth == 0:
            return place == len(given)
    return False


def _behind_word(text: str) -> FoundFinal | None:
    """Read `FINAL 42`: a number, or what is set apart, is certain; words of a lone line are not."""
    before, _, line = text.rstrip().rpartition("\n")
    match = _BEHIND.fullmatch(line)
    if match is None or is_placeholder(match["given"]):
        return None
    given = match["given"]
    given = given.rstrip("*_") if "*" in match["marks"] or "_" in match["marks"] else given
    if match["var"]:
        name = _NAME.fullmatch(given)
        return _as_called(match["var"], name["name"]) if name else None
    apart = _APART.fullmatch(given)
    is_number = _NUMBER.fullmatch(given.rstrip(".")) is not None
    if not apart and not is_number:
        is_alone = not before.strip() and len(given.split()) <= _MOST_WORDS
        if not is_alone or re.match(r"(?i:answers?|var|report|final)\b", given):
            return None
    found = _as_called("", apart["inner"] if apart else given.rstrip(".") if is_number else given)
    is_open = (match["dash"] or "").endswith("-") or not (apart or is_number)
    return replace(found, is_certain=False) if found and is_open else found


def _as_called(variable: str | None, argument: str) -> FoundFinal | None:
    call = f"{'FINAL_VAR' if variable else 'FINAL'}({argument})"
    found = read_final(call)
    is_whole = found is not None and found.closed and found.length == len(call)
    return found if found and is_whole and found.kind in {"text", "variable"} else None


def _below_heading(text: str) -> FoundFinal | None:
    heading = _HEADING.search(text)
    body = heading["body"].strip() if heading else ""
    if heading is None or not body or "```" in body or is_placeholder(body):
        return None
    if heading["var"]:
        name = _NAME.fullmatch(body)
        return _as_called("var", name["name"]) if name else None
    plain = re.fullmatch(r"\*\*([^*\n]+)\*\*", body)
    return FoundFinal("text", plain[1] if plain else body, len(text))
