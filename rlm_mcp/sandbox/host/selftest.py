"""The self-test of the walls: a REPL tries to get past them, before any model code runs."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from pathlib import Path

from anyio import to_thread

from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import CallReply, Repl, ReplCall, ReplOptions

TEXT = TextContext.of("the walls are tested before model code runs")
OPTIONS = ReplOptions(sub_calls=False, memory_bytes=64 << 20)
SECONDS = 20

_ATTEMPTS = """
import json, os, socket, subprocess
def read_a_file():
    return open(canary).read() == "canary"
def open_a_socket():
    return socket.create_connection(("127.0.0.1", port), timeout=2)
def start_a_process():
    if os.fork() == 0:
        os._exit(0)
    return True
def run_a_program():
    return subprocess.run([program, "-c", ""]).returncode == 0
def signal_the_host():
    os.kill(host, 0)
    return True
def exceed_its_memory():
    return len(bytearray(256 << 20))
through = []
for attempt in (read_a_file, open_a_socket, start_a_process, run_a_program, signal_the_host,
                exceed_its_memory):
    try:
        if attempt():
            through.append(attempt.__name__.replace("_", " "))
    except (OSError, MemoryError, subprocess.SubprocessError, AttributeError):
        pass
print(json.dumps(through))
"""


async def find_breaches(repl: Repl, program: str, *, memory: bool = True) -> list[str]:
    """Return what a REPL was able to do but must not; empty if the walls hold.

    `memory`: the kernel enforces the memory limit.
    """
    canary = await to_thread.run_sync(_lay_canary)
    listener = socket.create_server(("127.0.0.1", 0))
    try:
        given = {
            "canary": str(canary),
            "port": listener.getsockname()[1],
            "program": program,
            "host": os.getpid(),
        }
        code = "".join(f"{name} = {value!r}\n" for name, value in given.items()) + _ATTEMPTS
        result = await repl.execute(code, timeout_seconds=SECONDS, on_call=_no_call)
    finally:
        listener.close()
        await to_thread.run_sync(canary.unlink)
    if result.error is not None:
        return [f"finish its self-test: {result.error.message}"]
    found: list[str] = json.loads(result.output)
    return [breach for breach in found if memory or breach != "exceed its memory"]


def _lay_canary() -> Path:
    descriptor, path = tempfile.mkstemp(prefix="rlm-mcp-canary-")
    os.write(descriptor, b"canary")
    os.close(descriptor)
    canary = Path(path)
    canary.chmod(0o644)  # readable by everyone: only the walls protect it
    return canary


async def _no_call(_call: ReplCall) -> CallReply:
    return CallReply(error="calls are not available in the self-test")
