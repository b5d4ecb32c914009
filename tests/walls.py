"""Which sandbox the tests of model code's REPL use: `RLM_TEST_SANDBOX=portable` asks for the other.

What does not hold there is marked with its reason, and stands in `docs/security.md`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rlm_mcp.sandbox.choice import OwnedSandbox
from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.sandbox.portable.sandbox import PortableSandbox

SANDBOX = os.environ.get("RLM_TEST_SANDBOX", "auto")
IS_PORTABLE = SANDBOX == "portable"


def a_sandbox(**options: Any) -> OwnedSandbox:
    """Make a sandbox of the kind that is tried; `walls` and `keep_ready` are of one each."""
    if IS_PORTABLE:
        options.pop("walls", None)
        return PortableSandbox(**options)
    options.pop("keep_ready", None)
    return ProcessSandbox(**options)


def environment() -> dict[str, str]:
    """What a server needs in its environment to use that sandbox, its compiled code included."""
    if not IS_PORTABLE:
        return {}
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return {"RLM_MCP_SANDBOX": SANDBOX, "XDG_CACHE_HOME": cache}


def native_alone(why: str) -> pytest.MarkDecorator:
    """Mark a test of what the portable sandbox has not, or does in its own way."""
    return pytest.mark.skipif(IS_PORTABLE, reason=f"portable: {why}")
