"""Which sandbox the tests of model code's REPL use: `RLM_TEST_SANDBOX` asks for another one.

It is `portable` or `docker`; the latter uses the image `RLM_TEST_DOCKER_IMAGE`.

What does not hold there is marked with its reason, and stands in `docs/security.md`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rlm_mcp.sandbox.choice import OwnedSandbox
from rlm_mcp.sandbox.docker.sandbox import DockerSandbox
from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.sandbox.portable.sandbox import PortableSandbox

SANDBOX = os.environ.get("RLM_TEST_SANDBOX", "auto")
IS_PORTABLE = SANDBOX == "portable"
IS_DOCKER = SANDBOX == "docker"
DOCKER_IMAGE = os.environ.get("RLM_TEST_DOCKER_IMAGE", "rlm-mcp-test")


def a_sandbox(**options: Any) -> OwnedSandbox:
    """Make a sandbox of the kind that is tried; `walls` and `keep_ready` are of one each."""
    if IS_PORTABLE:
        options.pop("walls", None)
        return PortableSandbox(**options)
    options.pop("keep_ready", None)
    if IS_DOCKER:
        options.pop("walls", None)
        return DockerSandbox(DOCKER_IMAGE, **options)
    return ProcessSandbox(**options)


def environment() -> dict[str, str]:
    """What a server needs in its environment to use that sandbox, its compiled code included."""
    if IS_DOCKER:
        return {
            "RLM_MCP_SANDBOX": SANDBOX,
            "RLM_MCP_DOCKER_IMAGE": DOCKER_IMAGE,
            "DOCKER_HOST": os.environ.get("DOCKER_HOST", ""),
        }
    if not IS_PORTABLE:
        return {}
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return {"RLM_MCP_SANDBOX": SANDBOX, "XDG_CACHE_HOME": cache}


def native_alone(why: str) -> pytest.MarkDecorator:
    """Mark a test of what only the native sandbox has, or does in this way."""
    return pytest.mark.skipif(IS_PORTABLE or IS_DOCKER, reason=f"{SANDBOX}: {why}")


def not_in_docker(why: str) -> pytest.MarkDecorator:
    """Mark a test of what the Docker sandbox does in its own way."""
    return pytest.mark.skipif(IS_DOCKER, reason=f"docker: {why}")
