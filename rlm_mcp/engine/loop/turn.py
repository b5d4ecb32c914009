"""The code of one turn: run block by block, told, and shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlm_mcp.engine.loop.run import Run
from rlm_mcp.engine.parsing.reply import CodeBlock
from rlm_mcp.engine.prompts import is_small
from rlm_mcp.engine.prompts.cell_output import show_result
from rlm_mcp.engine.recording import cell_record
from rlm_mcp.engine.telemetry import cell_span
from rlm_mcp.events import RunWarning
from rlm_mcp.sandbox.types import CellResult
from rlm_mcp.text import preview


@dataclass(frozen=True)
class Turn:
    """What the blocks of one reply did: results in order, and how each is shown."""

    cells: tuple[CellResult, ...] = ()
    shown: tuple[str, ...] = ()

    @property
    def has_failed(self) -> bool:
        """Whether the last cell raised."""
        return bool(self.cells) and self.cells[-1].error is not None


async def execute(run: Run, blocks: Sequence[CodeBlock]) -> Turn:
    """Run blocks in order, until one fails or hands over the answer."""
    wanted = blocks[:1] if is_small(run.config) else blocks
    cells: list[CellResult] = []
    shown: list[str] = []
    for block in wanted:
        result, as_shown = await execute_one(run, block.code)
        cells.append(result)
        shown.append(as_shown)
        if result.error is not None or result.final is not None:
            break
    left = len(blocks) - len(cells)
    if left and cells and cells[-1].final is None:
        # A weak model invents the output of its first block in its second.
        why = "it failed" if cells[-1].error else "its output was not seen yet"
        shown.append(f"[{left} more code block(s) of your reply did not run, since {why}.]")
    return Turn(tuple(cells), tuple(shown))


async def execute_one(run: Run, code: str) -> tuple[CellResult, str]:
    """Run one cell; gives its result and how it is shown.

    Raises:
        SandboxError: the REPL is gone for good.
    """
    recorded = run.tape.cell(code)
    if recorded is not None:
        run.note_cell(recorded.shown, recorded.result, recorded.shown)
        return recorded.result, recorded.shown
    with cell_span(run.engine.tracer) as span:
        result = await run.repl.execute(
            code, timeout_seconds=run.config.sandbox_timeout, on_call=run.calls.handle
        )
        span.cell(result)
    await run.calls.end_cell()
    shown = show_result(code, result, run.config)
    whole = result.output + (result.error.traceback if result.error else "")
    run.note_cell(whole, result, shown)
    problem = f"{result.error.type}: {result.error.message}" if result.error else ""
    balances = run.calls.take_balances()
    executed = replace(cell_record(result, shown), code=code, balances=balances)
    await run.emit(executed, preview(problem or result.output))
    if result.lost_variables:
        await run.emit(RunWarning(), "The REPL was replaced; its variables are gone.")
    return result, shown
