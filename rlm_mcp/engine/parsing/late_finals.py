"""Finals behind words, at the end of a sentence. Pure.

They are heard only in a reply that has nothing else in it: no code, and no final on a line of its
own.
"""

from __future__ import annotations

import re

from rlm_mcp.engine.parsing.bare_finals import read_bare_final, read_fenced_answer
from rlm_mcp.engine.parsing.finals import FoundFinal, is_placeholder, read_final

_CALL = re.compile(r"\bFINAL(?:[_ ]?(?:VAR|ANSWER))?[*_`]*\(", re.IGNORECASE)
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
# The last are how a sentence ends in Japanese and in Korean.
_REST = re.compile(r"(?:[\s*_`~.!;,\"'”)|。]|</\w+>|です|でした|だ|입니다)*")
_ONLY_BLOCK = re.compile(r"\s*```\w*[ \t]*\n(?P<body>[^`]*)\n[ \t]*```\s*")
_COPULA = re.compile(
    r"(?:\b(?:is|are|answer|result|est|es|é|è|ist|lautet|antwoord|odpowiedź|ответ)|[是为為はは은는])$",
    re.IGNORECASE,
)
_TAGS = re.compile(r"<[^<>\n]*>")
_SENTENCE_ENDS = re.compile(r"(?<=[.!?。])\s+|\n")


def read_late_final(text: str) -> FoundFinal | None:
    """Read a final that ends a reply, behind words on its line or below a heading."""
    only = _ONLY_BLOCK.fullmatch(text)
    found = read_fenced_answer(text) if "```" in text or "~~~" in text else None
    if found is not None or ("```" in text and only is None):
        return found  # what stands in a block otherwise may be an example
    said = only["body"] if only else text
    return _behind_words(said) or read_bare_final(said) or _said(text)


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
    return sentence[-1] in _BOUNDS or _COPULA.search(sentence) is not None


def _said(text: str) -> FoundFinal | None:
    said = _SAID.search(text)
    body = said["body"].strip() if said else ""
    if said is None or not body or is_placeholder(body):
        return None
    is_apart = bool(said["mark"]) or _NUMBER.fullmatch(body) is not None
    return FoundFinal("text", body, len(text)) if is_apart else None
