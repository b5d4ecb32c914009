"""The cluster of `nodes.py`, in a process of its own, as tests and benches have it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from tests.ray import processes

PATIENCE_SECONDS = 300


class Nodes:
    """The cluster, in a process of its own."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.pid = process.pid
        assert process.stdout is not None
        self._lines = TextReceiveStream(process.stdout)
        self._read = ""
        self.address = ""
        self.nodes: list[str] = []

    async def told(self) -> None:
        """Take in what the cluster says of itself; the first lines may be Ray's own."""
        with anyio.fail_after(PATIENCE_SECONDS):
            while True:
                line, found, self._read = self._read.partition("\n")
                if not found:
                    self._read = line + await self._lines.receive()
                elif line.startswith('{"address"'):
                    said = json.loads(line)
                    self.address, self.nodes = said["address"], said["nodes"]
                    return

    async def tell(self, command: str) -> None:
        """Have a node killed or added."""
        assert self._process.stdin is not None
        await self._process.stdin.send(f"{command}\n".encode())
        await self.told()

    async def workers(self) -> dict[int, str]:
        """The workers' processes, each with the address of its node."""
        found: dict[int, str] = {}
        for node in self.nodes:
            for pid in await anyio.to_thread.run_sync(processes.workers, node):
                found[pid] = node
        return found


@asynccontextmanager
async def open_nodes(
    count: int = 2, environment: Mapping[str, str] | None = None
) -> AsyncGenerator[Nodes]:
    """Some nodes that offer a worker, each with a key for models and further variables."""
    command = [sys.executable, "-m", "tests.ray.nodes", str(count)]
    async with await anyio.open_process(
        command, env={**os.environ, **(environment or {})}, stderr=subprocess.DEVNULL
    ) as process:
        cluster = Nodes(process)
        await cluster.told()
        yield cluster
        assert process.stdin is not None
        await process.stdin.aclose()
        with anyio.fail_after(PATIENCE_SECONDS):
            await process.wait()
