"""Finals behind words: at the end of a sentence, or below a heading. Pure.

They are heard only in a reply that has nothing else in it: no code, and no final on a line of its
own.
"""

from __future__ import annotations

import re

from rlm_mcp.engine.parsing.finals import FoundFinal, is_placeholder, read_final

_CALL = re.compile(r"\bFINAL(?:[_ ]?(?:VAR|ANSWER))?[*_`]*\(", re.IGNORECASE)
_HEADING = re.compile(
    r"^[ \t]*(?:(?:#{1,6}[ \t]*[*_]*|[*_]{2})(?i:(?:the |my )?final answer)"
    r"|FINAL[ _]ANSWER)[*_]*[ \t]*\n(?P<body>.+)\Z",
    re.DOTALL | re.MULTILINE,
)
# "The final answer is **42**." with its value set apart, or a number.
_SAID = re.compile(
    r"\b(?:the|my) final answer is[: ]*(?P<mark>\*\*|\"|`|)"
    r"(?P<body>[^*\"`\n]+?)(?P=mark)[.!]?\s*\Z",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[-+$€£]?\d[\d.,]*[ ]?%?")
_BOUNDS = ".!?:;,，。：—–-→>*_`\"'“(|"
# What speaks of a call rather than making it.
_SPOKEN_OF = re.compile(
    r"\b(?:not|never|can|could|should|would|will|may|must|to|use|using|call|calling|by|with|via"
    r"|then|once|when|if|or|instead|example|e\.g|format|form|write|i'll|let me)\b",
    re.IGNORECASE,
)
_REST = re.compile(r"(?:[\s*_`~.!;,\"'”)|。]|</\w+>)*")
_ONLY_BLOCK = re.compile(r"\s*```\w*[ \t]*\n(?P<body>[^`]*)\n[ \t]*```\s*")
_TAGS = re.compile(r"<[^<>\n]*>")
_SENTENCE_ENDS = re.compile(r"(?<=[.!?。])\s+|\n")


def read_late_final(text: str) -> FoundFinal | None:
    """Read a final that ends a reply, behind words on its line or below a heading."""
    only = _ONLY_BLOCK.fullmatch(text)
    if "```" in text and only is None:
        return None  # what stands in a block may be an example
    return _behind_words(only["body"] if only else text) or _below_heading(text) or _said(text)


def _behind_words(text: str) -> FoundFinal | None:
    calls = list(_CALL.finditer(text))
    for call in reversed(calls[-3:]):
        found = read_final(text[call.start() :])
        if found is None or found.kind not in {"text", "variable"} or not found.closed:
            continue
        rest = text[call.start() + found.length :]
        before = text[text.rfind("\n", 0, call.start()) + 1 : call.start()]
        if _REST.fullmatch(rest) and _introduces(before):
            return found
    return None


def _introduces(before: str) -> bool:
    """Whether the words before a call on its line make it, and do not speak of it."""
    words = _TAGS.sub(" ", before).strip()
    sentence = _SENTENCE_ENDS.split(words)[-1]
    if not any(map(str.isalnum, sentence)) or words[-1] in ".!?。":
        return True
    if _SPOKEN_OF.search(sentence):
        return False
    return sentence[-1] in _BOUNDS or bool(re.search(r"\b(?:is|are|answer|result)$", sentence))


def _below_heading(text: str) -> FoundFinal | None:
    heading = _HEADING.search(text)
    body = heading["body"].strip() if heading else ""
    if not body or "```" in body or is_placeholder(body):
        return None
    plain = re.fullmatch(r"\*\*([^*\n]+)\*\*", body)
    return FoundFinal("text", plain[1] if plain else body, len(text))


def _said(text: str) -> FoundFinal | None:
    said = _SAID.search(text)
    body = said["body"].strip() if said else ""
    if said is None or not body or is_placeholder(body):
        return None
    is_apart = bool(said["mark"]) or _NUMBER.fullmatch(body) is not None
    return FoundFinal("text", body, len(text)) if is_apart else None
