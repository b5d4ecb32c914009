"""Compiles the module for this machine, in a process of its own that may take all cores."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    """Compile what is named on the command line; complain on standard error."""
    asked: dict[str, str] = json.loads(sys.argv[2])
    sys.path.append(asked["library"])
    from rlm_mcp.sandbox.portable.process.engine import compile_module  # noqa: PLC0415  # wasmtime can be imported now

    try:
        compile_module(Path(asked["wasm"]), asked["sha256"], Path(asked["compiled"]))
    except (OSError, ValueError) as error:
        sys.exit(str(error))
