"""How soon the model is asked over a large text: `python bench/first_call.py [--beside CHECKOUT]`.

A real server over stdio gets a text. Measured is the time from a question to the first request that
reaches the model:

1. the first question over the text;
2. another one: the process that holds the text is there;
3. that process was killed: another one must hold the text, in the same server;
4. the server was killed, and the next one has tried its walls: what a restart costs a user;
5. likewise, asked at once: starting the server's sandbox included.

With `--beside`, a server of that checkout takes turns with one of this checkout, so that both meet
the same noise. `--megabytes 4096` shows a text that no memory should hold; printed beside the times
is what the server and its processes then have in memory that is no page of a file.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread
import texts
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rlm_mcp.testing.scripted_model import (
    Answer,
    ChatRequestView,
    ScriptedModel,
    open_scripted_model,
)
from tests.killing import children_of_this_process
from tests.serving import KEY, Served, cell, settings_in

HERE = Path(__file__).resolve().parent.parent
WAIT_SECONDS = 3000
NAMES = (
    "the first question",
    "another question",
    "after the holder was killed",
    "after the server was killed, its walls tried",
    "after the server was killed, at once",
)


@dataclass
class Times:
    """What each of `NAMES` took in milliseconds, and the memory that is no page of a file."""

    first_call: dict[str, list[float]] = field(
        default_factory=lambda: {name: list[float]() for name in NAMES}
    )
    private_mb: list[float] = field(default_factory=list[float])


class Model:
    """Answers, and notes when it was first asked."""

    def __init__(self) -> None:
        self.asked_at = 0.0

    def answer(self, request: ChatRequestView) -> Answer:
        turn = sum(message["role"] == "assistant" for message in request.messages)
        if not turn:
            self.asked_at = time.perf_counter()
            return cell("print(len(context), context[-40:])")
        return "FINAL(done)"


def descendants(of: int) -> list[int]:
    """The processes below another, parents first."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                rest = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(rest[1])
    found, level = list[int](), [of]
    while level:
        level = [pid for pid, parent in parents.items() if parent in level]
        found += level
    return found


def holders(server: int) -> list[int]:
    """The processes that map the text, REPLs among them."""
    found: list[int] = []
    for pid in descendants(server):
        with suppress(OSError):
            sizes = Path(f"/proc/{pid}/maps").read_text().splitlines()
            if any(is_text(line) for line in sizes):
                found.append(pid)
    return found


def is_text(line: str) -> bool:
    """Whether a line of `maps` is a file with a text: of ours, or in memory."""
    return "/memfd:context" in line or ".text" in line or ".part" in line


def private_mb(pids: list[int]) -> float:
    """The memory of processes that is theirs alone, or is shared and no file's, in MB."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                    total += int(line.split()[1])
    return total / 1000


def shared_mb() -> float:
    """What files in memory take on this machine: a text in such a file is in nobody's `smaps`."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    line = next(one for one in lines if one.startswith("Shmem:"))
    return int(line.split()[1]) / 1000


@dataclass
class Server:
    """A server of a checkout, its process, and its client."""

    served: Served
    pid: int
    is_killed: bool = False

    def kill(self) -> None:
        """End it as a crash would."""
        self.is_killed = True
        os.kill(self.pid, signal.SIGKILL)


@asynccontextmanager
async def opened(directory: Path, model: ScriptedModel, checkout: Path) -> AsyncGenerator[Server]:
    """Start a server; that it is killed later is expected."""
    env = {
        "HOME": str(directory),
        "RLM_MCP_DATA_DIR": str(directory / "data"),
        "RLM_MCP_ALLOWED_PATHS": str(directory),
        "RLM_MCP_BASE_URL": model.base_url,
        "RLM_MCP_API_KEY": KEY,
        "RLM_MCP_ROOT_MODEL": "root",
        "RLM_MCP_MIN_ISOLATION": "process",
    }
    before = await anyio.to_thread.run_sync(children_of_this_process)
    server: Server | None = None
    parameters = StdioServerParameters(
        command=sys.executable, args=["-m", "rlm_mcp"], env=env, cwd=checkout
    )
    try:
        async with Client(stdio_client(parameters)) as client:
            [pid] = await anyio.to_thread.run_sync(children_of_this_process) - before
            server = Server(Served(client, model, settings_in(directory)), pid)
            yield server
    except Exception:  # the client of a server that was killed
        if server is None or not server.is_killed:
            raise


