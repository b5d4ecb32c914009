"""A REPL's variables: read out of it to be saved, and put back into another one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from keyword import iskeyword
from typing import Protocol, runtime_checkable

import anyio

from rlm_mcp.errors import NotFoundError, RLMError, SandboxBusyError
from rlm_mcp.sandbox.types import CallReply, Lasting, LastingVariable, Repl, ReplCall
from rlm_mcp.store.runs.records import SavedVariable

MAX_SAVED_VARIABLES = 500
MAX_SAVED_CHARS = 200_000
MAX_SAVED_CHARS_IN_ALL = 5_000_000
# What is kept of variables for a later question, as they are.
MAX_LASTING_BYTES = 16 << 20
MAX_LASTING_BYTES_IN_ALL = 32 << 20
# Likewise after a cell of a caller, whose REPL goes on: that must cost no more than a look.
CELL_LASTING_BYTES = 256 << 10
CELL_LASTING_BYTES_IN_ALL = 1 << 20
SAVE_SECONDS = 3.0
_DISTANT_SECONDS = 15.0  # by then a machine that hangs is given up
_RESTORE_SECONDS = 30.0
_NO_TIME = "there was no time to keep it"


@runtime_checkable
class DistantRepl(Protocol):
    """A `Repl` on another machine, which can be lost, and reads there what it holds."""

    async def is_there(self) -> bool:
        """Whether the machine answers, and still holds the REPL."""
        ...

    async def saved(self, *, after_cell: bool) -> Sequence[SavedVariable]:
        """Read what the REPL holds; see `save_variables`."""
        ...


async def save_variables(
    repl: Repl, kept: list[SavedVariable], *, after_cell: bool = False
) -> None:
    """Read what a REPL holds into `kept`, with the values that are short enough to be kept.

    Reading takes nothing from the REPL, and no longer than `SAVE_SECONDS`. `kept` has every
    variable with its name, type and size, and the values that could be read in that time.

    Args:
        after_cell: the REPL goes on, and this is repeated after each cell of its caller.

    Raises:
        SandboxDiedError: the REPL is gone.
    """
    if isinstance(repl, DistantRepl):
        with anyio.move_on_after(_DISTANT_SECONDS):
            kept[:] = await repl.saved(after_cell=after_cell)
        return
    with anyio.move_on_after(SAVE_SECONDS), suppress(SandboxBusyError):
        listed = (await repl.variables())[:MAX_SAVED_VARIABLES]
        kept[:] = [SavedVariable(**asdict(variable), value=None, json=False) for variable in listed]
        await _read_values(repl, kept)
    if isinstance(repl, Lasting):
        with anyio.move_on_after(SAVE_SECONDS), suppress(SandboxBusyError):
            bounds = (
                (CELL_LASTING_BYTES, CELL_LASTING_BYTES_IN_ALL)
                if after_cell
                else (MAX_LASTING_BYTES, MAX_LASTING_BYTES_IN_ALL)
            )
            _add_lasting(kept, await repl.keep(*bounds))


def _add_lasting(kept: list[SavedVariable], lasting: Sequence[LastingVariable]) -> None:
    """Add what variables are kept as to those listed; code, which is not listed, comes first."""
    by_name = {one.name: one for one in lasting}
    for place, variable in enumerate(kept):
        one = by_name.pop(variable.name, LastingVariable(variable.name, reason=_NO_TIME))
        kept[place] = replace(variable, payload=one.payload or None, reason=one.reason)
    kept[:0] = [
        SavedVariable(
            *(name, "code", 0, ""), payload=one.payload or None, reason=one.reason, is_code=True
        )
        for name, one in by_name.items()
    ]


async def _read_values(repl: Repl, kept: list[SavedVariable]) -> None:
    room = MAX_SAVED_CHARS_IN_ALL
    for place, variable in enumerate(kept):
        most = min(room, MAX_SAVED_CHARS)
        try:
            text = await repl.read_variable(variable.name, limit=most, whole=True)
        except NotFoundError:  # a thread of the code deleted it meanwhile
            continue
        if (text.start, text.end) == (0, text.total):
            room -= text.end
            kept[place] = replace(variable, value=text.text, json=text.json)


async def last_variables(repl: Repl, *, after_cell: bool = False) -> list[SavedVariable]:
    """Read what a REPL holds, also when the caller is being cancelled; see `save_variables`.

    A REPL that is gone holds nothing.
    """
    kept: list[SavedVariable] = []
    with anyio.CancelScope(shield=True), suppress(RLMError):  # it is bounded by itself
        await save_variables(repl, kept, after_cell=after_cell)
    return kept


async def restore(repl: Repl, variables: Sequence[SavedVariable]) -> list[str]:
    """Put saved variables back; return the names of those that are lost, each with the reason."""
    if not any(one.payload or one.reason for one in variables):
        return await _assign(repl, variables)
    if not isinstance(repl, Lasting):
        return await _assign(repl, [one for one in variables if not one.is_code])
    kept = [LastingVariable(one.name, one.payload) for one in variables if one.payload]
    opened = set(await repl.reopen(kept))
    return [
        f"{one.name} ({one.reason or 'it could not be opened'})"
        for one in variables
        if one.name not in opened
    ]


async def _assign(repl: Repl, variables: Sequence[SavedVariable]) -> list[str]:
    """Assign the values that earlier versions saved: JSON and strings."""
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
