"""Summarizes turns that no longer fit into the root's window.

The summary is made without a model call, from the record: what each turn did, its result, and which
variables hold it. So it costs nothing, cannot fail or invent anything, and a replayed run gets the
same one. What a turn found out is in its output or in a variable; the summary names both, and
variables can be printed again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rlm_mcp.engine.parsing.reply import parse_reply
from rlm_mcp.engine.types import HistoryEntry
from rlm_mcp.text import preview

_CODE_CHARS = 100
_OUTPUT_CHARS = 160
_VARIABLE_CHARS = 80
_MAX_TURNS = 40


def summarize(
    history: Sequence[HistoryEntry], last: int, variables: Mapping[str, str], limit: int
) -> str:
    """Summarize the turns from the first to `last`.

    Args:
        history: the trace; sub-calls in it are left out.
        last: the last turn that is left out of the conversation.
        variables: a preview of each variable, the newest last.
        limit: characters that turns and variables may take, about half each; the newest are kept.
    """
    turns = list(_newest((_line(history, n) for n in range(last, 0, -1)), limit // 2))
    skipped = last - len(turns)
    held = (
        f"{name} = {preview(value, _VARIABLE_CHARS)}"
        for name, value in reversed(list(variables.items()))
    )
    known = list(_newest(held, limit - limit // 2))
    unnamed = len(variables) - len(known)
    parts = [
        f"[Turns 1 to {last} are left out here to save room. What they did:",
        f"… {skipped} turns …" if skipped else "",
        *reversed(turns),
        "Variables that are there:" if known else "No variables are there.",
        f"… {unnamed} older ones; SHOW_VARS() lists all …" if unnamed else "",
        *reversed(known),
        "Print a variable to see it again.]",
    ]
    return "\n".join(part for part in parts if part)


def _newest(lines: Iterator[str], limit: int) -> Iterator[str]:
    room = limit
    for number, line in enumerate(lines):
        room -= len(line) + 1
        if number and (room < 0 or number >= _MAX_TURNS):
            return
        yield line


def _line(history: Sequence[HistoryEntry], turn: int) -> str:
    entries = [entry for entry in history if entry.iteration == turn]
    done = " ".join(_gist_of_reply(each.content) for each in entries if each.role == "root")
    shown = [each.truncated_content for each in entries if each.role == "repl_output"]
    came = " | ".join(map(_gist_of_output, shown))
    return f"{turn}: {preview(done, _CODE_CHARS)}" + (f" → {came}" if came else "")


def _gist_of_reply(text: str) -> str:
    blocks = parse_reply(text).blocks
    return "; ".join(" ".join(block.code.split()) for block in blocks) or text


def _gist_of_output(shown: str) -> str:
    if "Traceback (most recent call last)" in shown:
        return preview(shown.rstrip().rpartition("\n")[2], _OUTPUT_CHARS)
    return preview(shown, _OUTPUT_CHARS)
