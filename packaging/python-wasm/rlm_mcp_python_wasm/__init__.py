"""Finds CPython for WebAssembly: one module and the facts that its build found out.

An installed wheel carries both. From a clone they lie in the user's cache, where the build puts
them, in a folder named by what goes into the build; nothing is ever built from here.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULE, FACTS = "python.wasm", "python.json"
BUILD_INPUTS = (
    "boot.py",
    "build.py",
    "component.py",
    "package-lock.json",
    "probe.py",
    "repl.wit",
    "requirements.txt",
)
BUILD_COMMAND = "python3 packaging/python-wasm/build.py"


def find_module() -> Path | None:
    """Return the module's path, with its facts beside it; None where it was not built yet."""
    for folder in (HERE, cached_folder()):
        if folder is not None and (folder / MODULE).exists() and (folder / FACTS).exists():
            return folder / MODULE
    return None


def cached_folder() -> Path | None:
    """Return the folder that a clone's build goes to; None in an installed wheel."""
    key = build_key()
    return None if key is None else _cache_root() / "rlm-mcp-python-wasm" / key


def build_key() -> str | None:
    """Return a digest of what goes into the build; None where its scripts are not here."""
    digest = hashlib.sha256()
    for name in BUILD_INPUTS:
        path = HERE.parent / name
        if not path.exists():
            return None
        digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]


def _cache_root() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
