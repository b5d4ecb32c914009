"""Code that is no Python as it stands, put right where what it means is certain. Pure."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence

from rlm_mcp.engine.parsing.python_source import (
    Reading,
    read_python,
    without_invisible,
    without_prompts,
)

_MAX_SIGNS = 200
_ENTITY = re.compile(r"&(?:lt|gt|amp|quot|#39|#x27);")
# `%time x = f()` and `%%time` only measure; what follows them is the code.
_MEASURES = re.compile(r"^([ \t]*)%{1,2}(?:time|timeit|prun|capture)\b[ \t]*(.*)$", re.MULTILINE)
_MAGIC = re.compile(r"^([ \t]*)(%{1,2}[a-z]\w*\b.*|![ \t]*[a-z].*)$", re.MULTILINE)
# Signs of other keyboards that stand where only Python's own can.
_SIGNS = {
    **dict(zip("（）［］｛｝，：；＝＋－＊／＜＞．", "()[]{},:;=+-*/<>.", strict=True)),
    "、": ",",
    "−": "-",
    "–": "-",
    "—": "-",
    "×": "*",
    "÷": "/",  # those are meant
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
}
_QUOTES = (("“", "”", '"'), ("„", "“", '"'), ("‘", "’", "'"))  # those are meant
_ODD_SIGN = re.compile(r"invalid (?:non-printable )?character '(.)'")


def repair(code: str, *, is_certain: bool = True) -> tuple[str, Reading] | None:
    """Return code that parses in place of code that does not; None where nothing helps.

    Args:
        code: what does not parse.
        is_certain: whether it is said to be Python. Where it is not, only prompts and characters
            that nobody sees are taken out.
    """
    changed = code
    for step in _STEPS if is_certain else _STEPS[:2]:
        before, changed = changed, step(changed)
        if changed != before and (reading := read_python(changed)).tree is not None:
            return changed, reading
    return None


def _without_entities(code: str) -> str:
    """Undo the escapes of HTML, which some clients put into code."""
    return html.unescape(code) if _ENTITY.search(code) else code


def _without_magics(code: str) -> str:
    """Replace what only a notebook knows; of what is left out, the model is told."""
    return _MAGIC.sub(_note_magic, _MEASURES.sub(r"\1\2", code))


def _note_magic(match: re.Match[str]) -> str:
    said = f"Not run: {match[2].strip()} (this is plain Python, without a shell or magics)"
    return f"{match[1]}print({said!r})"


def _with_lines(code: str) -> str:
    r"""Turn `\n` between statements into ends of lines: the code was escaped once too often."""
    if "\n" in code.strip() or "\\n" not in code:
        return code
    return code.replace("\\n", "\n").replace("\\t", "\t").replace('\\"', '"')


def _with_plain_signs(code: str) -> str:
    """Replace signs that Python refuses, where it refuses them and not in strings."""
    for _ in range(_MAX_SIGNS):
        reading = read_python(code)
        odd = _ODD_SIGN.search(reading.problem or "")
        if odd is None or reading.place is None:
            return code
        line, column = reading.place
        lines = code.split("\n")
        if line > len(lines):
            return code
        plain = _replaced(lines[line - 1], odd[1], column)
        if plain == lines[line - 1]:
            return code
        lines[line - 1] = plain
        code = "\n".join(lines)
    return code


def _replaced(line: str, sign: str, column: int) -> str:
    place = line.find(sign, max(0, column - 1))
    if place < 0:
        return line
    for first, last, plain in _QUOTES:
        end = line.find(last, place + 1) if sign == first else -1
        if end > 0 and plain not in line[place + 1 : end]:
            return f"{line[:place]}{plain}{line[place + 1 : end]}{plain}{line[end + 1 :]}"
    plain = _SIGNS.get(sign)
    return line if plain is None else f"{line[:place]}{plain}{line[place + 1 :]}"


_STEPS: Sequence[Callable[[str], str]] = (
    without_invisible,
    without_prompts,
    _without_entities,
    _without_magics,
    _with_lines,
    _with_plain_signs,
)
