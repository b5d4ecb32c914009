"""What is kept of a REPL's variables, and how a fresh REPL gets them back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rlm_mcp.sandbox.types import CallReply, Repl, ReplCall
from rlm_mcp.store.run_records import SavedVariable

MAX_SAVED_CHARS = 200_000
MAX_SAVED_CHARS_IN_ALL = 5_000_000
_RESTORE_SECONDS = 30.0


async def saved_variables(repl: Repl) -> list[SavedVariable]:
    """Read what a REPL holds, values as far as they are worth keeping.

    Raises:
        SandboxError: the REPL is gone.
    """
    kept: list[SavedVariable] = []
    room = MAX_SAVED_CHARS_IN_ALL
    for variable in await repl.variables():
        text = await repl.read_variable(variable.name, limit=min(room, MAX_SAVED_CHARS))
        is_whole = text.end == text.total
        room -= text.end if is_whole else 0
        value = text.text if is_whole else None
        kept.append(SavedVariable(**asdict(variable), value=value, json=text.json and is_whole))
    return kept


async def restore(repl: Repl, variables: Sequence[SavedVariable]) -> None:
    """Assign saved values anew: JSON-like ones and strings, which are all that were kept whole."""
    lines = ["import json as _json"]
    for variable in variables:
        if variable.value is None or not variable.name.isidentifier():
            continue
        if variable.json:
            lines.append(f"{variable.name} = _json.loads({variable.value!r})")
        elif variable.type == "str":
            lines.append(f"{variable.name} = {variable.value!r}")
    if len(lines) > 1:
        await repl.execute("\n".join(lines), timeout_seconds=_RESTORE_SECONDS, on_call=_no_calls)


async def _no_calls(call: ReplCall) -> CallReply:
    return CallReply(error=f"{call.name} is not available here")
