"""Where fenced blocks begin and end, and which of them are Python."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from rlm_mcp.engine.parsing.code_repairs import repair
from rlm_mcp.engine.parsing.python_source import (
    Reading,
    is_code,
    layouts,
    read_python,
    without_notebook_prompts,
)

_MARKS = r"(?P<indent>[ \t]*(?:(?:[-*+>]|\d+[.)])[ \t]+)*)"
_OPENER = re.compile(rf"^{_MARKS}(?P<fence>`{{3,}}|~{{3,}})(?P<info>.*)$")
_PYTHON = re.compile(
    r"^(?:i?python[\d.]*|py[\d.]*|pycon|repl|tool_code|code|jupyter|notebook|cell|exec(?:ute)?"
    r"|(?:i?python|py|repl|tool|code)[-_](?:repl|code|exec(?:ute)?|python|block|input))$",
    re.IGNORECASE,
)
# Other marks that models take for a fence, with the language named: '''python
_ODD_OPENER = re.compile(
    rf"^{_MARKS}(?P<fence>'''|\"\"\"|´´´|``)[ \t]*"
    r"(?P<info>i?python[\d.]*|py|repl|tool_code)[ \t]*$",
    re.IGNORECASE,
)
_AFTER_PROSE = re.compile(
    r"(?<!`)(?P<fence>`{3,})[ \t]*(?P<info>i?python\d*|py\d*|repl|tool_code)[ \t]*$",
    re.IGNORECASE,
)
_ONE_LINE = re.compile(r"^(?P<body>.*?[^`~])(?P<fence>`{3,}|~{3,})[ \t]*$")
# An end of another kind than the opening fence, or one that was not written to its end.
_ONLY_FENCE = re.compile(r"^[ \t]*(?:`+|~{3,}|'''|\"\"\"|´´´)[ \t]*$")
_GLUED = re.compile(r"[^`\s][ \t]*(?P<fence>`{3,})[ \t]*$")
_ATTRIBUTE = re.compile(r"^(?:\{.*\}|\w+=\S.*|copy|code|cell|script|block|snippet|repl)$", re.I)
_LOOKS_LIKE_PYTHON = re.compile(
    r"^[ \t]*(?:import \w|from [\w.]+ import |def \w+\(|for .+ in .+:|with .+:|\w+ = \S"
    r"|print\(|FINAL(?:_VAR)?\()|\bllm_query(?:_batch)?\(",
    re.MULTILINE,
)
# Languages that may hold fenced blocks of their own.
_HOLDS_FENCES = frozenset({"markdown", "md", "text", "txt", "plaintext"})
_ODD_MARKS = frozenset(["'''", '"""', "´´´", "``"])
# How many candidate ends are tried before the first one is taken.
_MAX_ENDS = 20


@dataclass(frozen=True)
class Fence:
    """An opening fence. `prose` is the text before it on its line, `first` the code after it."""

    mark: str
    language: str
    indent: str = ""
    prose: str = ""
    first: str = ""
    one_line: str | None = None

    @property
    def is_python(self) -> bool:
        """Whether the language named is Python, or the REPL's."""
        return bool(_PYTHON.match(self.language))


@dataclass(frozen=True)
class Block:
    """A fenced block, up to line `end`, exclusive.

    `reading` is there when the block is Python. `after` is prose that followed the closing fence
    on its line. A stray fence opens no block and is skipped.
    """

    kind: Literal["python", "other", "stray"]
    code: str
    end: int
    closed: bool = True
    reading: Reading | None = None
    after: str = ""


@dataclass(frozen=True)
class _End:
    line: int  # the line that ends the block
    last: str = ""  # code on that line, before its fence
    after: str = ""  # prose after the fence
    opens: bool = False  # the line opens the next block, so this one was never closed


def opening_fence(line: str) -> Fence | None:
    """Read `line` as an opening fence."""
    odd = _ODD_OPENER.match(line)
    if odd is not None:
        return Fence(odd["fence"], odd["info"].lower(), odd["indent"])
    match = _OPENER.match(line)
    if match is None:
        match = _AFTER_PROSE.search(line)
        prose = line[: match.start()].rstrip() if match else ""
        return Fence(match["fence"], match["info"].lower(), prose=prose) if match else None
    mark, indent, info = match["fence"], match["indent"], match["info"].strip()
    closing = _ONE_LINE.match(info)
    if closing and closing["fence"].startswith(mark):
        whole = closing["body"].strip()
        language, body = _split_info(whole)
        is_python = bool(_PYTHON.match(language))
        return Fence(mark, language, indent, one_line=body if is_python else whole)
    if mark[0] == "`" and "`" in info:
        return None  # CommonMark: this is inline code
    language, rest = _split_info(info)
    return Fence(mark, language, indent, first="" if _ATTRIBUTE.match(rest) else rest)


def read_block(lines: Sequence[str], start: int, fence: Fence) -> Block:
    """Read the block that `fence` opens in line `start`."""
    if fence.one_line is not None:
        return _one_line_block(fence, start)
    if fence.is_python:
        return _python_block(lines, start, fence)
    if not fence.language:
        block = _python_block(lines, start, fence)
        if _is_bare_python(block):
            return block
        if not block.closed or _is_empty_before_fence(lines, block):
            return Block("stray", "", start + 1)
    return _other_block(lines, start, fence)


