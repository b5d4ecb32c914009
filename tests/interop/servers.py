"""This server as others start it: a real process, over either transport."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process

from rlm_mcp.testing.scripted_model import ScriptedModel
from tests.serving import KEY, settings_in

TOKEN = "a-token-for-tests-of-interop"  # guards nothing


def environment(directory: Path, model: ScriptedModel) -> dict[str, str]:
    """All that a server is told."""
    return {
        "HOME": str(directory),
        "RLM_MCP_DATA_DIR": str(settings_in(directory).data_dir),
        "RLM_MCP_ALLOWED_PATHS": str(directory),
        "RLM_MCP_BASE_URL": model.base_url,
        "RLM_MCP_API_KEY": KEY,
        "RLM_MCP_ROOT_MODEL": "root",
        "RLM_MCP_SUB_MODEL": "sub",
        "RLM_MCP_MIN_ISOLATION": "process",
    }


@asynccontextmanager
async def over_stdio(directory: Path, model: ScriptedModel) -> AsyncGenerator[dict[str, Any]]:
    """Give what a client needs to start the server itself."""
    yield {
        "command": sys.executable,
        "args": ["-m", "rlm_mcp"],
        "env": environment(directory, model),
    }


@asynccontextmanager
async def over_http(
    directory: Path, model: ScriptedModel, *, token: str = TOKEN
) -> AsyncGenerator[dict[str, Any]]:
    """Start the server, guarded by a token if there is one, and give where it is."""
    guard = {"RLM_MCP_HTTP_TOKEN": token} if token else {}
    env = environment(directory, model) | guard
    command = [sys.executable, "-m", "rlm_mcp", "serve", "--http", "--port", "0"]
    async with await anyio.open_process(command, env=env) as process:
        try:
            yield {
                "url": await _announced(process),
                "headers": {"Authorization": f"Bearer {token}"} if token else {},
            }
        finally:
            process.terminate()


async def _announced(process: Process) -> str:
    """Read what the server says at its start, up to where it serves."""
    said = ""
    assert process.stderr is not None
    with anyio.fail_after(60):
        async for data in process.stderr:
            said += data.decode()
            found = re.search(r"serving MCP at (\S+/mcp)", said)
            if found:
                return found[1]
    raise AssertionError(said)
