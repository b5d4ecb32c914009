"""Compiles the module for this machine, and keeps its memory with our modules loaded.

Runs in a process of its own, that may take all cores.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from rlm_mcp.sandbox.portable.process.sources import BOOT, guest_sources

MEMORY_BYTES = 1 << 30
# What an older version left may be in use by another installation; that one makes its own again.
KEPT_SECONDS = 7 * 24 * 3600


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
    failed: list[Exception] = []

    def make_image() -> None:
        try:
            _make_image(asked, compiled)
        except Exception as error:  # noqa: BLE001  # a thread's outermost frame: told below
            failed.append(error)

    try:
        if not compiled.exists():
            compile_module(Path(asked["wasm"]), asked["sha256"], compiled)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    threading.stack_size(THREAD_STACK_BYTES)
    thread = threading.Thread(target=make_image)
    thread.start()
    thread.join()
    if failed:
        sys.exit(f"{type(failed[0]).__name__}: {failed[0]}")
    remove_older((compiled, Path(asked["image"])))


def remove_older(in_use: tuple[Path, Path]) -> None:
    """Remove what other versions left in the folder of these files at least a week ago."""
    for path in in_use[0].parent.iterdir():
        if path in in_use or path.is_dir():
            continue
        with contextlib.suppress(OSError):  # another process removed it, or still maps it
            if time.time() - path.stat().st_mtime > KEPT_SECONDS:
                path.unlink()


def _make_image(asked: dict[str, Any], compiled: Path) -> None:
    """Compile our modules in one instance, load them into another, and keep its memory."""
    from rlm_mcp.sandbox.portable.process import engine as engines  # noqa: PLC0415  # as above
    from rlm_mcp.sandbox.portable.process.image import write_image  # noqa: PLC0415  # as above
    from rlm_mcp.sandbox.portable.process.instance import Facts, Instance  # noqa: PLC0415  # as above

    engine = engines.make_engine()
    code, facts = (engine, engines.load(engine, compiled)), Facts.of(asked["facts"])
    compiling = Instance(code, facts, MEMORY_BYTES, _Nowhere())
    compiling.enter("run", BOOT.encode())
    codes = compiling.enter("compile", guest_sources(Path(sys.argv[1])))
    instance = Instance(code, facts, MEMORY_BYTES, _Nowhere())
    fresh = instance.memory.read(0, instance.memory.size)
    instance.enter("run", BOOT.encode())
    if complaint := instance.enter("load", codes):
        raise ValueError(complaint.decode("utf-8", "replace"))
    image = Path(asked["image"])
    partial = image.with_suffix(f".{os.getpid()}")
    try:
        write_image(partial, instance, fresh)
        partial.replace(image)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