def python_spans(lines: Sequence[str]) -> list[tuple[int, int]]:
    """Return the first and the last line, exclusive, of each block that parses as Python."""
    spans: list[tuple[int, int]] = []
    index = 0
    while index < len(lines):
        fence = opening_fence(lines[index])
        block = read_block(lines, index, fence) if fence else None
        if block and block.reading is not None and block.reading.tree is not None:
            spans.append((index, block.end))
        index = block.end if block else index + 1
    return spans


def _split_info(info: str) -> tuple[str, str]:
    """Split an info string into a language and what follows it."""
    word, _, rest = info.partition(" ")
    name = word.strip("{}.:").partition(":")[0].lower()  # `python:main.py`
    if _PYTHON.match(name):
        return name, rest.strip()
    if re.fullmatch(r"[\w+#.-]*", name) and not rest:
        return name, ""
    reading = read_python(info)
    if reading.tree is not None and is_code(reading.tree):
        return "", info
    return name, ""


def _one_line_block(fence: Fence, start: int) -> Block:
    code = fence.one_line or ""
    reading = read_python(code)
    if code and (fence.is_python or (reading.tree is not None and is_code(reading.tree))):
        return Block("python", code, start + 1, reading=reading)
    return Block("other", code, start + 1)


def _python_block(lines: Sequence[str], start: int, fence: Fence) -> Block:
    """Read up to the first closing fence that makes the block parse: one in a string does not."""
    first: Block | None = None
    crossed = False
    for end in islice(_ends(lines, start, fence), _MAX_ENDS):
        block, in_string = _block_to(lines, start, fence, end)
        first = first or block
        if block.reading is not None and block.reading.tree is not None:
            return block
        if not in_string:
            # The string has ended and the error is elsewhere. Past another opening fence this may
            # be the next block's end, so the first reading is taken.
            return first if crossed else block
        crossed = crossed or end.opens
    return first or _block_to(lines, start, fence, None)[0]


def _block_to(
    lines: Sequence[str], start: int, fence: Fence, end: _End | None
) -> tuple[Block, bool]:
    """Make the block up to `end`; returns also whether it ends within a string."""
    stop = end.line if end else len(lines)
    if end is None and stop > start + 1 and _ONLY_FENCE.match(lines[stop - 1]):
        stop -= 1  # of another kind than the opening one
    code, reading = _laid_out(_body(lines, start, stop, fence, end), fence)
    after = stop if end is None or end.opens else stop + 1
    rest = end.after if end else ""
    block = Block("python", code, after, closed=end is not None, reading=reading, after=rest)
    return block, reading.in_string


def _ends(lines: Sequence[str], start: int, fence: Fence) -> Iterator[_End]:
    for index in range(start + 1, len(lines)):
        end = _end_at(lines[index], index, fence)
        if end:
            yield end


def _end_at(line: str, index: int, fence: Fence) -> _End | None:
    if fence.mark in _ODD_MARKS:
        return _End(index) if line.strip() in {fence.mark, "```"} else None
    match = _OPENER.match(line)
    if match is None:
        glued = _GLUED.search(line) if fence.mark[0] == "`" else None
        if glued is None or not glued["fence"].startswith(fence.mark):
            return None
        code = line[: glued.start("fence")]
        return None if "`" in code else _End(index, last=code)
    if not match["fence"].startswith(fence.mark):
        return None
    info = match["info"].strip()
    return _End(index, opens=True) if _names_language(info) else _End(index, after=info)


def _names_language(info: str) -> bool:
    """Whether this is the language of an opening fence, not a sentence after a closing one."""
    if not info or _PYTHON.match(info.split(maxsplit=1)[0]):
        return bool(info)
    return " " not in info and (info[0].isalnum() or info[0] == "{")


def _body(lines: Sequence[str], start: int, stop: int, fence: Fence, end: _End | None) -> list[str]:
    body = ([fence.first] if fence.first else []) + list(lines[start + 1 : stop])
    if end and end.last:
        body.append(end.last)
    if ">" in fence.indent:
        body = [re.sub(r"^[ \t]*> ?", "", line) for line in body]
    return body


def _laid_out(body: list[str], fence: Fence) -> tuple[str, Reading]:
    body = without_notebook_prompts(body)
    plain = Reading()
    for number, code in enumerate(layouts(body, len(fence.indent))):
        reading = read_python(code)
        if reading.tree is not None:
            return code, reading
        if number == 0:
            plain = reading
            if "Indentation" not in (reading.problem or ""):
                break
    code = "\n".join(body)
    return repair(textwrap.dedent(code), is_certain=fence.is_python) or (code, plain)


def _is_bare_python(block: Block) -> bool:
    reading = block.reading
    if reading is None or not block.code.strip():
        return False
    if reading.tree is not None:
        return is_code(reading.tree)
    return block.closed and bool(_LOOKS_LIKE_PYTHON.search(block.code))


def _is_empty_before_fence(lines: Sequence[str], block: Block) -> bool:
    follows = block.end < len(lines) and opening_fence(lines[block.end]) is not None
    return follows and not block.code.strip()


def _other_block(lines: Sequence[str], start: int, fence: Fence) -> Block:
    end = _nested_end(lines, start, fence) if fence.language in _HOLDS_FENCES else None
    end = end or next(_ends(lines, start, fence), None)
    if end is None:
        return Block("other", "\n".join(lines[start:]), len(lines), closed=False)
    stop = end.line if end.opens else end.line + 1
    return Block("other", "\n".join(lines[start:stop]), stop)


def _nested_end(lines: Sequence[str], start: int, fence: Fence) -> _End | None:
    depth = 1
    for end in _ends(lines, start, fence):
        depth += 1 if end.opens else -1
        if depth == 0:
            return end
    return None
