"""A server over stdio, spoken to in plain JSON lines, so that no client library's time counts."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lines

HELLO = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "bench", "version": "1"},
}
SAMPLE_SECONDS = 0.02


class StdioServer:
    """A child that serves MCP; `start` says hello to it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **environment},
        )
        self.pid = self._process.pid
        self._count = 0

    @property
    def peak_mb(self) -> float:
        """The peak of the server's own memory so far, in MB."""
        return lines.peak_mb(self.pid)

    @property
    def cpu_seconds(self) -> float:
        """What its threads took of the processors so far; Linux."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        spent = [int((task / "schedstat").read_text().split()[0]) for task in tasks]
        return sum(spent) / 1e9

    def start(self) -> None:
        """Initialize; the server answers as soon as it can."""
        self.request("initialize", HELLO)
        self._send({"method": "notifications/initialized"})

    def tool(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that must work."""
        result = self.request("tools/call", {"name": name, "arguments": arguments})
        if result.get("isError"):
            raise RuntimeError(result["content"])
        return result["structuredContent"]

    def request(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and wait for its result."""
        self._count += 1
        self._send({"id": self._count, "method": method, "params": params or {}})
        assert self._process.stdout is not None
        for line in self._process.stdout:
            reply = json.loads(line)
            if reply.get("id") == self._count:
                if "error" in reply:
                    raise RuntimeError(reply["error"])
                return reply["result"]
        raise RuntimeError(f"{self._process.args!r} ended before it answered {method!r}")

    def close(self) -> None:
        """Close its input, which ends it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(lines.END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self._process.stdin.flush()


class ChildPeaks:
    """Watches the peaks of a process's descendants while the block runs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peaks: dict[int, float] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    @property
    def largest_mb(self) -> float:
        """The largest of the peaks; a sum would count what is shared again and again."""
        return max(self._peaks.values())

    def __enter__(self) -> ChildPeaks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(SAMPLE_SECONDS):
            for pid in _descendants(self._pid):
                self._peaks[pid] = max(self._peaks.get(pid, 0.0), lines.peak_mb(pid))


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *_descendants(int(child))]
    except (FileNotFoundError, ProcessLookupError):
        pass  # ended while we looked
    return found
