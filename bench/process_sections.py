"""What is measured of whole processes: peak memory with large texts, and a cold start."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from lines import Child
from stdio import ChildPeaks, StdioServer
from subjects import HERE, Place, report
from tables import Samples, Table
from texts import write_text

START_TARGET = 1.15


def memory(place: Place, sizes: list[int]) -> Table:
    """Measure peaks of a server to which a file is added by path and then asked about."""
    rows: list[list[str]] = []
    for size in sizes:
        idle, added, asked, children = _server_peaks(place, size)
        ours = _library_peaks(place.library_command("rlm_mcp"), size)
        replm = _library_peaks(place.replm_command(), size)
        figures = (idle, added, asked, children, *ours, *replm)
        rows.append([f"{size} MB", *(f"{figure:.0f}" for figure in figures)])
    header = [
        "peak MB", "server idle", "file added", "asked", "its largest REPL process",
        "library before", "library", "replm before", "replm",
    ]  # fmt: skip
    note = (
        "`VmHWM` of a real `rlm-mcp` over stdio that stores a file and is asked a question whose "
        "code reads all of it. REPLs of one text share it. "
        "The libraries hold the text as one `str` before they are asked (`before`: without it)."
    )
    return Table("Peak memory", header, rows, note)


def batch(place: Place, sizes: list[int]) -> Table:
    """Measure one `llm_query_batch` at zero latency, and what it takes of memory."""
    rows: list[list[str]] = []
    for size in sizes:
        child = Child(place.library_command("rlm_mcp"))
        try:
            child.ask("run", model="once")  # loads what is loaded once
            report(place.base_url)
            before = child.ask("peak")
            with ChildPeaks(child.process.pid) as children:
                told = child.ask(
                    "run", model=f"batch:{size}", sub_model="sub:0", max_sub_calls=size
                )
            told_of = report(place.base_url)
            assert len(told_of["sub"]) == size, len(told_of["sub"])
            root = told_of["root"]
            seconds, cpu = root[1] - root[0], 1000 * told["cpu"] / size
            host = child.ask("peak") - before
        finally:
            child.close()
        rows.append(
            [
                f"{size:,}",
                f"{seconds:.2f}",
                f"{1000 * seconds / size:.2f}",
                f"{cpu:.2f}",
                f"{host:.1f}",
                f"{children.largest_mb:.1f}",
            ]
        )
    header = [
        "calls", "s", "ms a call", "host CPU ms a call", "host MB more", "REPL process, MB",
    ]  # fmt: skip
    note = (
        "The library, 32 at once, with nobody who listens. `VmHWM`: the host's above its peak at "
        "a first question, the REPL's whole, with the prompts and replies that its code holds."
    )
    return Table("A batch of sub-calls at zero latency", header, rows, note)


def _server_peaks(place: Place, size: int) -> tuple[float, float, float, float]:
    path = place.directory / "text.txt"
    write_text(path, size, "memory")
    server = StdioServer([_rlm_mcp()], _settings(place, f"memory-{size}"))
    with ChildPeaks(server.pid) as children:
        server.start()
        server.request("tools/list")
        idle = server.peak_mb
        handle = server.tool("rlm_context_add", path=str(path))["handle"]
        added = server.peak_mb
        run = server.tool("rlm_query", question="?", contexts=[handle], wait_seconds=300)
        assert run["answer"] == "done", run
        asked = server.peak_mb
    server.close()
    path.unlink()
    return idle, added, asked, children.largest_mb


def _library_peaks(command: Sequence[str], size: int) -> tuple[float, float]:
    child = Child(command)
    before = child.ask("peak")
    child.ask("text", megabytes=size, salt="memory")
    child.ask("run", model="look")
    peak = child.ask("peak")
    child.close()
    return before, peak


def cold_start(place: Place, repeat: int) -> Table:
    """Measure from the start of a server's process to its list of tools."""
    wall, cpu = Samples(), Samples()
    ways = {
        "bare `MCPServer`, one tool": [sys.executable, str(HERE / "bare_server.py")],
        "rlm-mcp": [_rlm_mcp()],
    }
    # As on a machine where they have run before, whatever the installer and this shell do.
    bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(place.directory / "code")}
    settings = _settings(place, "cold") | bytecode
    for number in range(repeat + 1):
        for name, command in ways.items():
            seconds, cpu_seconds = _start(command, settings)
            if number:
                wall.add(name, 1000 * seconds)
                cpu.add(name, 1000 * cpu_seconds)
    bare, *_ = ways
    rows = [
        [
            name,
            *(f"{cpu.median(name):.0f}", cpu.spread(name)),
            f"{cpu.median(name) / cpu.median(bare):.2f}",
            *(f"{wall.median(name):.0f}", f"{wall.median(name) / wall.median(bare):.2f}"),
        ]
        for name in ways
    ]
    verdict = "met" if cpu.median("rlm-mcp") <= START_TARGET * cpu.median(bare) else "missed"
    note = (
        f"Until `tools/list` is answered. Medians of {repeat} pairs, real processes with their "
        "bytecode at hand, JSON lines without a client library. "
        f"Target: at most {START_TARGET} times the CPU, {verdict}."
    )
    header = ["", "CPU ms", "middle half", "ratio", "ms", "ratio"]
    return Table("Cold start", header, rows, note)


def _start(command: Sequence[str], settings: Mapping[str, str]) -> tuple[float, float]:
    started = time.monotonic()
    server = StdioServer(command, settings)
    server.start()
    assert server.request("tools/list")["tools"]
    seconds, cpu_seconds = time.monotonic() - started, server.cpu_seconds
    server.close()
    return seconds, cpu_seconds


def _settings(place: Place, name: str) -> dict[str, str]:
    return {
        "RLM_MCP_BASE_URL": place.base_url,
        "RLM_MCP_ROOT_MODEL": "look",
        "RLM_MCP_SUB_MODEL": "sub:50",
        "RLM_MCP_DATA_DIR": str(place.directory / name),
        "RLM_MCP_ALLOWED_PATHS": str(place.directory),
    }


def _rlm_mcp() -> str:
    beside = Path(sys.executable).parent / "rlm-mcp"
    found = str(beside) if beside.exists() else shutil.which("rlm-mcp")
    if found is None:
        raise SystemExit("rlm-mcp is not installed beside this Python; run `uv sync` first.")
    return found
