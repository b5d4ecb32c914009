"""Python for WebAssembly as it is found on this machine, and compiled for it once."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import anyio
import platformdirs
from anyio import to_thread

from rlm_mcp.errors import SandboxError
from rlm_mcp.sandbox.boot import BOOT
from rlm_mcp.sandbox.host.process import PACKAGE_ROOT
from rlm_mcp.sandbox.portable.process.sources import digest, guest_sources

DATA_PACKAGE, FACTS = "rlm_mcp_python_wasm", "python.json"
PACKAGE = Path(PACKAGE_ROOT)
# Raise it when `engine.make_engine` sets something that changes the code.
ENGINE_VERSION = 1
COMPILE_SECONDS = 600
_NEEDED = ("text_header_bytes", "bytes_header_bytes", "interrupt_words")


@dataclass(frozen=True)
class PythonModule:
    """The module, what its build found out, and where its code for this machine is kept.

    `library` is the folder that holds wasmtime, `image` is where the memory of a guest with our
    modules loaded is kept.
    """

    wasm: Path
    sha256: str
    facts: Mapping[str, Any]
    library: Path
    compiled: Path
    image: Path


def find_module() -> PythonModule:
    """Find the module and wasmtime. Blocking.

    Raises:
        SandboxError: one of them is not installed.
    """
    found = importlib.util.find_spec("wasmtime")
    if found is None or found.origin is None:
        raise SandboxError(
            "the portable sandbox needs wasmtime, which is not installed",
            fix="Install it: pip install 'rlm-mcp[portable]'.",
        )
    wasm = _find_wasm()
    facts: dict[str, Any] = json.loads(wasm.with_name(FACTS).read_text("utf-8"))
    library = Path(found.origin).parent.parent
    needed = {name: facts[name] for name in _NEEDED}
    compiled = _compiled(facts["sha256"])
    image = compiled.with_name(f"{facts['sha256'][:16]}-{digest(guest_sources(PACKAGE))}.image")
    return PythonModule(wasm, facts["sha256"], needed, library, compiled, image)


def _find_wasm() -> Path:
    try:
        package: Any = importlib.import_module(DATA_PACKAGE)
    except ImportError as error:
        raise SandboxError(
            "the portable sandbox needs the package 'rlm-mcp-python-wasm', which is not installed",
            fix=(
                "Build its wheel in a clone of rlm-mcp, with"
                " `python3 packaging/python-wasm/build.py --wheel dist`, and install it."
            ),
        ) from error
    wasm: Path | None = package.find_module()
    if wasm is None:
        raise SandboxError(
            "the portable sandbox's Python was not built yet",
            fix=f"Build it in the clone, once: {package.BUILD_COMMAND}",
        )
    return wasm


def _compiled(sha256: str) -> Path:
    """Name the file by all that its code depends on."""
    version = metadata.version("wasmtime")
    name = f"{sha256[:16]}-{version}-{sys.platform}-{platform.machine()}-{ENGINE_VERSION}"
    folder = platformdirs.user_cache_path("rlm-mcp", appauthor=False) / "portable"
    return folder / f"{name}.cwasm"


async def compile_once(module: PythonModule) -> None:
    """Compile the module unless that was done; it takes some seconds of all cores.

    Raises:
        SandboxError: it cannot be compiled or kept.
    """
    try:
        if await to_thread.run_sync(_is_compiled, module):
            return
        ended = await _run_compiler(module)
    except OSError as error:
        raise SandboxError(
            f"the portable sandbox's Python cannot be compiled: {error!s}",
            fix=f"Make {str(module.compiled.parent)!r} writable for this user only.",
        ) from error
    if ended:
        raise SandboxError(f"the portable sandbox's Python cannot be compiled: {ended}")


def interpreter(platform: str = sys.platform) -> str:
    """Return the program to run: on Windows that of a virtual environment starts another one."""
    return str(getattr(sys, "_base_executable", "")) if platform == "win32" else sys.executable


def python_command(module: PythonModule) -> list[str]:
    """Begin the command of a process that loads the module.

    Its bytecode is kept beside the module's code: not every installer leaves bytecode beside the
    sources, and to compile those takes longer than all else of a start.
    """
    bytecode = module.compiled.parent / "bytecode"
    return [interpreter(), "-I", "-S", "-X", f"pycache_prefix={bytecode}"]


async def _run_compiler(module: PythonModule) -> str:
    """Run the compiler in a process of its own; return what it complained about."""
    boot = BOOT.format(module="portable.process.compiler")
    asked = {
        "wasm": str(module.wasm),
        "sha256": module.sha256,
        "compiled": str(module.compiled),
        "image": str(module.image),
        "facts": dict(module.facts),
        "library": str(module.library),
    }
    command = [*python_command(module), "-c", boot, PACKAGE_ROOT, json.dumps(asked)]
    start = partial(
        subprocess.Popen,
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    popen = await to_thread.run_sync(start)
    try:
        with anyio.fail_after(COMPILE_SECONDS):
            _, said = await to_thread.run_sync(popen.communicate, abandon_on_cancel=True)
    finally:
        popen.kill()
    return said.decode("utf-8", "replace")[-500:] if popen.returncode else ""


def _is_compiled(module: PythonModule) -> bool:
    """Tell whether all is there, in a folder that can be trusted.

    Raises:
        PermissionError: somebody else may have written it.
    """
    _make_private(module.compiled.parent)
    return module.compiled.exists() and module.image.exists()


def _make_private(folder: Path) -> None:
    """Make the folder; what lies in it is run, so nobody else may write there.

    Raises:
        PermissionError: it belongs to somebody else, or others may write to it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if sys.platform == "win32":  # the profile's own permissions hold there
        return
    found = folder.stat()
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        raise PermissionError(f"{str(folder)!r} can be written by others")
