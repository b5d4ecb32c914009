"""Thinking that models write into their replies: neither code nor answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_NAMES = r"(?:think|thinking|reasoning|thought|thoughts|reflection|scratchpad)"
_UNQUOTED = r"(?![\"']|`(?!``))"
# A tag beside a quotation mark is a string in code or a word that is mentioned, not a tag.
_OPEN = re.compile(rf"(?<![\"'`])<(?P<name>{_NAMES})(?: [^<>\n]*)?>{_UNQUOTED}", re.IGNORECASE)
_CLOSE = re.compile(rf"(?<![\"'`])</{_NAMES}>{_UNQUOTED}", re.IGNORECASE)
_TAG = re.compile(rf"<(?P<slash>/?)(?P<name>{_NAMES})(?: [^<>\n]*)?>", re.IGNORECASE)
_END_TOKENS = re.compile(r"(?:<\|\w{1,30}\|>|</s>|<eos>|<end_of_turn>)\s*\Z")
# A model that is not stopped at its end token may invent further messages.
_NEXT_MESSAGE = re.compile(
    r"<\|(?:im_end|eot_id|end)\|>\s*<\|(?:im_start|start_header_id)\|>.*", re.DOTALL
)
_HEADER = re.compile(
    r"\s*<\|(?:im_start\|>assistant|start_header_id\|>assistant<\|end_header_id\|>)\s*"
)
_CHANNEL = re.compile(r"\s*(?:<\|start\|>assistant)?<\|channel\|>")
_ANALYSIS = re.compile(
    r"<\|channel\|>analysis<\|message\|>.*?(?:<\|end\|>(?:<\|start\|>assistant)?|\Z)", re.DOTALL
)
# Tags of further models, which stand at the start of a reply: Magistral, Seed-OSS, Kimi-VL and
# OpenThinker. The opening one of Kimi-VL may be part of the prompt.
_MARKED = re.compile(
    r"\A\s*+(?:\[THINK\].*?(?:\[/THINK\]|\Z)|<seed:think>.*?(?:</seed:think>|\Z)"
    r"|[^◁]*+(?:◁think▷.*?)?(?:◁/think▷)|◁think▷.*\Z"
    r"|<\|begin_of_thought\|>.*?(?:<\|end_of_thought\|>|\Z))"
    r"\s*(?:<\|begin_of_solution\|>\s*)?",
    re.DOTALL,
)
# A call of a tool in the harmony format, whose code may be no JSON.
_TOOL_CHANNEL = re.compile(
    r"(?:<\|start\|>assistant)?<\|channel\|>\w+ to=[\w.]*(?:python|repl|exec|code)[\w.]*[^<>\n]*"
    r"(?:<\|constrain\|>\w+)?<\|message\|>(?P<code>.*?)(?:<\|call\|>|<\|end\|>|\Z)",
    re.DOTALL,
)
_OTHER_CHANNEL = re.compile(r"(?:<\|start\|>assistant)?<\|channel\|>\w+<\|message\|>|<\|end\|>")


def without_tokens(reply: str) -> str:
    """Remove end tokens that a server let through, and the channels of the harmony format."""
    text = reply.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    header = _HEADER.match(text)
    text = _NEXT_MESSAGE.sub("", text[header.end() :] if header else text)
    text = _MARKED.sub("", text)
    if _CHANNEL.match(text):
        text = _TOOL_CHANNEL.sub(_fenced, _ANALYSIS.sub("", text))
        text = _OTHER_CHANNEL.sub("", text)
    while match := _END_TOKENS.search(text, max(0, len(text) - 100)):
        text = text[: match.start()]
    return text


def _fenced(call: re.Match[str]) -> str:
    code = call["code"].strip("\n")
    return code if code.lstrip().startswith("{") else f"\n```python\n{code}\n```\n"


def after_orphan_close(
    text: str, find_blocks: Callable[[Sequence[str]], Sequence[tuple[int, int]]]
) -> str:
    """Drop the text before a closing tag whose opening tag was part of the prompt.

    Args:
        text: the reply.
        find_blocks: returns the lines of code blocks, in which a tag is the code's own.
    """
    opening = _OPEN.search(text)
    closes = list(_CLOSE.finditer(text, 0, opening.start() if opening else len(text)))
    blocks = find_blocks(text.split("\n")) if closes else ()
    for close in reversed(closes):
        line = text.count("\n", 0, close.start())
        if not any(start < line < end for start, end in blocks):
            return text[close.end() :]
    return text


def without_reasoning(reply: str) -> str:
    """Return the text of a reply without code: its thinking and end tokens are left out.

    Thinking begins at the start of a line; a tag that the reply speaks of stays. A reply that
    never ends its thinking says nothing.
    """
    text = after_orphan_close(without_tokens(reply), _no_blocks)
    start = 0
    while (opening := _OPEN.search(text, start)) is not None:
        line_start = text.rfind("\n", 0, opening.start()) + 1
        if text[line_start : opening.start()].strip():
            start = opening.end()
            continue
        end = reasoning_end(text, opening.start())
        before = text[:line_start]
        text = before if end is None else before + text[end:].lstrip()
        start = line_start
    return text if text == reply else text.strip()


def _no_blocks(_: Sequence[str]) -> Sequence[tuple[int, int]]:
    return ()


def find_reasoning(line: str) -> re.Match[str] | None:
    """Find an opening tag in `line`."""
    return _OPEN.search(line)


def reasoning_end(text: str, start: int) -> int | None:
    """Find where the thinking that begins at `start` ends; None when it does not."""
    opening = _TAG.match(text, start)
    name = opening["name"].lower() if opening else ""
    depth = 0
    for tag in _TAG.finditer(text, start):
        if tag["name"].lower() != name:
            continue
        depth += -1 if tag["slash"] else 1
        if depth == 0:
            return tag.end()
    # Thinking that mentions its own tag is never balanced; the last closing tag ends it.
    closes = [tag.end() for tag in _CLOSE.finditer(text, start)]
    return closes[-1] if closes else None
