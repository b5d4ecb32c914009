from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio

from rlm_mcp.sandbox.repl import ProcessSandbox
from rlm_mcp.sandbox.text import TextContext
from rlm_mcp.sandbox.types import CallReply, CellResult, Repl, ReplCall, ReplOptions


async def shout(call: ReplCall) -> CallReply:
    return CallReply(text=call.prompt.upper())


@asynccontextmanager
async def a_repl(
    text: str | list[str] = "alpha\nbeta\n", options: ReplOptions | None = None
) -> AsyncGenerator[Repl]:
    with anyio.fail_after(30):
        sandbox = ProcessSandbox(min_isolation="process")
        async with sandbox.open_repl(TextContext.of(text), options or ReplOptions()) as repl:
            yield repl


async def run(repl: Repl, code: str, *, seconds: float = 10) -> CellResult:
    return await repl.execute(code, timeout_seconds=seconds, on_call=shout)


async def test_the_value_of_a_last_expression_is_echoed() -> None:
    async with a_repl() as repl:
        assert (await run(repl, "x = 20\nx + 1")).output == "21\n"


async def test_a_timed_out_cell_keeps_its_variables() -> None:
    async with a_repl() as repl:
        result = await run(repl, "kept = 7\nwhile True: pass", seconds=0.2)
        assert result.timed_out
        assert result.error is not None
        assert result.error.type == "TimeoutError"
        assert (await run(repl, "kept")).output == "7\n"
