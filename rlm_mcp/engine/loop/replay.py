"""Brings a fresh REPL to where a log ends: recorded cells run again, recorded replies answer them.

Nothing is paid for twice. Where a cell shows something else than it did, because of the time or of
chance, what was recorded stands in the conversation, and it is said.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Protocol

from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.prompts.cell_output import show_result
from rlm_mcp.engine.recording import RecordedCall, RecordedCell
from rlm_mcp.sandbox.types import CallReply, Repl, ReplCall


class Calls(Protocol):
    """What answers the calls of a cell, as far as a replay needs it."""

    def key(self, call: ReplCall) -> str:
        """Digest what is asked of which model."""
        ...

    async def handle(self, call: ReplCall) -> CallReply:
        """Answer a call that is not on record."""
        ...

    async def kept(self, key: str) -> str | None:
        """Give a reply that is longer than a log keeps."""
        ...


async def replay(
    repl: Repl, cells: Sequence[RecordedCell], calls: Calls, config: RLMConfig
) -> list[RecordedCell]:
    """Run recorded cells in order; returns those that gave another output than they did.

    Raises:
        SandboxError: the REPL is gone for good.
    """
    different: list[RecordedCell] = []
    for cell in cells:
        result = await repl.execute(
            cell.code,
            timeout_seconds=config.sandbox_timeout,
            on_call=_Playback(cell, calls).handle,
        )
        if not cell.is_callers and show_result(cell.code, result, config) != cell.shown:
            different.append(cell)
    return different


def difference(
    different: Sequence[RecordedCell], cells: Sequence[RecordedCell]
) -> tuple[str, list[int]]:
    """Say which of the recorded cells gave another output; gives the line, and their turns."""
    turns = sorted({cell.iteration for cell in different})
    line = (
        f"{len(different)} of {len(cells)} recorded cells gave another output when they were run "
        f"again, in turns {turns}; what was recorded stands."
    )
    return line, turns


class _Playback:
    """Answers the calls of one cell as they were answered, each as often as it was made."""

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
        text = recorded.text if recorded.text is not None else await self._calls.kept(key)
        return CallReply(text) if text is not None else await self._calls.handle(call)
