"""The sandbox in figures: `python bench/sandbox.py [--gigabyte]`; a table in Markdown.

Against starting a fresh interpreter that is handed the same text, in one run. Private memory is
what `smaps_rollup` says of the REPL's own pages, so it needs root (or the same, undropped, user).
"""

from __future__ import annotations

import argparse
import ast
import csv
import hashlib
import io
import json
import os
import platform
import re
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import UserString
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import anyio

from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.sandbox.types import CallReply, Repl, ReplCall, ReplOptions

MB = 1 << 20
LINE = "the quick brown fox jumps over the lazy dog, as it did on the day before, and sleeps\n"
KINDS = {"Latin": "é", "Cyrillic": "привет", "Chinese": "你好世界", "one emoji in ASCII": ""}
IDIOMS: dict[str, Callable[[Any], object]] = {
    "re.search": lambda text: re.search(r"\d", text),
    "re.findall": lambda text: re.findall(r"\d", text),
    "compiled finditer": lambda text: list(re.compile("a").finditer(text)),
    "re.split": lambda text: re.split(r"\s", text),
    "json.loads": lambda text: json.loads(text.__class__("[1]")),
    "io.StringIO": io.StringIO,
    "join": lambda text: "".join([text, "x"]),
    "isinstance": lambda text: len(text) if isinstance(text, str) else text.none,
    "ast.parse": lambda text: ast.parse(text.__class__("x = 1")),
    "sys.stdout.write": lambda text: io.StringIO().write(text),
    "str.upper(text)": str.upper,
    "hashing": lambda text: hashlib.sha256(text.encode()).hexdigest(),
    "slicing": lambda text: text[:5] + "x",
    "find": lambda text: text.find("beta"),
    "in": lambda text: "beta" in text,
    "split": lambda text: text.split("\n"),
    "splitlines": lambda text: text.splitlines(),
    "count": lambda text: text.count("a"),
    "formatting": lambda text: f"{text} {text[:3]}",
    "iteration": list,
    "csv": lambda text: list(csv.reader(text.splitlines())),
    "textwrap": textwrap.fill,
}
FRESH = "import sys; text = sys.stdin.buffer.read().decode(); print(len(text)); sys.stdin.close()"


