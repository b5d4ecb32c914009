"""Runs attempts in REPLs and judges them from outside. A program, too: its argument is JSON."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import anyio

from rlm_mcp.errors import NotFoundError, SandboxError
from rlm_mcp.sandbox.choice import OwnedSandbox
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import (
    CallReply,
    CellResult,
    Repl,
    ReplCall,
    ReplOptions,
    Walls,
)
from tests.sandbox_attempts import ATTEMPTS, PRELUDE, Attempt
from tests.walls import a_sandbox

NOBODY = 65534
SHARED = Path(f"/dev/shm/rlm-mcp-escape-{os.getpid()}")
TEXT = TextContext.of("nothing of worth\n")
_MARKS = "LISTED READ TRACED SENT LISTENS NETLINK VSOCK RESOLVED SHM MSG SEM MQ WROTE PASSED WORKED"
MARKS = frozenset(_MARKS.split())
OPTIONS = ReplOptions(memory_bytes=256 << 20, call_window=8)
MAX_HOST_GROWTH_KB = 500_000
AT_ONCE = 6


@dataclass
class Arena:
    """What attempts aim at, and how it looked before."""

    canary: Path
    folder: Path
    secret: str
    listeners: dict[str, socket.socket]
    victim: subprocess.Popen[bytes]

    def given(self) -> dict[str, Any]:
        return {
            "canary": str(self.canary),
            "folder": str(self.folder),
            "port": self.listeners["tcp"].getsockname()[1],
            "abstract": self.listeners["abstract"].getsockname()[1:].decode(),
            "unix_path": self.listeners["unix"].getsockname(),
            "victim": self.victim.pid,
            "host": os.getpid(),
            "shared": str(SHARED),
        }

    def state(self) -> dict[str, Any]:
        """Everything an attempt could have changed outside."""
        return {
            "canary": _file(self.canary),
            "folder": sorted(path.name for path in self.folder.iterdir()),
            "shared memory": SHARED.exists(),
            "reached": sorted(name for name, sock in self.listeners.items() if _reached(sock)),
            "victim": (self.victim.poll(), _status(self.victim.pid), _limits(self.victim.pid)),
            "ipc": [_has_key(kind) for kind in ("shm", "msg", "sem")],
            "host": os.uname().nodename,
        }


def _file(path: Path) -> tuple[object, ...]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return ()
    return path.read_text(), stat.st_mode, stat.st_mtime, stat.st_nlink


def _reached(sock: socket.socket) -> bool:
    try:
        if sock.type == socket.SOCK_DGRAM:
            sock.recv(1)
        else:
            sock.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def _status(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return [line for line in lines if line.startswith(("TracerPid", "Cpus_allowed:"))]


def _limits(pid: int) -> tuple[str, int]:
    return Path(f"/proc/{pid}/limits").read_text(), os.getpriority(os.PRIO_PROCESS, pid)


def _has_key(kind: str) -> bool:
    lines = Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]
    return any(line.split()[0] == "4242" for line in lines)


@contextmanager
def open_arena() -> Generator[Arena]:
    secret = secrets.token_hex(16)
    os.environ["RLM_TEST_SECRET"] = secret
    with tempfile.TemporaryDirectory() as name, _listeners() as listeners:
        folder = Path(name)
        folder.chmod(0o777)
        canary = folder / "canary"
        canary.write_text(secret)
        canary.chmod(0o666)
        user = NOBODY if os.geteuid() == 0 else None
        victim = subprocess.Popen(
            ["/bin/sleep", "600"], user=user, group=user, stdin=subprocess.DEVNULL
        )
        try:
            yield Arena(canary, folder, secret, listeners, victim)
        finally:
            victim.kill()
            victim.wait()
            SHARED.unlink(missing_ok=True)
            del os.environ["RLM_TEST_SECRET"]


@contextmanager
def _listeners() -> Generator[dict[str, socket.socket]]:
    name = f"rlm-test-{secrets.token_hex(4)}"
    tcp = socket.create_server(("127.0.0.1", 0))
    kinds = {
        "udp": (socket.AF_INET, socket.SOCK_DGRAM, tcp.getsockname()),
        "abstract": (socket.AF_UNIX, socket.SOCK_STREAM, f"\0{name}"),
        "abstract datagrams": (socket.AF_UNIX, socket.SOCK_DGRAM, f"\0{name}d"),
        "unix": (socket.AF_UNIX, socket.SOCK_STREAM, f"{tempfile.gettempdir()}/{name}"),
    }
    listeners = {"tcp": tcp}
    for kind, (family, form, address) in kinds.items():
        listeners[kind] = sock = socket.socket(family, form)
        sock.bind(address)
        if form == socket.SOCK_STREAM:
            sock.listen()
    Path(listeners["unix"].getsockname()).chmod(0o777)
    try:
        for sock in listeners.values():
            sock.setblocking(False)
        yield listeners
    finally:
        Path(listeners["unix"].getsockname()).unlink()
        for sock in listeners.values():
            sock.close()


async def try_it(sandbox: OwnedSandbox, arena: Arena, attempt: Attempt) -> list[str]:
    """Run an attempt in a fresh REPL; return what it and the next cell said that they must not."""
    given = "".join(f"{name} = {value!r}\n" for name, value in arena.given().items())
    with anyio.fail_after(attempt.seconds + 60):
        async with sandbox.open_repl(TEXT, OPTIONS) as repl:
            result = await repl.execute(
                given + PRELUDE + attempt.code, timeout_seconds=attempt.seconds, on_call=_answer
            )
            if attempt.looks:
                await _look(repl)
            after = await repl.execute("6 * 7", timeout_seconds=20, on_call=_answer)
            if (
                after.lost_variables and not attempt.looks
            ):  # what was sent too early is found out by the next cell
                after = await repl.execute("6 * 7", timeout_seconds=20, on_call=_answer)
    found = _said(result, arena.secret)
    if attempt.looks and (result.lost_variables or after.lost_variables):
        found.append("a look took the variables away")
    if (after.output, after.error, after.final) != ("42\n", None, None):
        found.append(f"the next cell said {after!r}"[:300])
    return found


async def _look(repl: Repl) -> None:
    """List the variables and read them, as after a cell; refusing is allowed, losing is not."""
    with suppress(SandboxError):
        await repl.variables()
        for name in ("odd", "listed"):
            with suppress(NotFoundError):
                assert len((await repl.read_variable(name, limit=500)).text) <= 500
                await repl.read_variable(name, limit=500, whole=True)


def _said(result: CellResult, secret: str) -> list[str]:
    error = astuple(result.error) if result.error else ()
    final = astuple(result.final) if result.final else ()
    said = " ".join(map(str, (result.output, *error, *final)))
    found = [f"printed {mark}" for mark in MARKS & set(result.output.split())]
    return [*found, "read a secret"] if secret in said else found


async def _answer(call: ReplCall) -> CallReply:
    return CallReply(text=call.prompt)


def descendants(of: int | None = None) -> dict[int, str]:
    """The processes below this one, or below another, by id, with their names."""
    parents: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name, _, rest = (entry / "stat").read_text().rpartition(")")
            except OSError:
                continue
            parents[int(entry.name)] = (int(rest.split()[1]), name)
    root = of or os.getpid()
    ours = {root}
    while more := {pid for pid, (parent, _) in parents.items() if parent in ours} - ours:
        ours |= more
    return {pid: parents[pid][1] for pid in ours - {root}}


def _resident_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


async def run_attempts(
    sandbox: OwnedSandbox, arena: Arena, attempts: Sequence[Attempt]
) -> dict[str, list[str]]:
    """Run attempts, some at once; return what came of them, by name.

    What changed outside is told of all of them together, under `outside`.
    """
    found: dict[str, list[str]] = {}
    before, resident, ours = arena.state(), _resident_kb(), set(descendants())
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def work(attempt: Attempt) -> None:
        async with limiter:
            if escaped := await try_it(sandbox, arena, attempt):
                found[f"{attempt.group}: {attempt.name}"] = escaped

    async with anyio.create_task_group() as tasks:
        for attempt in attempts:
            tasks.start_soon(work, attempt)
    after, left = arena.state(), descendants()
    outside = [f"{key}: {after[key]!r:.300}" for key in before if before[key] != after[key]]
    outside += [f"a process was left: {left[pid]}" for pid in left.keys() - ours]
    if _resident_kb() - resident > MAX_HOST_GROWTH_KB:
        outside.append(f"the host grew by {_resident_kb() - resident} kB")
    return {**found, "outside": outside} if outside else found


async def run_battery(walls: Walls, groups: Sequence[str]) -> dict[str, Any]:
    """Run the attempts of some groups behind some walls; return what held and what did not."""
    with open_arena() as arena:
        async with a_sandbox(walls=walls, keep_ready=False) as sandbox:
            isolation = await sandbox.isolation()
            async with sandbox.open_repl(
                TEXT, OPTIONS
            ):  # so that its text is held before it counts
                attempts = [attempt for attempt in ATTEMPTS if attempt.group in groups]
                found = await run_attempts(sandbox, arena, attempts)
    return {
        "user": os.geteuid(),
        "level": isolation.level,
        "layers": list(isolation.layers),
        "tried": len(attempts),
        "escapes": found,
        "left": list(descendants().values()),
    }


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(anyio.run(run_battery, Walls(**asked["walls"]), asked["groups"])))
