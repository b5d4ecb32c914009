"""Commands as somebody at a terminal or a script gives them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import anyio
import anyio.to_thread
from click.testing import CliRunner, Result

from rlm_mcp.cli.commands.main import main
from tests.serving import KEY


def environment(directory: Path, base_url: str = "", **changes: str) -> dict[str, str]:
    """Variables that keep everything below a directory, and name a scripted model."""
    return {
        "HOME": str(directory),
        "RLM_MCP_DATA_DIR": str(directory / "data"),
        "RLM_MCP_BASE_URL": base_url,
        "RLM_MCP_API_KEY": KEY,
        "RLM_MCP_ROOT_MODEL": "root",
        "RLM_MCP_SUB_MODEL": "sub",
        "RLM_MCP_MIN_ISOLATION": "process",
    } | changes


async def command(environment: Mapping[str, str], *arguments: str) -> Result:
    """Give a command in this process, in a thread, as it has an event loop of its own."""
    runner = CliRunner(env=dict(environment))
    with anyio.fail_after(60):
        return await anyio.to_thread.run_sync(lambda: runner.invoke(main, arguments))


def started(*arguments: str) -> list[str]:
    """What starts a command as a process of its own."""
    return [sys.executable, "-m", "rlm_mcp", *arguments]


def measured() -> dict[str, str]:
    """Return the variables by which coverage measures a process that is given no others of ours."""
    return {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}


async def process(
    environment: Mapping[str, str], *arguments: str, given: bytes = b""
) -> tuple[int, str, str]:
    """Give a command as a process of its own; returns its exit code, stdout and stderr."""
    with anyio.fail_after(120):
        done = await anyio.run_process(
            started(*arguments), input=given, check=False, env={**os.environ, **environment}
        )
    return done.returncode, done.stdout.decode(), done.stderr.decode()
