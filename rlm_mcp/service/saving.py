"""What is kept of a REPL's variables, and how a fresh REPL gets them back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from keyword import iskeyword

from rlm_mcp.errors import NotFoundError
from rlm_mcp.sandbox.types import CallReply, Repl, ReplCall
from rlm_mcp.store.run_records import SavedVariable

MAX_SAVED_VARIABLES = 500
MAX_SAVED_CHARS = 200_000
MAX_SAVED_CHARS_IN_ALL = 5_000_000
_RESTORE_SECONDS = 30.0


async def save_variables(repl: Repl, kept: list[SavedVariable]) -> None:
    """Read what a REPL holds into `kept`, values as far as they are worth keeping.

    What was read is there also when this is cancelled. A variable that cannot be read, whatever
    code made of its name, is left out.

    Raises:
        SandboxError: the REPL is gone.
    """
    room = MAX_SAVED_CHARS_IN_ALL
    for variable in (await repl.variables())[:MAX_SAVED_VARIABLES]:
        try:
            text = await repl.read_variable(variable.name, limit=min(room, MAX_SAVED_CHARS))
        except NotFoundError:
            continue
        is_whole = text.end == text.total
        room -= text.end if is_whole else 0
        value = text.text if is_whole else None
        kept.append(SavedVariable(**asdict(variable), value=value, json=text.json and is_whole))


async def restore(repl: Repl, variables: Sequence[SavedVariable]) -> list[str]:
    """Assign saved values anew; returns the names of those that could not be had back.

    JSON-like values and strings can, if they were short enough to be kept whole.
    """
    lost: list[str] = []
    for variable in variables:
        code = _assignment(variable)
        if code is None:
            lost.append(variable.name)
            continue
        done = await repl.execute(code, timeout_seconds=_RESTORE_SECONDS, on_call=no_calls)
        if done.error is not None:
            lost.append(variable.name)
    return lost


def _assignment(variable: SavedVariable) -> str | None:
    """Code that assigns a saved value, or None if there is none."""
    if variable.value is None or not variable.name.isidentifier() or iskeyword(variable.name):
        return None
    if variable.json:
        return f"import json as _json\n{variable.name} = _json.loads({variable.value!r})"
    return f"{variable.name} = {variable.value!r}" if variable.type == "str" else None


async def no_calls(call: ReplCall) -> CallReply:
    """Refuse the calls of a cell of ours, which has none to make."""
    return CallReply(error=f"{call.name} is not available here")
