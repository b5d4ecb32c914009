"""wasmtime as the portable wall needs it, and the module compiled for this machine.

Runs in processes of their own alone: the server never imports wasmtime.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any

import wasmtime
from wasmtime import _bindings  # pyright: ignore[reportPrivateUsage]  # see `_let_stack_grow`

STACK_BYTES = 8 << 20  # of WebAssembly's frames; the thread that runs them has more
THREAD_STACK_BYTES = 32 << 20


def make_engine() -> wasmtime.Engine:
    """Make an engine whose code can be stopped from another thread."""
    config = wasmtime.Config()
    config.epoch_interruption = True
    config.memory_may_move = False  # its address is kept
    _let_stack_grow(config)
    return wasmtime.Engine(config)


def _let_stack_grow(config: wasmtime.Config) -> None:
    """Allow more than 512 KiB of frames: wasmtime wants the stack of async code to be larger still.

    The setting for async code has no property in wasmtime-py, and nothing here is async.
    """
    set_async: Any = getattr(_bindings, "wasmtime_config_async_stack_size_set", None)
    if set_async is not None:
        set_async(config.ptr(), STACK_BYTES + (1 << 20))
        config.max_wasm_stack = STACK_BYTES


def load(engine: wasmtime.Engine, compiled: Path) -> wasmtime.Module:
    """Load what `compile_module` wrote.

    Raises:
        wasmtime.WasmtimeError: it is not there, or of another version or machine.
    """
    return wasmtime.Module.deserialize_file(engine, str(compiled))


def compile_module(wasm: Path, sha256: str, compiled: Path) -> None:
    """Compile the module for this machine; takes some seconds of all cores.

    Raises:
        ValueError: the module is not the one that was built.
    """
    data = wasm.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ValueError(f"{str(wasm)!r} has the SHA-256 {found}, not {sha256}: install it again")
    module = wasmtime.Module(make_engine(), data)
    partial = compiled.with_suffix(f".{os.getpid()}")
    try:
        partial.write_bytes(module.serialize())
        partial.replace(compiled)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
