"""The portable sandbox beside the native one: `python -m bench.walls`; a table in Markdown.

Each figure is the best of some tries: what a busy machine adds is not the sandbox's. `ready` is a
REPL over a small text when nothing stands ready; `kept ready` when a process does. Figures of code,
and those marked so, are the processor's time of the REPL's processes, which a busy machine changes
little.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

from rlm_mcp.sandbox.choice import OwnedSandbox
from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.portable.sandbox import PortableSandbox
from rlm_mcp.sandbox.types import CallReply, Repl, ReplCall, ReplOptions

LINE = "2026-11-26 10:00:01 INFO worker-3 handled request id=REQ-000123 in 31 ms, status=200\n"
LARGE = TextContext.of(LINE * (100_000_000 // len(LINE)))
SMALL = TextContext.of(LINE)
TRIES = 7
TIMES = 3
TICKS = os.sysconf("SC_CLK_TCK")
PREPARED = """
import re, json, collections
part = context[:10_000_000]; words = part.split(); packed = json.dumps(words)
"""
IDIOMS = {
    "`re.findall`, 100 MB": "re.findall(r'REQ-\\d{6}', context)",
    "`re.search` to the end, 100 MB": "re.search(r'zebra\\d+', context)",
    "`find` to the end, 100 MB": "context.find('zebra-stripe')",
    "`count`, 100 MB": "context.count('status=500')",
    "`splitlines`, 100 MB": "len(context.splitlines())",
    "`lower`, 100 MB": "len(context.lower())",
    "`split`, 10 MB": "part.split()",
    "`Counter` of words, 10 MB": "collections.Counter(words)",
    "loop over lines, 10 MB": "sum('500' in line for line in part.splitlines())",
    "`json.dumps`, 10 MB": "json.dumps(words)",
    "`json.loads`, 10 MB": "json.loads(packed)",
    "`sorted(set(words))`": "sorted(set(words))",
    "a loop of 2 million": "n = 0\nfor k in range(2_000_000): n += k & 3",
}


async def echo(call: ReplCall) -> CallReply:
    return CallReply(text=call.prompt)


async def run(repl: Repl, code: str) -> str:
    result = await repl.execute(code, timeout_seconds=120, on_call=echo)
    assert result.error is None, result.error
    return result.output


def processor_seconds() -> float:
    """The processor's time of all processes below this one; Linux."""
    found: dict[int, tuple[int, float]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            found[int(entry.name)] = int(words[1]), (int(words[11]) + int(words[12])) / TICKS
    ours = {os.getpid()}
    while more := {pid for pid, (parent, _) in found.items() if parent in ours} - ours:
        ours |= more
    return sum(found[pid][1] for pid in ours - {os.getpid()})


async def spent(repl: Repl, code: str) -> float:
    """The processor's time of a piece of code, which runs `TIMES` times in each try."""
    lines = "\n".join(f"    {line}" for line in code.splitlines())
    best = 9e9
    for _ in range(3):
        began = processor_seconds()
        await run(repl, f"for _ in range({TIMES}):\n{lines}")
        best = min(best, (processor_seconds() - began) / TIMES)
    return max(best, 1 / TICKS / TIMES)


async def ready(sandbox: OwnedSandbox, text: TextContext, pause: float = 0) -> tuple[float, float]:
    best, least = 9e9, 9e9
    for _ in range(TRIES):
        await anyio.sleep(pause)
        began, used = time.perf_counter(), processor_seconds()
        async with sandbox.open_repl(text, ReplOptions()):
            best = min(best, time.perf_counter() - began)
            least = min(least, processor_seconds() - used)
    return best, max(least, 1 / TICKS)


async def cells(repl: Repl) -> dict[str, float]:
    await run(repl, "1")
    spent: list[float] = []
    for _ in range(50):
        began = time.perf_counter()
        await run(repl, "1")
        spent.append(time.perf_counter() - began)
    began = time.perf_counter()
    await run(repl, "for _ in range(200): llm_query('x')")
    call = (time.perf_counter() - began) / 200
    began_used = processor_seconds()
    for _ in range(100):
        await run(repl, "1")
    used = (processor_seconds() - began_used) / 100
    return {
        "an empty cell, best": min(spent),
        "an empty cell, processor": max(used, 1 / TICKS / 100),
        "a call of `llm_query`": call,
    }


async def figures(make: Callable[..., OwnedSandbox]) -> dict[str, float]:
    found: dict[str, float] = {}
    cold: dict[str, Any] = {"keep_ready": False} if make is PortableSandbox else {}
    async with make(**cold) as sandbox:
        await sandbox.isolation()
        found["ready"], found["ready, processor"] = await ready(sandbox, SMALL)
        large = await ready(sandbox, LARGE)
        found["ready over 100 MB"], found["ready over 100 MB, processor"] = large
        async with sandbox.open_repl(LARGE, ReplOptions()) as repl:
            found |= await cells(repl)
            await run(repl, PREPARED)
            for name, code in IDIOMS.items():
                found[name] = await spent(repl, code)
    async with make() as sandbox:
        await sandbox.isolation()
        found["kept ready"], _ = await ready(sandbox, SMALL, pause=2)
    return found


async def main() -> None:
    native, portable = await figures(ProcessSandbox), await figures(PortableSandbox)
    print("| ms | native | portable | times |\n|---|---|---|---|")
    for name, value in native.items():
        other = portable[name]
        print(f"| {name} | {value * 1e3:.2f} | {other * 1e3:.2f} | {other / value:.1f} |")
    times = [portable[name] / native[name] for name in IDIOMS]
    print(f"\nText code: median {statistics.median(times):.2f} times, most {max(times):.2f}.")


if __name__ == "__main__":
    anyio.run(main)