async def ask(server: Server, handle: str, model: Model) -> float:
    """Ask a question; milliseconds until the model was asked."""
    started = time.perf_counter()
    run = await server.served.call(
        "rlm_query", question=f"At {started}?", contexts=[handle], wait_seconds=300
    )
    while run["status"] == "running":
        run = await server.served.call("rlm_run_wait", run_id=run["run_id"], wait_seconds=300)
    assert run["status"] == "completed", run
    return 1000 * (model.asked_at - started)


async def kill_holders(server: Server) -> None:
    """Kill what holds the text, and the REPL that was kept."""
    for pid in await anyio.to_thread.run_sync(holders, server.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def until_complete(directory: Path) -> None:
    """Wait until files of texts that are being checked have their names."""
    with anyio.fail_after(WAIT_SECONDS):
        while await anyio.to_thread.run_sync(lambda: list(directory.rglob("*.part"))):  # noqa: ASYNC110  # another process's
            await anyio.sleep(0.1)


async def measure(text: Path, checkout: Path, times: Times, rounds: int) -> None:
    """Measure one checkout with a new database."""
    scripted = Model()
    with tempfile.TemporaryDirectory(dir=text.parent) as place:
        directory = Path(place)
        (directory / "text.txt").hardlink_to(text)
        async with open_scripted_model(scripted.answer, keep=1) as model:
            note = times.first_call
            async with opened(directory, model, checkout) as server:
                shared = shared_mb()
                await server.served.call("rlm_status")  # answered once the walls were tried
                added = await server.served.call(
                    "rlm_context_add", path=str(directory / "text.txt")
                )
                handle = added["handle"]
                note[NAMES[0]].append(await ask(server, handle, scripted))
                await until_complete(directory)
                for _ in range(rounds):
                    note[NAMES[1]].append(await ask(server, handle, scripted))
                    await kill_holders(server)
                    note[NAMES[2]].append(await ask(server, handle, scripted))
                pids = [server.pid, *await anyio.to_thread.run_sync(descendants, server.pid)]
                private = await anyio.to_thread.run_sync(private_mb, pids)
                times.private_mb.append(private + max(0, shared_mb() - shared))
                server.kill()
            for name in NAMES[3:] * rounds:
                async with opened(directory, model, checkout) as server:
                    await server.served.call(
                        "rlm_status" if name == NAMES[3] else "rlm_context_list"
                    )
                    note[name].append(await ask(server, handle, scripted))
                    server.kill()


async def main(arguments: argparse.Namespace) -> None:
    """Measure in turns, and print a table."""
    checkouts = {"now": HERE}
    if arguments.beside:
        checkouts = {"before": arguments.beside.resolve(), **checkouts}
    times = {name: Times() for name in checkouts}
    with tempfile.TemporaryDirectory(dir=arguments.directory) as place:
        text = Path(place) / "text.txt"
        await anyio.to_thread.run_sync(texts.write_text, text, arguments.megabytes, "first call")
        for _ in range(arguments.rounds):
            for name, checkout in checkouts.items():
                await measure(text, checkout, times[name], arguments.rounds)
    print(f"| {arguments.megabytes} MB, question to first model call | {' | '.join(times)} |")
    print("|---" * (len(times) + 1) + "|")
    for name in NAMES:
        medians = [
            f"{statistics.median(one.first_call[name]):.0f} ms "
            f"({min(one.first_call[name]):.0f} to {max(one.first_call[name]):.0f})"
            for one in times.values()
        ]
        print(f"| {name} | {' | '.join(medians)} |")
    private = [f"{statistics.median(one.private_mb):.0f} MB" for one in times.values()]
    print(f"| memory that is no page of a file | {' | '.join(private)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beside", type=Path, help="another checkout")
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="where texts and databases are")
    anyio.run(main, parser.parse_args())
