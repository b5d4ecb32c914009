"""What an upload over HTTP costs over plain SQLite, in one run: `python bench/uploads.py [MiB]`.

A server of its own takes a text by PUT, as it is and compressed, and its memory is watched; plain
SQLite writes the same chunks with the same pragmas between them. Each is done three times in turn.
"""

from __future__ import annotations

import gzip
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import lines
from store import make_blob, timed, write_plain

ROUNDS = 3
GZIP = {"content-encoding": "gzip"}


@dataclass(frozen=True)
class Body:
    """The text of a file many times, after something that no other body begins with.

    It is sent by the kernel from the file, as clients in C do, so that the client takes little of
    the two cores that the server and SQLite are measured on.
    """

    file: Path
    count: int
    headers: dict[str, str] = field(default_factory=dict[str, str])

    def send(self, connection: HTTPConnection) -> None:
        size = self.file.stat().st_size
        first = secrets.token_hex(16).encode()
        if self.headers:
            first = gzip.compress(first)
        connection.putrequest("PUT", "/contexts/bench")
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.putheader("content-length", str(len(first) + size * self.count))
        connection.endheaders(first)
        with self.file.open("rb", buffering=0) as file:
            for _ in range(self.count):
                connection.sock.sendfile(file, 0, size)


@contextmanager
def serving(directory: Path) -> Generator[tuple[int, int]]:
    """Start a server; gives its port and its process id."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "rlm_mcp", "serve", "--http", "--port", str(port)]
    settings = {"RLM_MCP_DATA_DIR": str(directory), "RLM_MCP_ROOT_MODEL": "none"}
    with subprocess.Popen(
        command, env={**os.environ, **settings}, stderr=subprocess.DEVNULL
    ) as server:
        try:
            wait_for(port)
            yield port, server.pid
        finally:
            server.send_signal(signal.SIGTERM)


def wait_for(port: int) -> None:
    for _ in range(200):
        try:
            HTTPConnection("127.0.0.1", port, timeout=600).request("GET", "/healthz")
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(port)


def put(port: int, body: Body) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=600)
    body.send(connection)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status != 201:
        raise RuntimeError(text)


def measure(directory: Path, count: int) -> None:
    blob = make_blob()
    plain_file, packed_file = directory / "text", directory / "text.gz"
    plain_file.write_bytes(blob)
    packed_file.write_bytes(gzip.compress(blob, 6))
    bodies = {"PUT": Body(plain_file, count), "PUT, gzip": Body(packed_file, count, GZIP)}
    megabytes = len(blob) * count / 1e6
    seconds: dict[str, list[float]] = {"plain SQLite": [], **{name: [] for name in bodies}}
    with serving(directory / "data") as (port, pid):
        put(port, Body(plain_file, 1))
        before = lines.peak_mb(pid)
        for number in range(ROUNDS):
            plain = directory / f"plain{number}.sqlite3"
            seconds["plain SQLite"].append(timed(lambda: write_plain(plain, blob, count)))  # noqa: B023  # called here
            plain.unlink()
            for name, body in bodies.items():
                seconds[name].append(timed(lambda: put(port, body)))  # noqa: B023  # likewise
        grown = lines.peak_mb(pid) - before
    floor = statistics.median(seconds["plain SQLite"])
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name:14} {megabytes / median:8.0f} MB/s  {floor / median:5.2f} of plain SQLite")
    print(f"The server's memory grew by at most {grown:.0f} MB over texts of {megabytes:.0f} MB.")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    with tempfile.TemporaryDirectory() as directory:
        measure(Path(directory), count)


if __name__ == "__main__":
    main()
