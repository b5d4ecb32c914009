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
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import lines
from store import make_blob, timed, write_plain

ROUNDS = 3
GZIP = {"content-encoding": "gzip"}


def body(blob: bytes, count: int) -> Iterator[bytes]:
    """The blob many times, after something that no other body begins with."""
    yield secrets.token_hex(16).encode()
    for _ in range(count):
        yield blob


def packed(blob: bytes, count: int) -> Iterator[bytes]:
    """The same compressed, one member after another, so that packing takes no time."""
    member = gzip.compress(blob, 6)
    yield gzip.compress(secrets.token_hex(16).encode())
    for _ in range(count):
        yield member


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
            put(port, iter([b"a first text"]), {})
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(port)


def put(port: int, pieces: Iterator[bytes], headers: dict[str, str]) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("PUT", "/contexts/bench", pieces, headers, encode_chunked=True)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status != 201:
        raise RuntimeError(text)


def measure(directory: Path, count: int) -> None:
    blob = make_blob()
    megabytes = len(blob) * count / 1e6
    seconds: dict[str, list[float]] = {"plain SQLite": [], "PUT": [], "PUT, gzip": []}
    with serving(directory / "data") as (port, pid):
        before = lines.peak_mb(pid)
        for number in range(ROUNDS):
            plain = directory / f"plain{number}.sqlite3"
            seconds["plain SQLite"].append(timed(lambda: write_plain(plain, blob, count)))  # noqa: B023  # called here
            plain.unlink()
            seconds["PUT"].append(timed(lambda: put(port, body(blob, count), {})))
            seconds["PUT, gzip"].append(timed(lambda: put(port, packed(blob, count), GZIP)))
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
