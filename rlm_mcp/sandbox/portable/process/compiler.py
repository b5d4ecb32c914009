"""Compiles the module for this machine, and in it what is sent to every guest.

Runs in a process of its own, that may take all cores.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from rlm_mcp.sandbox.portable.process.sources import BOOT, guest_sources

MEMORY_BYTES = 1 << 30


class _Nowhere:
    """The outside of an instance that needs none."""

    def send(self, frames: bytes) -> None:
        """Take nothing."""
        raise PermissionError(f"{len(frames)} bytes were sent while code was compiled")

    def receive(self) -> bytes:
        """Give nothing."""
        return b""

    def sleep(self, seconds: float) -> None:
        """Wait for nothing."""


def main() -> None:
    """Compile what is named on the command line; complain on standard error."""
    asked: dict[str, Any] = json.loads(sys.argv[2])
    sys.path.append(asked["library"])
    from rlm_mcp.sandbox.portable.process.engine import THREAD_STACK_BYTES, compile_module  # noqa: PLC0415  # wasmtime can be imported now

    compiled = Path(asked["compiled"])
    try:
        if not compiled.exists():
            compile_module(Path(asked["wasm"]), asked["sha256"], compiled)
        threading.stack_size(THREAD_STACK_BYTES)
        thread = threading.Thread(target=_compile_guest, args=(asked, compiled))
        thread.start()
        thread.join()
    except (OSError, ValueError) as error:
        sys.exit(str(error))


def _compile_guest(asked: dict[str, Any], compiled: Path) -> None:
    from rlm_mcp.sandbox.portable.process import engine as engines  # noqa: PLC0415  # as above
    from rlm_mcp.sandbox.portable.process.instance import Facts, Instance  # noqa: PLC0415  # as above

    engine = engines.make_engine()
    code = (engine, engines.load(engine, compiled))
    instance = Instance(code, Facts.of(asked["facts"]), MEMORY_BYTES, _Nowhere())
    instance.enter("run", BOOT.encode())
    made = instance.enter("compile", guest_sources(Path(sys.argv[1])))
    guest = Path(asked["guest"])
    partial = guest.with_suffix(f".{os.getpid()}")
    partial.write_bytes(made)
    partial.replace(guest)
