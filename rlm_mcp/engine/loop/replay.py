"""Brings a fresh REPL to where a log ends: recorded cells run again, with recorded replies.

Nothing is paid for twice. Where a cell does something else than before, because of time or chance,
what was recorded stays in the conversation, and a warning says so.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from rlm_mcp.engine.recording import MAX_PRINTED_CHARS, RecordedCall, RecordedCell
from rlm_mcp.engine.types import HistoryEntry
from rlm_mcp.sandbox.types import CallReply, CellResult, Repl, ReplCall

COMPARED_CHARS = 100  # of the beginning and the end of a long output


class Calls(Protocol):
    """What answers the calls of a run's code."""

    @property
    def history(self) -> Sequence[HistoryEntry]:
        """Calls that were answered, as entries of the run's trace."""
        ...

    def key(self, call: ReplCall) -> str:
        """Return a digest of what is asked of which model."""
        ...

    async def handle(self, call: ReplCall) -> CallReply:
        """Answer a call."""
        ...

    async def kept(self, call: ReplCall) -> str | None:
        """Return a reply that is longer than a log keeps."""
        ...

    def reporting(self) -> AbstractAsyncContextManager[None]:
        """Report calls while a cell runs, and the last when it ends."""
        ...

    def take_balances(self) -> tuple[str, ...]:
        """Return what `budget()` returned in the cell that ended."""
        ...


async def replay(
    repl: Repl, cells: Sequence[RecordedCell], calls: Calls, timeout_seconds: float
) -> list[RecordedCell]:
    """Run recorded cells in order; returns those that gave another output than before.

    Raises:
        SandboxError: the REPL is gone for good.
    """
    different: list[RecordedCell] = []
    for cell in cells:
        result = await repl.execute(
            cell.code,
            timeout_seconds=timeout_seconds,
            on_call=_Playback(cell, calls).handle,
        )
        if not cell.is_callers and not _is_alike(result, cell):
            different.append(cell)
    return different


def difference(
    different: Sequence[RecordedCell], cells: Sequence[RecordedCell]
) -> tuple[str, list[int]]:
    """Say which of the recorded cells gave another output; returns the line, and their turns."""
    turns = sorted({cell.iteration for cell in different})
    line = (
        f"{len(different)} of {len(cells)} recorded cells gave another output when they were run "
        f"again, in turns {turns}; the recorded output is kept."
    )
    return line, turns


def _is_alike(result: CellResult, cell: RecordedCell) -> bool:
    """Compare what a cell did with its record, and not the words in which it is shown."""
    was, error, final = cell.result, result.error, result.final
    if result.output_chars != was.output_chars or final != was.final:
        return False
    if (error is None) != (was.error is None):
        return False
    if error and was.error and (error.type, error.message) != (was.error.type, was.error.message):
        return False
    output = result.output.strip("\n")
    if result.output_chars <= MAX_PRINTED_CHARS:
        return output == was.output.strip("\n")
    # All of a long output that is on record is what was shown of it: both ends.
    return output[:COMPARED_CHARS] in cell.shown and output[-COMPARED_CHARS:] in cell.shown


class _Playback:
    """Answers the calls of one cell as they were answered before, each as often as it was made."""

    def __init__(self, cell: RecordedCell, calls: Calls) -> None:
        self._calls = calls
        self._balances = deque(cell.balances)
        self._replies: defaultdict[str, deque[RecordedCall]] = defaultdict(deque)
        for call in cell.calls:
            self._replies[call.key].append(call)

    async def handle(self, call: ReplCall) -> CallReply:
        if call.name == "budget":
            if self._balances:
                return CallReply(self._balances.popleft())
            return await self._calls.handle(call)
        key = self._calls.key(call)
        known = self._replies[key]
        if not known:
            return await self._calls.handle(call)
        recorded = known.popleft()
        if recorded.error is not None:
            return CallReply(error=recorded.error)
        text = recorded.text if recorded.text is not None else await self._calls.kept(call)
        return CallReply(text) if text is not None else await self._calls.handle(call)
