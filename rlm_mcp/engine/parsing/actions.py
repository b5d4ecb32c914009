"""Code behind `Action: python` and `Action Input:`, as models trained on such traces write it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlm_mcp.engine.parsing.python_source import is_code, read_python

_ACTION = re.compile(
    r"[*_ ]{0,4}Action(?: \d+)?[*_]{0,4}:[*_` ]{0,6}"
    r"(?:python|repl|python[_ ]?(?:repl|ast|repl_ast|interpreter)|code|code[_ ]interpreter"
    r"|run[_ ](?:code|python)|exec(?:ute)?(?:[_ ](?:code|python))?)[*_` ]*",
    re.IGNORECASE,
)
_INPUT = re.compile(r"[*_ ]{0,4}Action Input(?: \d+)?[*_]{0,4}:[*_]{0,4} ?(?P<code>.*)", re.I)
_NEXT = re.compile(
    r"[*_ ]{0,4}(?:Observation|Thought|Action|Final Answer)(?: \d+)?[*_]{0,4}:", re.I
)


def read_action(lines: Sequence[str], index: int) -> tuple[str, int] | None:
    """Return the code of the action that begins in a line, and the line behind it.

    None where there is none; an input in a fence or in JSON is read as anywhere else.
    """
    if not _ACTION.fullmatch(lines[index]) or index + 1 >= len(lines):
        return None
    opening = _INPUT.fullmatch(lines[index + 1])
    if opening is None:
        return None
    end = index + 2
    while end < len(lines) and not _NEXT.match(lines[end]):
        end += 1
    code = "\n".join([opening["code"], *lines[index + 2 : end]]).strip("\n ")
    tree = read_python(code).tree
    return (code, end) if tree is not None and is_code(tree) else None
