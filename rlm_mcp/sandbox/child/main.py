"""Entry point of a REPL's own process, with limits but no walls; counterpart of `PlainLauncher`.

Started as `python -I -S -B -c BOOT PACKAGE_ROOT JSON` with only its socket and its text.
"""

from __future__ import annotations

import os
import socket
import sys

from rlm_mcp.sandbox import wire
from rlm_mcp.sandbox.boot import Start
from rlm_mcp.sandbox.child import documents, worker
from rlm_mcp.sandbox.walls import limits, namespaces


def main() -> None:
    """Load the text, lower the limits, serve cells."""
    start = Start.from_json(sys.argv[2])
    sys.argv = [""]  # cells that read arguments find none, as where Python is asked for no script
    if sys.platform == "linux":
        namespaces.die_with_parent()
    sock = socket.socket(fileno=start.socket)
    try:
        content = documents.load(start.text, start.layout)
        os.close(start.text)
        limits.share_arenas()
        mapped = limits.mapped_bytes()
        worker.serve(
            sock,
            content,
            start.options,
            lambda: limits.limit(start.options.memory_bytes, mapped),
        )
    except (OSError, MemoryError) as error:
        sock.sendall(wire.encode("failed", {}, wire.utf8(f"{type(error).__name__}: {error}")))
        os._exit(1)