@dataclass(frozen=True)
class Generated:
    """A text of a size, made as it is read."""

    size: int
    block: bytes = (LINE * (MB // len(LINE) + 1)).encode()[:MB]
    documents: int = 1
    last: bytes = b""

    @property
    def key(self) -> str:
        return f"{self.size}-{self.documents}-{hash((self.block, self.last))}"

    @property
    def names(self) -> Sequence[str]:
        return [f"d{number}" for number in range(self.documents)]

    @cached_property
    def byte_lengths(self) -> Sequence[int]:
        if self.documents == 1:
            return (self.size // len(self.block) * len(self.block) + len(self.last),)
        return (self.size // self.documents,) * self.documents

    @property
    def char_lengths(self) -> Sequence[int]:
        return self.byte_lengths

    @property
    def is_list(self) -> bool:
        return self.documents > 1

    @property
    def prefix(self) -> str:
        return ""

    def chunks(self) -> Iterator[bytes]:
        left = sum(self.byte_lengths) - len(self.last)
        while left > 0:
            yield self.block[:left]
            left -= len(self.block)
        yield self.last


async def echo(call: ReplCall) -> CallReply:
    return CallReply(text=call.prompt)


async def run(repl: Repl, code: str) -> str:
    result = await repl.execute(code, timeout_seconds=300, on_call=echo)
    return result.error.traceback if result.error else result.output.strip()


def show(what: str, *figures: str) -> None:
    print(f"| {what} | {' | '.join(figures)} |", flush=True)


def milliseconds(samples: Sequence[float]) -> str:
    return f"{1000 * statistics.median(samples):.1f} ms (of {len(samples)})"


def tree() -> list[int]:
    """Return the processes below this one."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat[1])
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return sorted(ours - {os.getpid()})


def memory_of(pid: int, what: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024
    return 0


async def fresh_interpreter(source: Generated, times: int) -> list[float]:
    """Start an interpreter and hand it the text by its standard input; seconds until it is read."""
    text = b"".join(source.chunks())

    def once() -> float:
        start = time.perf_counter()
        command = [sys.executable, "-I", "-S", "-c", FRESH]
        subprocess.run(command, input=text, capture_output=True, check=True)
        return time.perf_counter() - start

    return [await anyio.to_thread.run_sync(once) for _ in range(times)]


async def ready(sandbox: ProcessSandbox, megabytes: int, times: int) -> None:
    """The first REPL over a text, further ones, and a fresh interpreter each time."""
    source = Generated(megabytes * MB)
    start = time.perf_counter()
    async with sandbox.open_repl(source, ReplOptions()):
        first = time.perf_counter() - start
        samples: list[float] = []
        for _ in range(times):
            start = time.perf_counter()
            async with sandbox.open_repl(source, ReplOptions()):
                samples.append(time.perf_counter() - start)
    fresh = await fresh_interpreter(source, 3)
    show(
        f"REPL ready over {megabytes} MB",
        f"first {1000 * first:.0f} ms, further {milliseconds(samples)}",
        f"fresh interpreter {milliseconds(fresh)}",
    )


async def many(sandbox: ProcessSandbox, megabytes: int, count: int) -> None:
    """The memory of many REPLs over one text."""
    source = Generated(megabytes * MB)
    async with sandbox.open_repl(source, ReplOptions()) as repl, AsyncExitStack() as stack:
        await run(repl, "1")
        before = set(tree())
        for _ in range(count):
            opened = await stack.enter_async_context(sandbox.open_repl(source, ReplOptions()))
            await run(opened, "x = context[:100]; len(context)")
        further = set(tree()) - before
        private = [memory_of(pid, "Private_Dirty") for pid in further]
        total = sum(memory_of(pid, "Pss") for pid in tree())
    show(
        f"{count} REPLs over one text of {megabytes} MB",
        f"{statistics.median(private) / MB:.1f} MB private each, {total / MB:,.0f} MB in all",
        f"fresh interpreters: {count * megabytes:,} MB of text alone",
    )


async def floor() -> float:
    """Seconds of a message to another process and back on this event loop: no REPL does better."""
    ours, theirs = socket.socketpair()
    code = "import socket, sys; s = socket.socket(fileno=int(sys.argv[1]))\n"
    code += "while d := s.recv(99): s.send(d)"
    command = [sys.executable, "-I", "-S", "-c", code, str(theirs.fileno())]
    samples: list[float] = []
    with ours, subprocess.Popen(command, pass_fds=[theirs.fileno()]) as echoing:  # noqa: ASYNC220  # a bench
        theirs.close()
        ours.setblocking(False)
        for _ in range(1000):
            start = time.perf_counter()
            ours.send(b"x")
            await anyio.wait_readable(ours)
            ours.recv(99)
            samples.append(time.perf_counter() - start)
        echoing.kill()
    return statistics.median(samples)


async def latency(sandbox: ProcessSandbox) -> None:
    """An empty cell, and calls in sequence and in a batch."""
    async with sandbox.open_repl(Generated(MB), ReplOptions()) as repl:
        cells: list[float] = []
        for _ in range(1000):
            start = time.perf_counter()
            await run(repl, "")
            cells.append(time.perf_counter() - start)
        clock = "import time; t = time.perf_counter()\n{}\ntime.perf_counter() - t"
        sequence = [
            float(await run(repl, clock.format("for n in range(1000): llm_query('x')")))
            for _ in range(5)
        ]
        batch = [
            float(await run(repl, clock.format("llm_query_batch(['x'] * 1000)"))) for _ in range(5)
        ]
    show(
        "empty cell", f"{1000 * statistics.median(cells):.2f} ms", f"least {1000 * min(cells):.2f}"
    )
    show(
        "1,000 calls in sequence", f"{statistics.median(sequence):.2f} s", f"{min(sequence):.2f} s"
    )
    show("1,000 calls in a batch", f"{statistics.median(batch):.2f} s", f"{min(batch):.2f} s")


async def from_sqlite(sandbox: ProcessSandbox) -> None:
    """100 MB of chunks in a database, read plainly and handed to a ready REPL."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/chunks.db"
        database = sqlite3.connect(path)
        database.execute("create table chunks (at integer primary key, data blob)")
        plain = Generated(100 * MB)
        rows = ((at * MB, chunk) for at, chunk in enumerate(plain.chunks()))
        database.executemany("insert into chunks values (?, ?)", rows)
        database.commit()
        database.close()

        class Stored(Generated):
            def chunks(self) -> Iterator[bytes]:
                for _, data in self.chunks_between(0, self.size):
                    yield data

            def chunks_between(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
                with closing(sqlite3.connect(path)) as reader:
                    sql = "select at, data from chunks where at >= ? and at < ? order by at"
                    yield from reader.execute(sql, (start, end))

        reads: list[float] = []
        hands: list[float] = []
        for number in range(5):
            start = time.perf_counter()
            sum(len(chunk) for chunk in Stored(100 * MB).chunks())
            reads.append(time.perf_counter() - start)
            source = Stored(100 * MB, last=b"%d" % number)
            source.__dict__["byte_lengths"] = (100 * MB,)
            start = time.perf_counter()
            async with sandbox.open_repl(source, ReplOptions()):
                hands.append(time.perf_counter() - start)
    show("100 MB from SQLite to a ready REPL", milliseconds(hands), f"read {milliseconds(reads)}")


async def walking(sandbox: ProcessSandbox) -> None:
    """A million small documents, walked: what it costs in time and private memory."""
    source = Generated(100_000_000, block=b"x" * 100 * 10_000, documents=1_000_000)
    async with sandbox.open_repl(source, ReplOptions()) as repl:
        before = set(tree())
        async with sandbox.open_repl(source, ReplOptions()) as other:
            await run(other, "1")
            (pid,) = set(tree()) - before
            private = memory_of(pid, "Pss_Anon")
            start = time.perf_counter()
            assert await run(other, "sum(map(len, context))") == "100000000"
            seconds = time.perf_counter() - start
            grown = memory_of(pid, "Pss_Anon") - private
        await run(repl, "real = list(context)")
    show("walking 1,000,000 documents", f"{seconds:.2f} s", f"{grown / MB:.1f} MB more private")


async def searching(sandbox: ProcessSandbox) -> None:
    """`search` over 100 MB, as one text and as documents."""
    for documents in (1, 10_000):
        source = Generated(100 * MB, documents=documents)
        async with sandbox.open_repl(source, ReplOptions()) as repl:
            start = time.perf_counter()
            await run(repl, "search('lazy zebra yesterday', 5)")
            seconds = time.perf_counter() - start
        show(f"`search` over 100 MB, {documents:,} documents", f"{seconds:.2f} s", "")


async def widths(sandbox: ProcessSandbox) -> None:
    """What scripts cost as a `str`, and what breaks with any object that is no `str`."""
    for name, word in KINDS.items():
        block = (word or LINE).encode() * 1000
        last = "😀".encode() if not word else b""
        source = Generated(20 * MB // len(block) * len(block), block=block, last=last)
        async with sandbox.open_repl(source, ReplOptions()) as repl:
            wide = await run(repl, "import sys; round(sys.getsizeof(context) / 1048576 / 20, 2)")
        show(f"`str` of {name}", f"{wide} bytes a byte of UTF-8", "")
    failed = [name for name, idiom in IDIOMS.items() if not works(idiom)]
    show(
        "a view that is no `str` (`UserString`)",
        f"{len(failed)} of {len(IDIOMS)} idioms fail",
        ", ".join(failed),
    )


def works(idiom: Callable[[Any], object]) -> bool:
    try:
        idiom(UserString("alpha beta 1\ngamma 2\n"))
    except (TypeError, AttributeError, AssertionError):
        return False
    return True


async def main(*, gigabyte: bool) -> None:
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores,")
    print(f"load {os.getloadavg()[0]:.1f} before the start\n\n| what | measured | beside it |")
    print("|---|---|---|")
    async with ProcessSandbox() as sandbox:
        start = time.perf_counter()
        isolation = await sandbox.isolation()
        show("warm process and self-test", f"{time.perf_counter() - start:.2f} s", isolation.level)
        await latency(sandbox)
        await ready(sandbox, 1, 20)
        await ready(sandbox, 100, 20)
        await from_sqlite(sandbox)
        await walking(sandbox)
        await searching(sandbox)
        await widths(sandbox)
        if gigabyte:
            await ready(sandbox, 1024, 10)
            await many(sandbox, 1024, 100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabyte", action="store_true", help="the gigabyte too (3 GB of memory)")
    anyio.run(lambda: main(gigabyte=parser.parse_args().gigabyte))
