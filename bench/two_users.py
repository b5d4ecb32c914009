"""What one user of a server can take from another: `python bench/two_users.py [--seconds N]`.

A real server over HTTP with two users. Ann does at once, over and over, all that may starve
others: cells that spin, start threads, fill memory, flood their output, hold huge values and slow
`repr`s, and write rubbish to the host; looks at those values; questions by the dozen; patterns that
run away; texts stored and deleted; the state of the server. Bob reads a text ten times a second,
asks a question every two seconds, and looks at what an earlier cell of his left. Printed is how
soon Bob is answered, alone and beside Ann, and what of his was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpx2
from anyio.abc import ByteReceiveStream
from anyio.streams.text import TextReceiveStream
from mcp.shared.exceptions import MCPError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rlm_mcp.testing.scripted_model import (
    Answer,
    ChatRequestView,
    ScriptedModel,
    open_scripted_model,
)
from tests.http_serving import ANN, BOB, Site
from tests.serving import Served, cell, settings_in, text_of
from tests.test_http_process import open_program

TEXT = "a line of a text that goes on and on\n" * 2_400_000  # 87 MB
SLOW = "class S:\n    def __repr__(self):\n        while True: pass\n"
CELLS = {
    "spins": "while True: pass",
    "starts threads": "import threading, time\nfor n in range(3000):\n"
    "    threading.Thread(target=time.sleep, args=(30,)).start()",
    "leaves threads that spin": "import threading\ndef spin():\n    while True: pass\n"
    "for n in range(100): threading.Thread(target=spin, daemon=True).start()",
    "fills memory": "kept = []\nwhile True: kept.append(bytearray(1 << 20))",
    "floods its output": "while True: print('x' * 100_000)",
    "holds a dict of three million": "index = {n: str(n) for n in range(3_000_000)}",
    "holds the lines of 87 MB": "lines = context.split('\\n')",
    "has a slow repr": SLOW + "slow = S()",
    "writes rubbish to the host": "import os\nfor n in range(3, 64):\n"
    "    try: os.write(n, b'x' * 99)\n    except OSError: pass",
    "raises what cannot be shown": SLOW.replace("__repr__", "__str__").replace(
        "S:", "S(Exception):"
    )
    + "raise S()",
}


@dataclass
class Figures:
    """How soon Bob was answered, in seconds, and what of his was lost."""

    reads: list[float] = field(default_factory=list[float])
    starts: list[float] = field(default_factory=list[float])
    answers: list[float] = field(default_factory=list[float])
    lost: list[str] = field(default_factory=list[str])

    def row(self, what: str) -> str:
        """A row of the table."""
        reads = sorted(self.reads)
        return (
            f"| {what} | {len(reads)} | {1000 * statistics.median(reads):.1f} ms "
            f"| {1000 * reads[int(len(reads) * 0.95)]:.0f} ms | {len(self.starts)} "
            f"| {1000 * statistics.median(self.starts):.0f} ms | {max(self.starts):.2f} s "
            f"| {max(self.answers):.2f} s | {len(self.lost)} |"
        )


class Bob:
    """A user with modest wishes."""

    def __init__(self, served: Served, model: ScriptedModel) -> None:
        self._served = served
        self._model = model
        self._asked: dict[str, tuple[float, anyio.Event]] = {}
        self.figures = Figures()
        self._number = 0
        self._handle = self._kept = ""

    async def settle(self) -> None:
        """Store a text, and leave a variable in a REPL."""
        added = await self._served.call("rlm_context_add", text="some text of mine")
        self._handle = added["handle"]
        done = await self._served.call("rlm_exec", code="mine = 42", contexts=[self._handle])
        self._kept = done["run_id"]

    def hear(self, question: str) -> None:
        """Note that the model was asked."""
        for number, (asked, heard) in self._asked.items():
            if number in question and not heard.is_set():
                heard.set()
                self.figures.starts.append(time.perf_counter() - asked)

    async def live(self, seconds: float) -> None:
        """Read, ask and look for a while."""
        self.figures = Figures()
        with anyio.move_on_after(seconds):
            async with anyio.create_task_group() as tasks:
                for work, pause in ((self._read, 0.1), (self._ask, 2.0), (self._look, 1.0)):
                    tasks.start_soon(self._again, work, pause)

    async def _again(self, work: Callable[[], Awaitable[None]], pause_seconds: float) -> None:
        while True:
            with anyio.CancelScope(shield=True):
                try:
                    with anyio.fail_after(60):
                        await work()
                except (MCPError, AssertionError, TimeoutError) as error:
                    self.figures.lost.append(f"{work.__name__}: {error!r}"[:300])
            await anyio.sleep(pause_seconds)

    async def _read(self) -> None:
        began = time.perf_counter()
        read = await self._served.call("rlm_context_read", handle=self._handle)
        self.figures.reads.append(time.perf_counter() - began)
        assert read["text"] == "some text of mine"

    async def _ask(self) -> None:
        self._number += 1
        name = f"bob-{self._number}-"
        began = time.perf_counter()
        self._asked[name] = began, anyio.Event()
        run = await self._served.call("rlm_query", question=name, contexts=[self._handle])
        self.figures.answers.append(time.perf_counter() - began)
        assert run["answer"] == "read 17", (run["status"], run["error"])

    async def _look(self) -> None:
        done = await self._served.call("rlm_exec", code="mine", run_id=self._kept)
        assert (done["output"], done.get("note")) == ("42\n", None), done


class Ann:
    """A user who takes what she gets."""

    def __init__(self, served: Served, http: httpx2.AsyncClient) -> None:
        self._served = served
        self._http = http
        self._handle = ""
        self.done = Counter[str]()

    async def settle(self) -> None:
        """Store a large text."""
        self._handle = await self._put(TEXT)

    async def _put(self, text: str) -> str:
        return (await self._http.put("/contexts/large", content=text.encode())).json()["handle"]

    async def rage(self) -> None:
        """Do all of it until cancelled."""
        async with anyio.create_task_group() as tasks:
            for name, code in CELLS.items():
                tasks.start_soon(self._again, name, self._cell(code))
            for number in range(24):
                tasks.start_soon(self._again, "asks", self._question(number))
            for _ in range(4):
                tasks.start_soon(self._again, "searches", self._search)
            tasks.start_soon(self._again, "stores and deletes", self._store)
            for _ in range(4):
                tasks.start_soon(self._again, "asks for the state", self._status)

    async def _again(self, name: str, work: Callable[[], Awaitable[str]]) -> None:
        while True:
            with suppress(MCPError):
                said = await work()
                self.done[f"{name}: {said}"] += 1
            await anyio.sleep(0.01)

    def _cell(self, code: str) -> Callable[[], Awaitable[str]]:
        async def run() -> str:
            made = await self._served.raw(
                "rlm_exec", code=code, contexts=[self._handle], timeout_seconds=10
            )
            run_id = made.structured_content["run_id"] if made.structured_content else "run_0"
            for name in ("", "slow", "index", "lines"):
                await self._served.raw("rlm_run_variables", run_id=run_id, name=name)
            await self._served.raw("rlm_exec", code="1", run_id=run_id)
            return text_of(made)[:20] if made.is_error else "ran"

        return run

    def _question(self, number: int) -> Callable[[], Awaitable[str]]:
        async def ask() -> str:
            asked = f"ann-{number}-{time.perf_counter()}"
            made = await self._served.raw("rlm_query", question=asked, contexts=[self._handle])
            return (made.structured_content or {"status": text_of(made)[:20]})["status"]

        return ask

    async def _search(self) -> str:
        pattern = r"(a|aa)+(on|onon)+\d{7}$"
        made = await self._served.raw("rlm_context_search", handles=[self._handle], pattern=pattern)
        return text_of(made)[:20] if made.is_error else "found"

    async def _store(self) -> str:
        handle = await self._put(f"{time.perf_counter()} {TEXT[:20_000_000]}")
        await self._served.raw("rlm_context_delete", handle=handle)
        return "done"

    async def _status(self) -> str:
        await self._served.raw("rlm_status")
        return "told"


async def be_ann(url: str, directory: Path) -> None:
    """Store a large text, say so, and do all of it until killed."""
    async with open_scripted_model(lambda _: "unused") as model:
        site = Site(url, model, settings_in(directory))
        async with site.open_client(ANN) as served, site.open_http(ANN) as http:
            ann = Ann(served, http)
            await ann.settle()
            print("ready", flush=True)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ann.rage)
                while True:
                    await anyio.sleep(5)
                    print(json.dumps(ann.done), flush=True)


@asynccontextmanager
async def open_ann(url: str, directory: Path) -> AsyncGenerator[list[str]]:
    """Run Ann in a process of her own: her client costs Bob's nothing; gives what it said."""
    command = [sys.executable, __file__, "--ann", url, str(directory)]
    said: list[str] = []
    # In a session of its own: it would be on another machine, and not share the server's part.
    async with await anyio.open_process(command, stderr=None, start_new_session=True) as process:
        assert process.stdout is not None
        ready = anyio.Event()

        async def listen(stream: ByteReceiveStream) -> None:
            async for text in TextReceiveStream(stream):
                said.extend(text.splitlines())
                ready.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen, process.stdout)
            await ready.wait()
            yield said
            process.kill()
            tasks.cancel_scope.cancel()


