"""Where a REPL's process of its own begins, without walls but limits. The child's side of `launch`.

Started as `python -I -S -B -c BOOT PACKAGE_ROOT JSON` with nothing but its socket and its text.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import asdict, dataclass
from typing import Any

from rlm_mcp.sandbox import documents, limits, wire, worker
from rlm_mcp.sandbox.documents import Layout
from rlm_mcp.sandbox.types import ReplOptions

# The package's own `__init__` is left out: a REPL needs the sandbox alone.
BOOT = """
import sys, types
package = types.ModuleType("rlm_mcp")
package.__path__ = [sys.argv[1]]
sys.modules["rlm_mcp"] = package
from rlm_mcp.sandbox.{module} import main
main()
"""


@dataclass(frozen=True)
class Start:
    """What a child is told when it begins: descriptors, layout of the text, options."""

    socket: int
    text: int
    layout: Layout
    options: ReplOptions

    def to_json(self) -> str:
        """Write it down for the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Start:
        """Read what `to_json` wrote."""
        said: dict[str, Any] = json.loads(text)
        layout, options = Layout(**said["layout"]), ReplOptions(**said["options"])
        return cls(said["socket"], said["text"], layout, options)


def main() -> None:
    """Load the text, lower the limits, serve cells."""
    start = Start.from_json(sys.argv[2])
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
