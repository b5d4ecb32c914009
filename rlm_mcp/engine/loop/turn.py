"""One turn of the root: its reply, and what the code in it did."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import anyio

from rlm_mcp.engine.conversation.restore import Memory
from rlm_mcp.engine.loop.replay import Calls, difference, replay
from rlm_mcp.engine.parsing.evidence import assigns_context
from rlm_mcp.engine.parsing.reply import CodeBlock, ParsedReply
from rlm_mcp.engine.prompts.cell_output import CONTEXT_RESTORED, show_cell
from rlm_mcp.engine.prompts.variant import PromptVariant
from rlm_mcp.engine.recording import PendingTurn, Recording, cell_record
from rlm_mcp.engine.run_context import RunLog
from rlm_mcp.engine.telemetry import cell_span
from rlm_mcp.errors import SandboxError
from rlm_mcp.events import CodeExecuted, RunWarning
from rlm_mcp.sandbox.types import CellResult, Final, Repl
from rlm_mcp.text import preview

LOOK_SECONDS = 10.0


@dataclass(frozen=True)
class Turn:
    """A reply, read, and what its blocks did: results in order, and how each is shown.

    `is_repeated` says that the reply is one that the model gave before.
    """

    parsed: ParsedReply
    cells: tuple[CellResult, ...] = ()
    shown: tuple[str, ...] = ()
    is_repeated: bool = False

    @property
    def has_failed(self) -> bool:
        """Whether the last cell raised."""
        return bool(self.cells) and self.cells[-1].error is not None

    @property
    def final(self) -> Final | None:
        """The answer that the code gave."""
        return self.cells[-1].final if self.cells else None

    @property
    def code(self) -> str:
        """The code of the last block that ran."""
        return self.parsed.blocks[len(self.cells) - 1].code if self.cells else ""


class Cells:
    """Runs the code of a run's turns in its REPL.

    Args:
        repl: stays open, for its opener to look into.
        make_calls: makes what answers the calls of the code, once the first cell runs.
        log: is told what each cell did.
        prompts: says how output is shown.
        pending: cells that ran before this process resumed the run.
    """

    def __init__(
        self, repl: Repl, make_calls: Callable[[], Calls], log: RunLog, prompts: PromptVariant
    ) -> None:
        self.repl = repl
        self._make_calls = make_calls
        self.memory = Memory()
        self.pending = PendingTurn(log.engine.recording)
        recorded = (cell.result.citations for cell in log.engine.recording.cells)
        self.citations = list(chain.from_iterable(recorded))
        self._log = log
        self._prompts = prompts

    @cached_property
    def calls(self) -> Calls:
        """What answers the calls that code makes; a run that runs no code makes none."""
        return self._make_calls()

    async def execute(self, parsed: ParsedReply) -> tuple[list[CellResult], list[str]]:
        """Run blocks in order, until one fails or gives the answer; returns how each is shown too.

        Raises:
            SandboxError: the REPL is gone for good.
        """
        # A weak model invents the output of its first block in its second.
        most = 1 if self._prompts.is_for_weak_models else len(parsed.blocks)
        cells: list[CellResult] = []
        shown: list[str] = []
        blocks = parsed.blocks[:most]
        for place, block in enumerate(blocks, start=1):
            # After a turn's last block, without an answer, the next turn begins at once.
            is_followed = place == len(blocks) and parsed.final is None
            result, as_shown = await self.execute_one(block.code, is_followed=is_followed)
            cells.append(result)
            shown.append(as_shown)
            if result.error is not None or result.final is not None:
                break
        shown += _left_out(parsed.blocks, cells)
        return cells, shown

    async def execute_one(self, code: str, *, is_followed: bool = False) -> tuple[CellResult, str]:
        """Run one cell; returns its result and how it is shown.

        Args:
            is_followed: unless it gives an answer, the next event follows at once.

        Raises:
            SandboxError: the REPL is gone for good.
        """
        recorded = self.pending.take_cell(code)
        if recorded is not None:
            self.memory.add_recorded_cell(code, recorded.result, recorded.shown, self._log.turn)
            return recorded.result, recorded.shown
        engine = self._log.engine
        with cell_span(engine.tracer) as span:
            began = time.monotonic()
            async with self.calls.reporting():
                result = await self.repl.execute(
                    code, timeout_seconds=engine.config.sandbox_timeout, on_call=self.calls.handle
                )
            wall_seconds = time.monotonic() - began
            span.cell(result)
        shown = self._show(code, result)
        self.memory.add_cell(code, result, shown, self._log.turn)
        self.citations += result.citations
        executed = self._executed(code, result, shown, wall_seconds)
        problem = f"{result.error.type}: {result.error.message}" if result.error else ""
        is_followed = is_followed and result.final is None
        await self._log.emit(executed, preview(problem or result.output), is_followed=is_followed)
        if result.lost_variables:
            await self._log.emit(RunWarning(), "The REPL was replaced; its variables are gone.")
        return result, shown

    async def variables(self) -> dict[str, str]:
        """Return a preview of every variable; none when the REPL cannot say."""
        found: dict[str, str] = {}
        with anyio.move_on_after(LOOK_SECONDS):
            with suppress(SandboxError):
                found = {each.name: each.preview for each in await self.repl.variables()}
        return found

    async def replay(self, recording: Recording) -> None:
        """Run recorded cells again in a fresh REPL, and report those that did something else.

        Raises:
            SandboxError: the REPL is gone for good.
        """
        if recording.is_repl_live or not (recording.before or recording.cells):
            return
        seconds = self._log.engine.config.sandbox_timeout
        async with self.calls.reporting():
            await replay(self.repl, recording.before, self.calls, seconds)
            different = await replay(self.repl, recording.cells, self.calls, seconds)
        if different:
            line, turns = difference(different, recording.cells)
            await self._log.emit(RunWarning(differing_turns=tuple(turns)), line)

    def _show(self, code: str, result: CellResult) -> str:
        limit = self._log.engine.config.metadata_prefix_chars
        shown = show_cell(result, limit, fold=self._prompts.is_for_weak_models)
        return f"{shown}\n{CONTEXT_RESTORED}" if assigns_context(code) else shown

    def _executed(
        self, code: str, result: CellResult, shown: str, wall_seconds: float
    ) -> CodeExecuted:
        balances = self.calls.take_balances()
        record = cell_record(result, shown)
        wall = round(wall_seconds, 3)
        return replace(record, code=code, balances=balances, wall_seconds=wall)


def _left_out(blocks: Sequence[CodeBlock], cells: Sequence[CellResult]) -> list[str]:
    """Say that blocks did not run, unless an answer came first."""
    left = len(blocks) - len(cells)
    if not left or not cells or cells[-1].final is not None:
        return []
    why = "it failed" if cells[-1].error else "you have not seen its output yet"
    return [f"[{left} more code block(s) of your reply did not run, because {why}.]"]