async def main(seconds: float) -> None:
    """Measure, and print a table."""
    users: list[Bob] = []

    def answer(request: ChatRequestView) -> Answer:
        text = str(request.messages)
        if "bob-" in text:
            for user in users:
                user.hear(text)
            return cell("FINAL(f'read {len(context)}')")
        return cell(CELLS["holds a dict of three million"] + "\nwhile True: pass")

    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the start\n")
    said: list[str] = []
    alone = beside = Figures()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        async with open_scripted_model(answer) as model:
            variables = {
                "RLM_MCP_BASE_URL": model.base_url,
                "RLM_MCP_ROOT_MODEL": "root",
                "RLM_MCP_HTTP_TOKENS": f"ann={ANN},bob={BOB}",
                "RLM_MCP_DIRECT_MAX_CHARS": "0",
            }
            async with open_program(directory, environment=variables) as program:
                site = Site(program.url, model, settings_in(directory))
                async with site.open_client(BOB) as his:
                    bob = Bob(his, model)
                    users.append(bob)
                    await bob.settle()
                    await bob.live(seconds / 2)
                    alone = bob.figures
                    async with open_ann(program.url, directory) as said:
                        await anyio.sleep(5)
                        await bob.live(seconds)
                    beside = bob.figures
    print("| Bob | reads | median | 95% | asked | start, median | latest | answer, latest | lost |")
    print("|---|---|---|---|---|---|---|---|---|")
    print(alone.row("alone"))
    print(beside.row("beside Ann"))
    print("\nAnn did:", said[-1])
    for what in beside.lost:
        print("lost:", what)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--ann", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ann:
        anyio.run(be_ann, arguments.ann[0], Path(arguments.ann[1]))
    else:
        anyio.run(main, arguments.seconds)
