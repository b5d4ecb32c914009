"""Which sandbox the tests of model code's REPL use: `RLM_TEST_SANDBOX=portable` asks for the other.

What does not hold there is marked with its reason, and stands in `docs/security.md`.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from rlm_mcp.sandbox.choice import OwnedSandbox
from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.sandbox.portable.sandbox import PortableSandbox

IS_PORTABLE = os.environ.get("RLM_TEST_SANDBOX") == "portable"


def a_sandbox(**options: Any) -> OwnedSandbox:
    """Make a sandbox of the kind that is tried; `walls` are the native one's."""
    if IS_PORTABLE:
        options.pop("walls", None)
        return PortableSandbox(**options)
    return ProcessSandbox(**options)


def native_alone(why: str) -> pytest.MarkDecorator:
    """Mark a test of what the portable sandbox has not, or does in its own way."""
    return pytest.mark.skipif(IS_PORTABLE, reason=f"portable: {why}")
